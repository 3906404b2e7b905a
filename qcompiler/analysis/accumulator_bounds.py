"""What the sums inside each operator of ``ai.qcompiler`` can reach: one rule per family.

A rule reads the constants and code ranges around a node. It gives the range of every partial sum, and the greatest
magnitude that the rescale behind it forms: ``|accumulator * b| + 2^(c-1)``, or ``|accumulator| * 2^16 + 2^(c-1)`` where
there is no multiplier.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.analysis.code_ranges import CodeRanges, Range
from qcompiler.analysis.ranges import linear_bounds, order_free_bounds, product_bounds
from qcompiler.ir import constants
from qcompiler.quant.functions.catalogue import operators
from qcompiler.quant.integer.dyadic import LEFT, PRODUCT_BITS
from qcompiler.quant.packing import unpack

__all__ = ["RULES", "Bounds", "Operands"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an operator adds up.

    Attributes:
        low: Least partial sum; per unit of the unknown size where the number of terms is not known.
        high: Greatest partial sum, likewise.
        wide: Whether the target's wide accumulator takes it.
        product: Greatest magnitude in the rescale.
        counted: Whether the number of terms is known.
        bits: Width that the operator itself fixes, whatever the target has; ``None``: the target's.
    """

    low: int
    high: int
    wide: bool
    product: int
    counted: bool = True
    bits: int | None = None


class Operands:
    """The inputs and attributes of a node, by the names that its operator gives them.

    Args:
        node: A node of ``ai.qcompiler``.
        ranges: Ranges of the codes in its graph.
    """

    def __init__(self, node: ir.Node, ranges: CodeRanges) -> None:
        self.node = node
        self._ranges = ranges

    @cached_property
    def values(self) -> Mapping[str, ir.Value | None]:
        """Inputs by name."""
        operator = operators().get(self.node.op_type)
        names = operator.inputs if operator is not None else ()
        return dict(zip(names, self.node.inputs, strict=False))

    def array(self, name: str) -> NDArray[Any] | None:
        """The content of a constant input."""
        return constants.array(self.values.get(name))

    def range(self, name: str) -> Range | None:
        """The codes that an input can hold."""
        return self._ranges.of(self.values.get(name))

    def centred(self, name: str) -> Range | None:
        """The same less its zero point."""
        found, zero = self.range(name), self.integer(f"{name}_zero_point")
        return None if found is None else (found[0] - zero, found[1] - zero)

    def is_wide(self, *names: str) -> bool:
        """Whether one of the inputs has 16 bits."""
        found = [self.values.get(name) for name in names]
        return any(value is not None and value.dtype is ir.DataType.INT16 for value in found)

    def integer(self, name: str) -> int:
        """An attribute; 0 where it is absent."""
        attribute = self.node.attributes.get(name)
        return 0 if attribute is None else int(attribute.as_int())

    def integers(self, name: str) -> tuple[int, ...]:
        """An attribute that is a list; empty where it is absent."""
        attribute = self.node.attributes.get(name)
        return () if attribute is None else tuple(int(item) for item in attribute.as_ints())

    def size(self, name: str, axis: int) -> int | None:
        """The length of an input along an axis; ``None`` where only a run can tell."""
        value = self.values.get(name)
        if value is None or value.shape is None or not -len(value.shape) <= axis < len(value.shape):
            return None
        found = value.shape[axis]
        return found if isinstance(found, int) else None

    def rescaled(self, magnitude: NDArray[Any] | int) -> int:
        """Greatest magnitude in the rescale of an accumulator, given per channel or one for all; 0: no rescale."""
        shift, multiplier = self.array("shift"), self.array("multiplier")
        sums = [int(item) for item in np.asarray(magnitude).reshape(-1)]
        if shift is None or not shift.size or not sums or int(shift.min()) < 1:
            return 0
        factors = [1 << LEFT] if multiplier is None else [int(item) for item in multiplier.reshape(-1)]
        shifts = [int(item) for item in shift.reshape(-1)]
        size = max(len(factors), len(shifts), len(sums))
        if any(len(items) not in (1, size) for items in (factors, shifts, sums)):
            return max(sums) * max(factors) + (1 << (max(shifts) - 1))  # not one per channel: all with all
        sums, factors, shifts = (items * (size // len(items)) for items in (sums, factors, shifts))
        return max(a * b + (1 << (c - 1)) for a, b, c in zip(sums, factors, shifts, strict=True))


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


RULES: Final[dict[str, Callable[[Operands], Bounds | None]]] = {
    "QConv": _linear,
    "QConvTranspose": _linear,
    "QGemm": _linear,
    "QLayerNormalization": _layer_normalization,
    "QMatMul": _matmul,
    "QRMSNormalization": _rms_normalization,
    "Requantize": _requantize,
}
"""Rules by family."""
