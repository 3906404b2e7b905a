"""QConv, QConvChannelsLast and QConvTranspose: convolutions with a constant weight, 1 to 3 spatial axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from qcompiler.quant.functions.channels_last import CHANNELS_FIRST, as_channels_first, as_channels_last, channels_last
from qcompiler.quant.functions.definition import Dimension, TensorType
from qcompiler.quant.functions.linear import JOIN, SPLIT, UNPACK, Family, variants
from qcompiler.quant.integer.convolution import (
    conv_accumulator,
    conv_channels_last_accumulator,
    conv_size,
    conv_transpose_accumulator,
    conv_transpose_size,
)

__all__ = ["OPERATORS"]

_PAD: Final = """
pad_list = Constant <value_ints: ints = @pads> ()
pad_begins, pad_ends = Split <num_outputs = 2> (pad_list)
unpadded = Constant <value_ints = [0, 0]> ()
all_pads = Concat <axis = 0> (unpadded, pad_begins, unpadded, pad_ends)
padded = Pad (activations, all_pads, filler)
"""

# The axis of size 1 behind every spatial axis is filled up to the stride; merged with the axis before it, every code
# is followed by stride - 1 codes of zero. The last ones are cut away together with the padding.
_STRETCH: Final = """
stride_list = Constant <value_ints: ints = @strides> ()
dilation_list = Constant <value_ints: ints = @dilations> ()
pad_list = Constant <value_ints: ints = @pads> ()
more = Constant <value_ints: ints = @output_padding> ()
pad_begins, pad_ends = Split <num_outputs = 2> (pad_list)
none = Constant <value_int = 0> ()
one = Constant <value_int = 1> ()
two = Constant <value_int = 2> ()
three = Constant <value_int = 3> ()
far = Constant <value_int = -2147483648> ()
axes = Size (stride_list)
counted = Range (none, axes, one)
counted_twice = Mul (counted, two)
new_axes = Add (counted_twice, three)
apart = Unsqueeze (activations, new_axes)
gaps = Sub (stride_list, one)
no_gaps = Sub (gaps, gaps)
gap_pads = Concat <axis = 0> (no_gaps, gaps)
filled = Pad (apart, gap_pads, filler, new_axes)
outer = Shape <end = 2> (activations)
sizes = Shape <start = 2> (activations)
stretched_sizes = Mul (sizes, stride_list)
stretched_shape = Concat <axis = 0> (outer, stretched_sizes)
stretched = Reshape (filled, stretched_shape)
kernel = Shape <start = 2> (KERNEL)
steps = Sub (kernel, one)
reach = Mul (steps, dilation_list)
begins = Sub (reach, pad_begins)
ends_padded = Sub (reach, pad_ends)
ends_more = Add (ends_padded, more)
ends = Sub (ends_more, gaps)
unpadded = Constant <value_ints = [0, 0]> ()
all_pads = Concat <axis = 0> (unpadded, begins, unpadded, ends)
padded = Pad (stretched, all_pads, filler)
backwards = Sub (no_gaps, one)
before_first = Add (no_gaps, far)
kernel_axes = Add (counted, two)
mirrored = Slice (KERNEL, backwards, before_first, kernel_axes, backwards)
"""


def _products(wide: bool, weight: str, attributes: str) -> str:
    if not wide:
        return f"products = ConvInteger <{attributes}> (padded, {weight})\n"
    return (
        f"wide = Identity (padded)\n{SPLIT}"
        f"upper_sum = ConvInteger <{attributes}> (upper, {weight})\n"
        f"lower_sum = ConvInteger <{attributes}> (lower, {weight}, lower_zero)\n"
        f"{JOIN}"
    )


def _head(wide: bool, packed: bool, codes: str = "x") -> str:
    """Padding knows no int16: those codes are widened first."""
    return (UNPACK if packed else "") + (
        "zx = Constant <value_int: int = @x_zero_point> ()\n"
        + (f"activations = Cast <to = 6> ({codes})\n" if wide else f"activations = Identity ({codes})\n")
        + f"filler = Cast <to = {6 if wide else 3}> (zx)\n"
    )


_ADD_BIAS: Final = "accumulator = Add (products, bias)\n"
_CONV_PASSES: Final = "strides: ints = @strides, dilations: ints = @dilations, group: int = @group"


def _conv_body(wide: bool, packed: bool) -> str:
    return _head(wide, packed) + _PAD + _products(wide, "weight" if packed else "w", _CONV_PASSES) + _ADD_BIAS


def _channels_last_body(wide: bool, packed: bool) -> str:
    products = _products(wide, "weight" if packed else "w", _CONV_PASSES).replace("products =", "first_products =")
    inside = _head(wide, packed, "first") + _PAD + products
    return CHANNELS_FIRST + inside + channels_last("first_products", "products") + _ADD_BIAS


def _transpose_body(wide: bool, packed: bool) -> str:
    stretch = _STRETCH.replace("KERNEL", "weight" if packed else "w")
    products = _products(wide, "mirrored", "dilations: ints = @dilations, group: int = @group")
    return _head(wide, packed) + stretch + products + _ADD_BIAS


def _conv_shape(types: Sequence[TensorType], attributes: Mapping[str, Any]) -> tuple[Dimension, ...] | None:
    return _shape(types, attributes, transposed=False)


def _channels_last_shape(types: Sequence[TensorType], attributes: Mapping[str, Any]) -> tuple[Dimension, ...] | None:
    x, w = types[0], types[1]
    if x.shape is None or w.shape is None:
        return None
    result = _conv_shape([TensorType(x.dtype, as_channels_first(x.shape)), w], attributes)
    return None if result is None else as_channels_last(result)


def _transpose_shape(types: Sequence[TensorType], attributes: Mapping[str, Any]) -> tuple[Dimension, ...] | None:
    return _shape(types, attributes, transposed=True)


def _shape(
    types: Sequence[TensorType], attributes: Mapping[str, Any], *, transposed: bool
) -> tuple[Dimension, ...] | None:
    x, w = types[0].shape, types[1].shape
    if x is None or w is None:
        return None
    rank = len(w) - 2
    pads = attributes["pads"]
    result: list[Dimension] = [x[0], w[0]]
    for axis in range(rank):
        size, kernel = x[2 + axis], w[2 + axis]
        if not isinstance(size, int) or not isinstance(kernel, int):
            result.append(None)
            continue
        common = kernel, attributes["strides"][axis], attributes["dilations"][axis], pads[axis], pads[rank + axis]
        if transposed:
            result.append(conv_transpose_size(size, *common, attributes["output_padding"][axis]))
        else:
            result.append(conv_size(size, *common))
    return tuple(result)


_INPUTS: Final = {"x": "int8", "w": "int8", "bias": "int32"}
_WIDE: Final = {"x": "int16", "bias": "int64"}
_ATTRIBUTES: Final = {"strides": "ints", "dilations": "ints", "pads": "ints"}
_LAST: Final = {"group": "int", "x_zero_point": "int"}

OPERATORS: Final = (
    *variants(
        Family(
            name="QConv",
            formula="requantize(bias + conv(x padded with x_zero_point, w))",
            inputs=_INPUTS,
            wide_types=_WIDE,
            attributes={**_ATTRIBUTES, **_LAST},
            body=_conv_body,
            accumulate=conv_accumulator,
            shape=_conv_shape,
            accumulate_packed=conv_accumulator,
        )
    ),
    *variants(
        Family(
            name="QConvChannelsLast",
            formula="requantize(bias + conv(x padded with x_zero_point, w)); x and the result are "
            "[batch, spatial..., channels], w is that of QConv",
            inputs=_INPUTS,
            wide_types=_WIDE,
            attributes={**_ATTRIBUTES, **_LAST},
            body=_channels_last_body,
            accumulate=conv_channels_last_accumulator,
            shape=_channels_last_shape,
            accumulate_packed=conv_channels_last_accumulator,
        )
    ),
    *variants(
        Family(
            name="QConvTranspose",
            formula="requantize(bias + transposed conv(x stretched and padded with x_zero_point, w)); "
            "w is [outputs, channels / group, kernel]",
            inputs=_INPUTS,
            wide_types=_WIDE,
            attributes={**_ATTRIBUTES, "output_padding": "ints", **_LAST},
            body=_transpose_body,
            accumulate=conv_transpose_accumulator,
            shape=_transpose_shape,
            accumulate_packed=conv_transpose_accumulator,
        )
    ),
)
