"""What a rule about accumulators reads of a node, and what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.analysis.code_ranges import CodeRanges, Range
from qcompiler.ir import constants
from qcompiler.quant.functions.catalogue import operators
from qcompiler.quant.integer.dyadic import LEFT

__all__ = ["Bounds", "Operands"]


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
        shift = self.array("shift")
        sums = [int(item) for item in np.asarray(magnitude).reshape(-1)]
        if shift is None or not shift.size or not sums or int(shift.min()) < 1:
            return 0
        factors, shifts = self._factors(), [int(item) for item in shift.reshape(-1)]
        size = max(len(factors), len(shifts), len(sums))
        if any(len(items) not in (1, size) for items in (factors, shifts, sums)):
            return max(sums) * max(factors) + (1 << (max(shifts) - 1))  # not one per channel: all with all
        sums, factors, shifts = (items * (size // len(items)) for items in (sums, factors, shifts))
        return max(a * b + (1 << (c - 1)) for a, b, c in zip(sums, factors, shifts, strict=True))

    def _factors(self) -> list[int]:
        """What the rescale multiplies by: its multipliers, or the shifts to the left that stand for them."""
        multiplier, left, negative = self.array("multiplier"), self.array("left"), self.array("negative")
        if multiplier is not None:
            return [int(item) for item in multiplier.reshape(-1)]
        if left is None or negative is None:
            return [1 << LEFT]
        digits = np.where(negative, -1, 1) * (np.int64(1) << left.astype(np.int64))
        return [int(item) << LEFT for item in digits.sum(axis=-1).reshape(-1)]
