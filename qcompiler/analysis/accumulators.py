"""Every accumulator of an integer graph: what it can reach, what it takes, what the target has.

The bounds are proofs about all inputs that the graph's own clamps let through (``code_ranges``), from the constants in
the graph, in every order of adding (``ranges``). Nothing is measured. An operator whose sum grows with a size that
only a run tells is given with the greatest size that is safe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from qcompiler.analysis.accumulator_bounds import RULES
from qcompiler.analysis.accumulator_operands import Operands
from qcompiler.analysis.code_ranges import CodeRanges
from qcompiler.analysis.ranges import width
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.quant.integer.dyadic import PRODUCT_BITS
from qcompiler.target.integer import IntegerArithmetic

__all__ = ["Accumulator", "accumulator_of", "accumulators", "family"]

_ENDINGS: Final = ("Shift", "Packed", "Wide")


@dataclass(frozen=True, slots=True)
class Accumulator:
    """What one node adds up, and what its rescale multiplies.

    Attributes:
        node: Name of the node.
        op_type: Its operator.
        low: Least partial sum.
        high: Greatest partial sum.
        bits: Two's complement bits that the sum takes.
        available: Bits of the target's accumulator.
        product_bits: Bits of the greatest magnitude in the rescale, its rounding term included; 62 are permitted.
        terms: Greatest number of terms that is safe, where only a run tells how many there are; else ``None``.
    """

    node: str
    op_type: str
    low: int
    high: int
    bits: int
    available: int
    product_bits: int
    terms: int | None = None

    @property
    def head_room(self) -> int:
        """Bits that are never used; negative where the accumulator can overflow."""
        return self.available - self.bits

    @property
    def product_room(self) -> int:
        """Bits of the rescale's product that are never used; negative where it can overflow."""
        return PRODUCT_BITS - self.product_bits

    @property
    def safe(self) -> bool:
        """Whether no input can make it overflow."""
        return self.head_room >= 0 and self.product_room >= 0


def accumulators(model: ir.Model, arithmetic: IntegerArithmetic | None = None) -> list[Accumulator]:
    """The accumulators of all ``ai.qcompiler`` nodes of the main graph that have one, in graph order.

    Args:
        model: A graph of integer operators; others give an empty list.
        arithmetic: The target's; by default 32 bits for sums over 8-bit codes, 64 for those over 16-bit codes.
    """
    ranges = CodeRanges()
    limits = IntegerArithmetic() if arithmetic is None else arithmetic
    found = (accumulator_of(node, ranges, limits) for node in model.graph)
    return [item for item in found if item is not None]


def accumulator_of(node: ir.Node, ranges: CodeRanges, arithmetic: IntegerArithmetic) -> Accumulator | None:
    """The accumulator of one node; ``None`` where it has none that the target's width bounds, or is not ours."""
    rule = RULES.get(family(node.op_type)) if node.domain == DOMAIN else None
    bounds = rule(Operands(node, ranges)) if rule is not None else None
    if bounds is None:
        return None
    own = arithmetic.wide_accumulator_bits if bounds.wide else arithmetic.accumulator_bits
    available = own if bounds.bits is None else bounds.bits
    greatest = max(bounds.high, -bounds.low, 1)
    return Accumulator(
        str(node.name), node.op_type, bounds.low, bounds.high, width(bounds.low, bounds.high), available,
        bounds.product.bit_length(), None if bounds.counted else ((1 << (available - 1)) - 1) // greatest,
    )  # fmt: skip


def family(op_type: str) -> str:
    """An operator's name without the endings of its variants: ``QConvPackedShift`` is a ``QConv``."""
    for ending in _ENDINGS:
        op_type = op_type.removesuffix(ending)
    return op_type
