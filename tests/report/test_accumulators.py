"""The accumulators of a report: the tightest one is found and said."""

from __future__ import annotations

from qcompiler.analysis.accumulators import Accumulator
from qcompiler.report.accumulators import accumulators_part, summary


def test_the_tightest_accumulator_is_named() -> None:
    found = [
        Accumulator("first", "QConv", -100, 100, 8, 32, 40),
        Accumulator("second", "QGemmWide", -(2**40), 2**40, 42, 64, 61),
        Accumulator("third", "QMatMul", -16384, 16384, 16, 32, 50, 131071),
    ]
    part = accumulators_part(found)
    assert (part.least, part.least_head_room, part.greatest_product_bits) == ("third", 16, 61)
    assert [item.head_room for item in part.nodes] == [24, 22, 16]
    assert summary(part) == (
        "none of 3 can overflow: at least 16 of 32 bits stay free (third); 1 sum of unknown length"
    )


def test_a_graph_without_accumulators_has_nothing_to_say() -> None:
    part = accumulators_part([])
    assert (part.least, part.least_head_room) == (None, None)
    assert summary(part) == ""
