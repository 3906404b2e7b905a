"""What the lowerings of Conv, ConvTranspose, Gemm and MatMul share: folded biases, weights in their layout, bounds.

An operator of the set computes ``bias + sum(x * w)`` on codes. Its integer bias holds everything that is constant:
the real bias at the accumulator's scale ``s_x * s_w``, and what the zero point of the activation contributes,
``-z_x * sum(w)``. The weights' own zero point, where they have one, is subtracted from the codes beforehand.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.analysis.code_ranges import CodeRanges
from qcompiler.ir import constants
from qcompiler.ir.edit import AttributeValue
from qcompiler.passes.lower.emitter import Emitter
from qcompiler.passes.lower.products import STORED, Product, exact_real, product_of, rows_of
from qcompiler.passes.lower.site import Codes, NoIntegerForm, Site, dequantizer
from qcompiler.passes.normalize._rewrite import transformed
from qcompiler.quant import packing
from qcompiler.quant.annotations import Annotation, annotate
from qcompiler.quant.integer.dyadic import Overflow
from qcompiler.quant.integer.linear import WIDE_DEPTH
from qcompiler.quant.operators import BIAS_INPUT, WEIGHT_INPUT

__all__ = ["Layer", "Layout", "added_constants", "check_order", "clamped_per_channel", "emit", "layer", "weight_codes"]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A layer with a constant weight, in integers.

    Attributes:
        product: The group and its weight as rows.
        scale: Scale of the accumulator, float64 ``(channels,)``, or ``()`` with one weight scale.
        share: Contribution of the activation's zero point per channel, int64: ``-z_x * sum(w)``.
        bound: Greatest magnitude of the accumulator.
    """

    product: Product
    scale: NDArray[np.float64]
    share: NDArray[np.int64]
    bound: int

    @property
    def wide(self) -> bool:
        """Whether activations have 16 bits."""
        return self.product.data.dtype is ir.DataType.INT16

    def bias(self, real: NDArray[np.float64], shape: Sequence[int]) -> NDArray[Any]:
        """The real bias rounded ``half_even`` to the accumulator's scale, and the share of the zero point.

        Args:
            real: Real bias that broadcasts against ``shape``.
            shape: Shape of one number per channel, as the accumulator has it.
        """
        scale = self.scale.reshape(shape) if self.scale.ndim else self.scale
        rounded = np.rint(real / scale).astype(np.int64)
        return (rounded + self.share.reshape(shape)).astype(np.int64 if self.wide else np.int32)

    def factor(self, shape: Sequence[int]) -> float | NDArray[np.float64]:
        """The real rescale from accumulator to result, one number per channel or one for all."""
        factor = self.scale / self.product.site.output.scale
        return factor.reshape(shape) if factor.ndim else float(factor)


def layer(site: Site) -> Layer:
    """The integers of a layer with a constant weight.

    Raises:
        NoIntegerForm: It has none, or its accumulator could overflow.
    """
    product = _product(site)
    if product.data.dtype is ir.DataType.INT16 and not product.width:
        raise NoIntegerForm("the target multiplies no 16-bit codes")
    if product.data.dtype is ir.DataType.INT16 and product.rows.shape[1] > WIDE_DEPTH:
        raise NoIntegerForm(f"it adds {product.rows.shape[1]} products of 16-bit codes; {WIDE_DEPTH} is the most")
    if product.rows.size and (product.rows.min() < -128 or product.rows.max() > 127):
        raise NoIntegerForm("its weights less their zero point do not fit 8 bits")
    per_scale = product.data.scale * product.weight.scale.reshape(-1)
    scale = np.asarray(per_scale[0]) if per_scale.size == 1 else per_scale[product.scale_of]
    share = -product.data.zero_point * product.rows.sum(axis=1, dtype=np.int64)
    return Layer(product, scale, share, _bound(product))


def _product(site: Site) -> Product:
    site.codes(0)
    weight = site.weight(WEIGHT_INPUT)
    if weight is None:
        raise NoIntegerForm("its weight is no constant in codes")
    if weight.block:
        raise NoIntegerForm("its weights have a scale per block")
    if weight_codes(site).dtype not in STORED:
        raise NoIntegerForm("its weight has no codes of 8 bits or fewer")
    product = product_of(site, CodeRanges())
    if product is None:
        raise NoIntegerForm("the scales of its weight do not belong to output channels")
    return product


def _bound(product: Product) -> int:
    try:
        low, high = product.bounds()
    except Overflow as error:
        raise NoIntegerForm(str(error)) from error
    bound = max(-int(low.min(initial=0)), int(high.max(initial=0)))
    if bound >= 1 << (product.width - 1):
        raise NoIntegerForm(f"its accumulator can reach {bound}, and the target's has {product.width} bits")
    return bound


def check_order(site: Site) -> None:
    """Whatever is added comes before what is clamped.

    Raises:
        NoIntegerForm: It does not.
    """
    kinds = [node.op_type == "Add" for node in site.absorbed]
    if kinds != sorted(kinds, reverse=True):
        raise NoIntegerForm("a constant is added behind its activation")


def added_constants(site: Site) -> list[NDArray[np.float64]]:
    """Real biases of a layer: its own, where it has one, and those of absorbed Add nodes.

    Raises:
        NoIntegerForm: The bias is no constant.
    """
    own = site.node.inputs[BIAS_INPUT] if len(site.node.inputs) > BIAS_INPUT else None
    found = [] if own is None else [exact_real(own)]
    adds = [node for node in site.absorbed if node.op_type == "Add"]
    found += [next((real for item in add.inputs if (real := exact_real(item)) is not None), None) for add in adds]
    known = [item for item in found if item is not None]
    if len(known) < len(found):
        raise NoIntegerForm("its bias is no constant")
    return known


# -- weights -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Layout:
    """How an operator reads its weight.

    Attributes:
        shape: Shape with output channels first.
        turned: Whether an unpacked weight is a matrix with output channels last instead.
        as_stored: Whether the node reads its weight in the same layout.
    """

    shape: tuple[int, ...]
    turned: bool
    as_stored: bool


def weight_operand(found: Layer, layout: Layout, emitter: Emitter) -> tuple[ir.Value, dict[str, AttributeValue]]:
    """The weight, and the attributes that describe it: packed where codes of 4 bits are stored."""
    weight, rows = found.product.weight, found.product.rows
    stored = weight_codes(found.product.site)
    bits = packing.least_bits(rows) if weight.bits < 8 else None
    if bits is not None:
        width = packing.packed_width(rows.shape[1], bits)
        pack = functools.partial(packing.pack, bits=bits)
        packed = _derived(found, pack, (rows.shape[0], width), ir.DataType.UINT8, emitter)
        return emitter.edit.constant(f"{weight.name}_packed", packed), {"bits": bits, "weight_shape": layout.shape}
    if layout.as_stored and stored.dtype is ir.DataType.INT8 and not weight.zero_point.any():
        return stored, {}
    size = tuple(reversed(layout.shape)) if layout.turned else layout.shape
    arranged = _derived(found, functools.partial(_arranged, layout), size, ir.DataType.INT8, emitter)
    return emitter.edit.constant(f"{weight.name}_arranged", arranged), {}


def weight_codes(site: Site) -> ir.Value:
    """The stored codes of the weight.

    Raises:
        NoIntegerForm: There are none.
    """
    source = dequantizer(site.node.inputs[WEIGHT_INPUT])
    stored = source.inputs[0] if source is not None else None
    if stored is None:
        raise NoIntegerForm("its weight is no constant in codes")
    return stored


def _arranged(layout: Layout, rows: NDArray[Any]) -> NDArray[Any]:
    return rows.T if layout.turned else rows.reshape(layout.shape)


def _derived(
    found: Layer,
    arrange: Callable[[NDArray[Any]], NDArray[Any]],
    size: tuple[int, ...],
    dtype: ir.DataType,
    emitter: Emitter,
) -> ir.TensorProtocol:
    """A tensor made from the rows of the weight: at once, or when it is read where weights are large."""
    stored = weight_codes(found.product.site)
    tensor = constants.tensor(stored)
    if tensor is None:
        raise NoIntegerForm("its weight is no constant in codes")
    weight, node = found.product.weight, found.product.site.node
    axes = [-1 if weight.zero_point.size > 1 and axis == weight.axis else 1 for axis in range(weight.codes.ndim)]
    zero = weight.zero_point.reshape(axes) + (128 if tensor.dtype is ir.DataType.UINT8 else 0)

    def derive(codes: NDArray[Any]) -> NDArray[Any]:
        return arrange(rows_of(node, (codes.astype(np.int16) - zero).astype(np.int8)))

    return transformed(emitter.edit, tensor, derive, size, dtype)


# -- results -------------------------------------------------------------------------------------------------------


def emit(
    found: Layer,
    base: str,
    layout: Layout,
    bias: NDArray[Any],
    channels: Sequence[int],
    attributes: dict[str, AttributeValue],
    emitter: Emitter,
) -> ir.Value:
    """Write the operator of a layer.

    Args:
        found: The layer.
        base: Operator without endings.
        layout: How it reads its weight.
        bias: Its bias.
        channels: Shape of one number per channel, as the accumulator has it.
        attributes: Its attributes, those of packing and clamp excepted.
        emitter: Where nodes and constants go.
    """
    site = found.product.site
    weight, packed = weight_operand(found, layout, emitter)
    operands = [site.codes(0).value, weight, emitter.constant(f"{site.output.of}_bias", bias)]
    name = base + ("Wide" if found.wide else "") + ("Packed" if packed else "")

    def write(clamped: Site) -> ir.Value:
        factor = found.factor(channels)
        return emitter.rescaled(
            name, operands, factor, bound=found.bound, site=clamped, attributes={**attributes, **packed}
        )

    return clamped_per_channel(site, write, emitter)


def clamped_per_channel(site: Site, write: Callable[[Site], ir.Value], emitter: Emitter) -> ir.Value:
    """A result whose absorbed Min has a bound per channel: the operator clamps to the other bounds, a Min follows.

    Clamps commute as long as no upper bound is below the lower one.

    Raises:
        NoIntegerForm: One is.
    """
    bounds = [(node, real) for node in site.absorbed if (real := _several_bounds(node)) is not None]
    remaining = tuple(node for node in site.absorbed if not any(node is other for other, _ in bounds))
    inner = dataclasses.replace(site, absorbed=remaining)
    codes = [(node, _codes_of(real, site.output)) for node, real in bounds]
    low, _ = inner.clamp()
    for node, array in codes:
        if (array < low).any():
            raise NoIntegerForm(f"{node.name} (Min) has bounds below the least result")
    result = write(inner)
    for node, array in codes:
        result = _minimum(result, array, site, node, emitter)
    return result


def _several_bounds(node: ir.Node) -> NDArray[np.float64] | None:
    """The bounds of a Min where they are more than one."""
    if node.op_type != "Min":
        return None
    real = next((found for item in node.inputs if (found := exact_real(item)) is not None), None)
    return real if real is not None and real.size > 1 else None


def _codes_of(real: NDArray[np.float64], output: Codes) -> NDArray[np.int64]:
    """The codes that QuantizeLinear gives real numbers."""
    return np.array([output.code_of(item) for item in real.reshape(-1)], np.int64).reshape(real.shape)


def _minimum(result: ir.Value, codes: NDArray[np.int64], site: Site, node: ir.Node, emitter: Emitter) -> ir.Value:
    """A standard Min; on 16-bit codes by way of 32, because ONNX Runtime compares no int16."""
    dtype, shape, of = site.output.dtype, site.output.value.shape, site.output.of
    narrow = dtype is ir.DataType.INT8
    kind = ir.DataType.INT8 if narrow else ir.DataType.INT32
    bound = emitter.constant(f"{node.name}_bound", codes.astype(kind.numpy()))

    def standard(op_type: str, inputs: list[ir.Value], kind: ir.DataType, to: int | None = None) -> ir.Value:
        attributes: dict[str, AttributeValue] = {} if to is None else {"to": to}
        return emitter.emit(op_type, inputs, attributes, name=of, dtype=kind, shape=shape, domain="")

    if narrow:
        least = standard("Min", [result, bound], kind)
    else:
        least = standard("Min", [standard("Cast", [result], kind, kind.value), bound], kind)
        least = standard("Cast", [least], dtype, dtype.value)
    annotate(least, Annotation(of, site.output.scale, site.output.zero_point))
    return least
