"""Pooling and means as functions: window sums by an all-ones convolution, area sums by ReduceSum.

16-bit codes are split into signed bytes, each summed on its own; their zero points are the bytes of the zero point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from qcompiler.quant.functions.channels_last import CHANNELS_FIRST, as_channels_first, as_channels_last, channels_last
from qcompiler.quant.functions.definition import Dimension, Operator, TensorType
from qcompiler.quant.functions.rescale import CLAMP, call, infer_rescaled
from qcompiler.quant.integer import pooling

__all__ = ["OPERATORS"]

_WINDOW: Final = {"kernel_shape": "ints", "strides": "ints", "dilations": "ints", "pads": "ints"}

# Channels become images of one channel each, so that one kernel of ones serves any number of them.
_PAD = """
ends_of_axes = Constant <value_ints: ints = @pads> ()
begins, ends = Split <num_outputs = 2> (ends_of_axes)
none = Constant <value_ints = [0, 0]> ()
widths = Concat <axis = 0> (none, begins, none, ends)
zx = Constant <value_int: int = @x_zero_point> ()
outer = Shape <end = 2> (x)
inner = Shape <start = 2> (x)
images = ReduceProd <keepdims = 1> (outer)
unit = Constant <value_ints = [1]> ()
flat_shape = Concat <axis = 0> (images, unit, inner)
flat = Reshape (x, flat_shape)
window = Constant <value_ints: ints = @kernel_shape> ()
kernel_sizes = Concat <axis = 0> (unit, unit, window)
ones = ConstantOfShape <value = int8[1] {1}> (kernel_sizes)
"""

_CONV: Final = "ConvInteger <strides: ints = @strides, dilations: ints = @dilations>"


def _signed_bytes(word: str, name: str) -> str:
    """Both bytes of a 16-bit code, each less 128: ``code + 32768 = 256 * (upper + 128) + lower + 128``."""
    return f"""
{name}raised = Add ({word}, offset)
{name}bits = Cast <to = 12> ({name}raised)
{name}upper_bits = BitShift <direction = "RIGHT"> ({name}bits, eight)
{name}upper32 = Cast <to = 6> ({name}upper_bits)
{name}upper_less = Sub ({name}upper32, middle)
{name}upper = Cast <to = 3> ({name}upper_less)
{name}lower_bits = BitwiseAnd ({name}bits, mask)
{name}lower32 = Cast <to = 6> ({name}lower_bits)
{name}lower_less = Sub ({name}lower32, middle)
{name}lower = Cast <to = 3> ({name}lower_less)
""".strip()


_SUM_BYTES = f"""
zero = Cast <to = 3> (zx)
padded = Pad (flat, widths, zero)
flat_sums = {_CONV} (padded, ones, zero)
"""

_SUM_WORDS = f"""
offset = Constant <value = int32 {{32768}}> ()
mask = Constant <value = uint32 {{255}}> ()
eight = Constant <value = uint32 {{8}}> ()
middle = Constant <value = int32 {{128}}> ()
flat32 = Cast <to = 6> (flat)
zero32 = Cast <to = 6> (zx)
padded32 = Pad (flat32, widths, zero32)
{_signed_bytes("padded32", "")}
{_signed_bytes("zero32", "zero_")}
upper_sums32 = {_CONV} (upper, ones, zero_upper)
lower_sums32 = {_CONV} (lower, ones, zero_lower)
upper_sums = Cast <to = 7> (upper_sums32)
lower_sums = Cast <to = 7> (lower_sums32)
scale = Constant <value_int = 256> ()
scaled = Mul (upper_sums, scale)
flat_sums = Add (scaled, lower_sums)
"""

_UNFLATTEN = """
positions = Shape <start = 2> (flat_sums)
shape = Concat <axis = 0> (outer, positions)
sums = Reshape (flat_sums, shape)
"""

_SPATIAL_AXES = """
rank_list = Shape (x)
rank = Size (rank_list)
two = Constant <value_int = 2> ()
next = Constant <value_int = 1> ()
over = Range (two, rank, next)
"""

_GIVEN_AXES = """
over = Constant <value_ints: ints = @axes> ()
"""


def _area_sum(keepdims: str, *, wide: bool) -> str:
    element = 7 if wide else 6
    return f"""
zx = Constant <value_int: int = @x_zero_point> ()
zero = Cast <to = {element}> (zx)
codes = Cast <to = {element}> (x)
centred = Sub (codes, zero)
sums = ReduceSum <keepdims{keepdims}> (centred, over)
"""


# Digits lie along a last axis of their own; each term is negated or not, and all are added.
DIGITS: Final = """
last_axis = Constant <value_ints = [-1]> ()
sums64 = Cast <to = 7> (sums)
pattern = Cast <to = 13> (sums64)
column = Unsqueeze (pattern, last_axis)
exponents = Cast <to = 13> (left)
moved = BitShift <direction = "LEFT"> (column, exponents)
terms = Cast <to = 7> (moved)
minus_terms = Neg (terms)
signed_terms = Where (negative, minus_terms, terms)
product = ReduceSum <keepdims = 0> (signed_terms, last_axis)
"""


def _window_infer(types: Sequence[TensorType], attributes: Mapping[str, Any]) -> TensorType:
    shape = types[0].shape
    if shape is None:
        return infer_rescaled(None, attributes)
    lists = [[int(item) for item in attributes[key]] for key in _WINDOW]
    rank = len(shape) - 2
    spatial = tuple(
        _window_count(size, kernel, stride, dilation, (lists[3][index], lists[3][rank + index]))
        for index, (size, kernel, stride, dilation) in enumerate(zip(shape[2:], *lists[:3], strict=True))
    )
    return infer_rescaled((*shape[:2], *spatial), attributes)


def _channels_last_infer(types: Sequence[TensorType], attributes: Mapping[str, Any]) -> TensorType:
    shape = types[0].shape
    if shape is None:
        return infer_rescaled(None, attributes)
    result = _window_infer([TensorType(types[0].dtype, as_channels_first(shape))], attributes).shape
    return infer_rescaled(None if result is None else as_channels_last(result), attributes)


def _window_count(size: Dimension, kernel: int, stride: int, dilation: int, pads: tuple[int, int]) -> Dimension:
    if not isinstance(size, int):
        return None
    return pooling.window_shape([size], [kernel], [stride], [dilation], pads)[0]


def _global_infer(types: Sequence[TensorType], attributes: Mapping[str, Any]) -> TensorType:
    shape = types[0].shape
    return infer_rescaled(None if shape is None else (*shape[:2], *(1 for _ in shape[2:])), attributes)


def _reduce_infer(types: Sequence[TensorType], attributes: Mapping[str, Any]) -> TensorType:
    shape, axes = types[0].shape, set(attributes["axes"])
    if shape is None:
        return infer_rescaled(None, attributes)
    kept: list[Dimension] = [1 if index in axes else size for index, size in enumerate(shape)]
    if not attributes["keepdims"]:
        kept = [size for index, size in enumerate(kept) if index not in axes]
    return infer_rescaled(tuple(kept), attributes)


def _max_infer(types: Sequence[TensorType], attributes: Mapping[str, Any]) -> TensorType:
    shape = types[0].shape
    if shape is None:
        return TensorType(types[0].dtype, None)
    axis, pads = int(attributes["axis"]), (int(attributes["begin"]), int(attributes["end"]))
    kernel, stride, dilation = (int(attributes[key]) for key in ("kernel", "stride", "dilation"))
    count = _window_count(shape[axis], kernel, stride, dilation, pads)
    return TensorType(types[0].dtype, (*shape[:axis], count, *shape[axis + 1 :]))


def _variants(
    name: str,
    formula: str,
    attributes: Mapping[str, str],
    sums: Mapping[bool, str],
    specifications: tuple[Callable[..., Any], Callable[..., Any]],
    infer: Callable[[Sequence[TensorType], Mapping[str, Any]], TensorType],
) -> list[Operator]:
    """The operator for 8- and 16-bit codes, with a multiplier and with digits.

    Args:
        name: Base name.
        formula: What it computes, for the variant with a multiplier.
        attributes: Attributes before ``x_zero_point``.
        sums: Text that computes ``sums``, by whether codes have 16 bits.
        specifications: With a multiplier, with digits.
        infer: Type of the result.
    """
    found = []
    for wide in (False, True):
        for digits in (False, True):
            rescale = {"left": "uint8", "negative": "bool"} if digits else {"multiplier": "int32"}
            types = {"x": "int16" if wide else "int8", **rescale, "shift": "uint8"}
            ending = DIGITS + call("product", multiplies=False) if digits else call("sums", multiplies=True)
            found.append(
                Operator(
                    name=f"{name}{'Wide' if wide else ''}{'Shift' if digits else ''}",
                    formula=formula.replace("sum * b", "(sum of ±(sum << left)) << 16") if digits else formula,
                    inputs=tuple(types),
                    types=types,
                    attributes={**attributes, "x_zero_point": "int", **CLAMP},
                    body=sums[wide] + ending,
                    specification=specifications[digits],
                    infer=infer,
                    bound="1/2 + 2^-6 (at most 1/4 with 16-bit codes) off the real value" if digits else "1",
                    calls=("RequantizeShift",) if digits else ("Requantize",),
                )
            )
    return found


def _channels_last_sums(sums: str) -> str:
    """Window sums with channels last, from the statements for channels first."""
    inside = sums.replace("(x)", "(first)").replace("(x, ", "(first, ").replace("\nsums =", "\nfirst_sums =")
    return CHANNELS_FIRST + inside + channels_last("first_sums", "sums")


_RESCALED: Final = "clip(((sum * b + 2^(c-1)) >> c) + zy, low, high), sum = "

# All axes are padded, most of them by nothing: ONNX Runtime moves Transposes through a Pad as if it named no axes.
_MAX_POOL: Final = Operator(
    name="QMaxPool",
    formula="max of the codes in each window along one axis; padding never wins",
    inputs=("x",),
    types={"x": "int8 int16"},
    attributes=dict.fromkeys(("axis", "kernel", "stride", "dilation", "begin", "end", "to"), "int"),
    body="""
kernel = Constant <value_int: int = @kernel> ()
stride = Constant <value_int: int = @stride> ()
dilation = Constant <value_int: int = @dilation> ()
before = Constant <value_int: int = @begin> ()
behind = Constant <value_int: int = @end> ()
axis = Constant <value_int: int = @axis> ()
zero = Constant <value_int = 0> ()
one = Constant <value_int = 1> ()
first = Constant <value_ints = [0]> ()
next = Add (axis, one)
next_list = Unsqueeze (next, first)
lengths = Shape (x)
rank = Size (lengths)
every_axis = Range (zero, rank, one)
is_axis = Equal (every_axis, axis)
along = Cast <to = 7> (is_axis)
befores = Mul (along, before)
behinds = Mul (along, behind)
widths = Concat <axis = 0> (befores, behinds)
least = Constant <value = int32 {-32768}> ()
codes = Cast <to = 6> (x)
padded = Pad (codes, widths, least)
sizes = Shape (padded)
size = Gather (sizes, axis)
steps = Sub (kernel, one)
reach = Mul (steps, dilation)
room = Sub (size, reach)
starts = Range (zero, room, stride)
offset_numbers = Range (zero, kernel, one)
offsets = Mul (offset_numbers, dilation)
second = Constant <value_ints = [1]> ()
start_column = Unsqueeze (starts, second)
places = Add (start_column, offsets)
windows = Gather <axis: int = @axis> (padded, places)
greatest = ReduceMax <keepdims = 0> (windows, next_list)
y = Cast <to: int = @to> (greatest)
""",
    specification=pooling.max_pool,
    infer=_max_infer,
    bound="0",
)

_WINDOW_SUMS: Final = {False: _PAD + _SUM_BYTES + _UNFLATTEN, True: _PAD + _SUM_WORDS + _UNFLATTEN}

OPERATORS: Final = (
    *_variants(
        "QAveragePool",
        _RESCALED + "sum over a window of (x - zx)",
        _WINDOW,
        _WINDOW_SUMS,
        (pooling.average_pool, pooling.average_pool_shift),
        _window_infer,
    ),
    *_variants(
        "QAveragePoolChannelsLast",
        _RESCALED + "sum over a window of (x - zx); x and the result are [batch, spatial..., channels]",
        _WINDOW,
        {wide: _channels_last_sums(sums) for wide, sums in _WINDOW_SUMS.items()},
        (pooling.average_pool_channels_last, pooling.average_pool_channels_last_shift),
        _channels_last_infer,
    ),
    *_variants(
        "QGlobalAveragePool",
        _RESCALED + "sum over the spatial axes of (x - zx)",
        {},
        {wide: _SPATIAL_AXES + _area_sum(" = 1", wide=wide) for wide in (False, True)},
        (pooling.global_average_pool, pooling.global_average_pool_shift),
        _global_infer,
    ),
    *_variants(
        "QReduceMean",
        _RESCALED + "sum over the axes of (x - zx)",
        {"axes": "ints", "keepdims": "int"},
        {wide: _GIVEN_AXES + _area_sum(": int = @keepdims", wide=wide) for wide in (False, True)},
        (pooling.reduce_mean, pooling.reduce_mean_shift),
        _reduce_infer,
    ),
    _MAX_POOL,
)
