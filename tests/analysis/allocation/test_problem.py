"""What is refused, and what plans cost."""

from __future__ import annotations

import math

import pytest

from qcompiler.analysis.allocation.problem import Group, InfeasibleError, Option, Pair, Problem
from qcompiler.errors import UsageError

FINE = Option("w8", 0.1, {"size": 8.0})


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1e101])
def test_numbers_that_are_not_finite_are_refused_by_name(number: float) -> None:
    with pytest.raises(UsageError, match=r"group 'conv3': loss of option 'w4' is"):
        Problem((Group("conv3", (FINE, Option("w4", number, {"size": 4.0}))),))
    with pytest.raises(UsageError, match=r"group 'conv3': size of option 'w4' is"):
        Problem((Group("conv3", (FINE, Option("w4", 0.0, {"size": number}))),))
    with pytest.raises(UsageError, match="budget of 'size'"):
        Problem((Group("conv3", (FINE,)),), {"size": number})
    with pytest.raises(UsageError, match="fixed cost of 'size'"):
        Problem((Group("conv3", (FINE,)),), {}, {"size": number})
    with pytest.raises(UsageError, match="loss of 'w8' with 'w8'"):
        Problem((Group("a", (FINE,)), Group("b", (FINE,))), pairs=(Pair("a", "b", {("w8", "w8"): number}),))


@pytest.mark.parametrize("least", [1.3773846153e-05, 1 / 3, 40421.0, 12129280.0, 2e12 / 7])
def test_the_smallest_amount_that_a_refusal_names_is_not_below_it(least: float) -> None:
    hint = str(InfeasibleError({"latency": 0.0}, {"latency": least}).hint)
    written = float(hint.rpartition(" ")[2])
    assert least <= written <= least * (1 + 2e-9)


def test_what_cannot_be_decided_is_refused() -> None:
    with pytest.raises(UsageError, match="no groups"):
        Problem(())
    with pytest.raises(UsageError, match="group 'b': a group without options"):
        Problem((Group("a", (FINE,)), Group("b", ())))
    with pytest.raises(UsageError, match="group 'a' is there twice"):
        Problem((Group("a", (FINE,)), Group("a", (FINE,))))
    with pytest.raises(UsageError, match="option 'w8' is there twice"):
        Problem((Group("a", (FINE, FINE)),))
    with pytest.raises(UsageError, match="unknown resource 'bops'"):
        Problem((Group("a", (FINE,)),), {"bops": 1.0})
    with pytest.raises(UsageError, match="differ in resources: bops"):
        Problem((Group("a", (FINE, Option("w4", 0.0, {"size": 4.0, "bops": 1.0}))),))


@pytest.mark.parametrize("pair", [Pair("a", "a", {}), Pair("a", "c", {}), Pair("a", "b", {("w8", "w2"): 1.0})])
def test_pairs_join_known_options_of_two_groups(pair: Pair) -> None:
    with pytest.raises(UsageError):
        Problem((Group("a", (FINE,)), Group("b", (FINE,))), pairs=(pair,))


def test_costs_too_near_to_zero_to_price_by_are_refused() -> None:
    with pytest.raises(UsageError, match="group 'a': size of option 'w8' is 1e-120: too near to zero"):
        Problem((Group("a", (Option("w8", 1e-120, {"size": 1e-120}),)),))


def test_sums_do_not_depend_on_order() -> None:
    numbers = (1e16, 1.0, -1e16, 0.1)
    groups = [Group(str(i), (Option("o", n, {"size": n}),)) for i, n in enumerate(numbers)]
    plan = {group.name: "o" for group in groups}
    for order in (groups, groups[::-1], [groups[2], groups[1], groups[3], groups[0]]):
        problem = Problem(tuple(order), {"size": 3.1}, {"size": 2.0})
        assert problem.loss(plan) == 1.1
        assert problem.costs(plan) == {"size": 3.1}
        assert problem.keeps(plan)
