"""What the sums inside each operator of ``ai.qcompiler`` can reach: one rule per family.

A rule reads the constants and code ranges around a node. It gives the range of every partial sum, and the greatest
magnitude that the rescale behind it forms: ``|accumulator * b| + 2^(c-1)``, or ``|accumulator| * 2^16 + 2^(c-1)`` where
there is no multiplier.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.analysis.accumulator_operands import Bounds, Operands
from qcompiler.analysis.ranges import linear_bounds, order_free_bounds, product_bounds, sum_bounds
from qcompiler.quant.integer.dyadic import PRODUCT_BITS
from qcompiler.quant.packing import unpack

__all__ = ["RULES"]


def _linear(node: Operands) -> Bounds | None:
    """Convolutions and products with constant weights."""
    rows, bias, data = _rows(node), node.array("bias"), node.range("x")
    if rows is None or bias is None or data is None:
        return None
    low, high = data
    if any(node.integers("pads")) or "Transpose" in node.node.op_type:
        zero = node.integer("x_zero_point")  # what pads, and what a stride puts between codes
        low, high = min(low, zero), max(high, zero)
    start = np.broadcast_to(bias.astype(np.int64).reshape(-1), (rows.shape[0],))
    least, most = order_free_bounds(rows, start, low, high)
    final = linear_bounds(rows, start, low, high)
    magnitude = np.maximum(np.abs(final[0]), np.abs(final[1]))
    return Bounds(int(least.min(initial=0)), int(most.max(initial=0)), node.is_wide("x"), node.rescaled(magnitude))


def _rows(node: Operands) -> NDArray[Any] | None:
    """The weight as one row per output channel."""
    stored = node.array("w")
    if stored is None:
        return None
    bits = node.integer("bits")
    if bits:
        shape = node.integers("weight_shape")
        return unpack(stored, bits, shape).reshape(shape[0], -1)
    if node.node.op_type.startswith("QGemm"):
        return stored.T
    return stored.reshape(stored.shape[0], -1)


def _matmul(node: Operands) -> Bounds | None:
    """The product of two activations."""
    first, second = node.centred("a"), node.centred("b")
    if first is None or second is None:
        return None
    depth = node.size("a", -1)
    rank = node.values["b"].shape if node.values["b"] is not None else None
    if depth is None and rank is not None:
        depth = node.size("b", -2 if len(rank) > 1 else -1)
    low, high = product_bounds(1 if depth is None else depth, *first, *second)
    wide = node.is_wide("a", "b")
    return Bounds(low, high, wide, node.rescaled(max(-low, high)), depth is not None)


def _requantize(node: Operands) -> Bounds | None:
    """A rescale alone: nothing is added up."""
    found = node.centred("x")
    if found is None:
        return None
    low, high = min(found[0], 0), max(found[1], 0)
    return Bounds(low, high, True, node.rescaled(max(-low, high)), bits=64)


def _gather(node: Operands) -> Bounds | None:
    """Codes of a row, each rescaled by the factor of the row: nothing is added up."""
    half = 1 << max(node.integer("bits") - 1, 0)
    return Bounds(-half, half - 1, True, node.rescaled(half), bits=64)


def _layer_normalization(node: Operands) -> Bounds | None:
    """``N * sum(q^2)`` is the greatest of its sums; 64 bits whatever the target."""
    found, size = node.range("x"), node.integer("size")
    if found is None:
        return None
    square = max(found[0] ** 2, found[1] ** 2)
    return Bounds(0, size * size * square, True, 0, bits=PRODUCT_BITS + 1)


def _rms_normalization(node: Operands) -> Bounds | None:
    """``sum((q - z)^2)``; 64 bits whatever the target."""
    found = node.centred("x")
    sizes = [node.size("x", axis) for axis in node.integers("axes")]
    if found is None:
        return None
    square = max(found[0] ** 2, found[1] ** 2)
    count = math.prod(size for size in sizes if size is not None)
    return Bounds(0, count * square, True, 0, None not in sizes, bits=PRODUCT_BITS + 1)


def _sum(node: Operands) -> Bounds | None:
    """Two terms at a common scale: each is multiplied before they are added."""
    found = []
    for name in "ab":
        codes, by = node.centred(name), _factor(node, name)
        if codes is None or by is None:
            return None
        found.append((min(codes[0], 0) * by, max(codes[1], 0) * by))
    (low, high), second = found
    subtracts = node.node.op_type.startswith("QSub")
    low, high = (low - second[1], high - second[0]) if subtracts else (low + second[0], high + second[1])
    shift = node.array("shift")
    half = 0 if shift is None or not shift.size else 1 << max(int(shift.max()) - 1, 0)
    return Bounds(low, high, True, max(-low, high) + half, bits=PRODUCT_BITS + 1)


def _factor(node: Operands, name: str) -> int | None:
    """What multiplies an operand of a sum."""
    factor, left = node.array(f"{name}_multiplier"), node.array(f"{name}_left")
    if factor is not None:
        return int(factor.max())
    return None if left is None else 1 << int(left.max())


def _product(node: Operands) -> Bounds | None:
    """The product of two codes."""
    first, second = node.centred("a"), node.centred("b")
    if first is None or second is None:
        return None
    low, high = product_bounds(1, *first, *second)
    return Bounds(low, high, node.is_wide("a", "b"), node.rescaled(max(-low, high)))


def _mean(node: Operands) -> Bounds | None:
    """Sums over a window, the spatial axes or some axes."""
    found, value = node.centred("x"), node.values.get("x")
    if found is None or value is None:
        return None
    window, axes = node.integers("kernel_shape"), node.integers("axes")
    sizes: list[int | None] = list(window)
    if not window:
        rank = len(value.shape) if value.shape is not None else 0
        sizes = [node.size("x", axis) for axis in axes or range(2, rank)]
    known = math.prod(size for size in sizes if size is not None)
    low, high = sum_bounds(known, *found)
    counted = bool(sizes) and None not in sizes
    return Bounds(low, high, node.is_wide("x"), node.rescaled(max(-low, high)) if counted else 0, counted)


def _resize(node: Operands) -> Bounds | None:
    """Weighted sums of a few taps."""
    found, weight = node.centred("x"), node.array("weight")
    if found is None or weight is None or weight.ndim < 2:
        return None
    rows = weight.reshape(weight.shape[0], -1)
    low, high = order_free_bounds(rows, None, *found)
    bounds = int(low.min(initial=0)), int(high.max(initial=0))
    value = node.values["x"]
    narrow = value is not None and value.dtype is ir.DataType.INT8
    return Bounds(*bounds, not narrow, node.rescaled(max(-bounds[0], bounds[1])))


def _softmax(node: Operands) -> Bounds | None:
    """The sum of a row of powers of two, each at most ``2^30``, and the rescale of the exponents."""
    found, factor, shift = node.range("x"), node.array("x_multiplier"), node.array("x_shift")
    if found is None:
        return None
    size = node.size("x", node.integer("axis"))
    product = 0
    if factor is not None and shift is not None and factor.size and shift.size:
        product = ((found[1] - found[0]) << 16) * int(factor.max()) + (1 << (int(shift.max()) - 1))
    return Bounds(0, (1 if size is None else size) << 30, True, product, size is not None, bits=64)


RULES: Final[dict[str, Callable[[Operands], Bounds | None]]] = {
    "QAdd": _sum,
    "QAveragePool": _mean,
    "QAveragePoolChannelsLast": _mean,
    "QConv": _linear,
    "QConvChannelsLast": _linear,
    "QConvTranspose": _linear,
    "QGather": _gather,
    "QGemm": _linear,
    "QGlobalAveragePool": _mean,
    "QLayerNormalization": _layer_normalization,
    "QMatMul": _matmul,
    "QMul": _product,
    "QRMSNormalization": _rms_normalization,
    "QReduceMean": _mean,
    "QResize": _resize,
    "QSoftmax": _softmax,
    "QSub": _sum,
    "Requantize": _requantize,
}
"""Rules by family. Those that add nothing up (tables, maxima, concatenations) have none."""
