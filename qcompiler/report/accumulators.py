"""The part of a report that proves accumulators: their ranges, widths and head-room, and the line for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qcompiler.report.words import count_text

if TYPE_CHECKING:
    from qcompiler.analysis.accumulators import Accumulator

__all__ = ["AccumulatorPart", "AccumulatorsPart", "accumulators_part", "summary"]


@dataclass(frozen=True)
class AccumulatorPart:
    """What one node adds up, in the worst case of all inputs.

    Attributes:
        node: The node.
        op_type: Its operator.
        low: Least partial sum, in any order of adding.
        high: Greatest partial sum.
        bits: Bits that the sum takes, sign included.
        available: Bits of the accumulator.
        head_room: Bits that are never used.
        product_bits: Bits of the greatest product in its rescale; 62 are permitted. 0: it has no rescale of its own.
        terms: How many terms are safe, where only a run tells how many there are; ``None`` where they are counted.
    """

    node: str
    op_type: str
    low: int
    high: int
    bits: int
    available: int
    head_room: int
    product_bits: int
    terms: int | None = None


@dataclass(frozen=True)
class AccumulatorsPart:
    """The accumulators of an integer graph.

    Attributes:
        least: Name of the node whose accumulator has the least head-room; ``None`` without accumulators.
        least_head_room: Its head-room in bits; ``None`` without accumulators.
        greatest_product_bits: Bits of the greatest product in any rescale; 62 are permitted.
        nodes: All of them, in graph order.
    """

    least: str | None
    least_head_room: int | None
    greatest_product_bits: int
    nodes: tuple[AccumulatorPart, ...] = ()


def accumulators_part(found: Sequence[Accumulator]) -> AccumulatorsPart:
    """Describe the accumulators of a graph."""
    nodes = tuple(
        AccumulatorPart(
            item.node, item.op_type, item.low, item.high, item.bits, item.available, item.head_room,
            item.product_bits, item.terms,
        )
        for item in found
    )  # fmt: skip
    tightest = min(nodes, key=lambda item: item.head_room, default=None)
    return AccumulatorsPart(
        None if tightest is None else tightest.node,
        None if tightest is None else tightest.head_room,
        max((item.product_bits for item in nodes), default=0),
        nodes,
    )


def summary(part: AccumulatorsPart) -> str:
    """The tightest accumulator in one line; empty without accumulators."""
    tightest = next((item for item in part.nodes if item.node == part.least), None)
    if tightest is None:
        return ""
    open_sums = sum(item.terms is not None for item in part.nodes)
    depends = f"; {count_text(open_sums, 'sum')} of unknown length" if open_sums else ""
    return (
        f"none of {len(part.nodes)} can overflow: at least {tightest.head_room} of {tightest.available} bits stay free "
        f"({tightest.node}){depends}"
    )
