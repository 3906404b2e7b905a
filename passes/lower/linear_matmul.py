"""Gemm and MatMul with a constant weight become QGemm, MatMul of two activations becomes QMatMul."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir.patterns import integer, number
from qcompiler.passes.lower.channel_bounds import clamped_per_channel
from qcompiler.passes.lower.emitter import Emitter
from qcompiler.passes.lower.linear import added_constants, check_order, layer, weight_codes
from qcompiler.passes.lower.linear_results import Layout, emit
from qcompiler.passes.lower.site import Lowering, NoIntegerForm, Site
from qcompiler.quant.operators import WEIGHT_INPUT

__all__ = ["LOWERINGS"]

_UNKNOWN_DEPTH: Final = 4096
"""Products that a sum over 16-bit codes has room for where only a run tells how many there are."""


def lower_gemm(site: Site, emitter: Emitter) -> ir.Value:
    """Gemm in its canonical form: ``alpha = beta = 1``, ``transA = 0``."""
    if integer(site.node, "transA", 0) or any(number(site.node, name, 1.0) != 1.0 for name in ("alpha", "beta")):
        raise NoIntegerForm("it transposes its activation or scales its terms")
    return _with_weight(site, emitter, channels_first=bool(integer(site.node, "transB", 0)))


def lower_matmul(site: Site, emitter: Emitter) -> ir.Value:
    """MatMul with a constant matrix, or of two activations."""
    weight = site.weight(WEIGHT_INPUT)
    if weight is not None and weight.codes.ndim == 2 and weight_codes(site).dtype is not ir.DataType.INT16:
        return _with_weight(site, emitter, channels_first=False)
    return _two_activations(site, emitter)


LOWERINGS: Final[Mapping[str, Lowering]] = MappingProxyType({"Gemm": lower_gemm, "MatMul": lower_matmul})


def _with_weight(site: Site, emitter: Emitter, *, channels_first: bool) -> ir.Value:
    check_order(site)
    found = layer(site)
    rows = found.product.rows
    layout = Layout((rows.shape[0], rows.shape[1]), turned=True, as_stored=not channels_first)
    real = np.zeros(1)
    for constant in added_constants(site):
        _check_broadcast(constant, site, rows.shape[0])
        real = real + constant
    bias = found.bias(real, rows.shape[:1])
    return emit(found, "QGemm", layout, bias, rows.shape[:1], {}, emitter)


def _check_broadcast(constant: NDArray[np.float64], site: Site, channels: int) -> None:
    """A bias must not widen the product, and must have channels as its last axis.

    Raises:
        NoIntegerForm: It does not, or the shape of the product is not known well enough to tell.
    """
    if constant.size > 1 and constant.shape[-1] == 1 < channels:
        raise NoIntegerForm(f"a constant of shape {constant.shape} is added to it: the same number for all channels")
    shape = site.node.outputs[0].shape
    sizes = None if shape is None else list(shape)
    for axis in range(1, constant.ndim + 1):
        size = constant.shape[-axis]
        expected = channels if axis == 1 else (sizes[-axis] if sizes is not None and axis <= len(sizes) else None)
        beyond = sizes is None or axis > len(sizes)
        if (axis > 1 and beyond) or (size != 1 and size != expected):
            raise NoIntegerForm(f"a constant of shape {constant.shape} is added to it, which may widen its result")


def _two_activations(site: Site, emitter: Emitter) -> ir.Value:
    if any(node.op_type == "Add" for node in site.absorbed):
        raise NoIntegerForm("a constant is added to a product of two activations")
    first, second = site.codes(0), site.codes(1)
    wide = ir.DataType.INT16 in (first.dtype, second.dtype)
    width = site.arithmetic.wide_accumulator_bits if wide else site.arithmetic.accumulator_bits
    if not width:
        raise NoIntegerForm("the target multiplies no 16-bit codes")
    largest = first.magnitude * second.magnitude
    limit = (1 << (width - 1)) - 1
    depth = _depth(site)
    if depth is None:
        bound = min(limit, largest * _UNKNOWN_DEPTH) if wide else limit
        most = bound // max(largest, 1)
        emitter.note(f"{site.node.name} (MatMul): its integer form holds sums of up to {most} products")
    else:
        bound = largest * depth
    if bound > limit:
        raise NoIntegerForm(f"its accumulator can reach {bound}, and the target's has {width} bits")
    factor = first.scale * second.scale / site.output.scale

    def write(clamped: Site) -> ir.Value:
        return emitter.rescaled(
            "QMatMulWide" if wide else "QMatMul",
            [first.value, second.value],
            factor,
            bound=bound,
            site=clamped,
            attributes={"a_zero_point": first.zero_point, "b_zero_point": second.zero_point},
        )

    return clamped_per_channel(site, write, emitter)


def _depth(site: Site) -> int | None:
    """How many products are added; ``None`` where only a run can tell."""
    for value, axis in zip(site.node.inputs[:2], (-1, -2), strict=True):
        shape = value.shape if value is not None else None
        if shape is not None and len(shape):
            size = shape[axis if len(shape) > 1 else -1]
            if isinstance(size, int):
                return size
    return None
