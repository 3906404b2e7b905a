"""Sums of costs: a solver's bound, and the total without what a choice does not need."""

from __future__ import annotations

from qcompiler.analysis.group_costs import SIZE, GroupCosts, SharedCost

COSTS = GroupCosts(
    {SIZE: 150.0},
    {"a": {"w8a8": {SIZE: 80.0}, "w4a8": {SIZE: 40.0}}, "b": {"w8a8": {SIZE: 8.0}, "w4a8": {SIZE: 4.0}}},
    (SharedCost("function Packed", SIZE, 50.0, frozenset({("a", "w4a8"), ("b", "w4a8")})),),
)


def test_shared_costs_are_in_the_bound_and_paid_once() -> None:
    assert COSTS.bound({"a": "w8a8", "b": "w8a8"}, SIZE) == 238
    assert COSTS.total({"a": "w8a8", "b": "w8a8"}, SIZE) == 188
    assert COSTS.total({"a": "w4a8", "b": "w8a8"}, SIZE) == COSTS.bound({"a": "w4a8", "b": "w8a8"}, SIZE) == 198
    assert COSTS.total({"a": "w4a8", "b": "w4a8"}, SIZE) == 194
