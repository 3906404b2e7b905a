"""Costs paid once: the best plan among all, with few and with many of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.analysis.allocation.least import least_peak
from qcompiler.analysis.allocation.pareto import front
from qcompiler.analysis.allocation.problem import Group, Option, OutOfTimeError, Pair, Problem
from qcompiler.analysis.allocation.shared import MOST_PROBLEMS, best, plain_problems, true_costs
from qcompiler.analysis.group_costs import SharedCost

NAMES = ("w8", "w4", "w2")


def plans(problem: Problem) -> Iterator[dict[str, str]]:
    for names in itertools.product(*([option.name for option in group.options] for group in problem.groups)):
        yield {group.name: name for group, name in zip(problem.groups, names, strict=True)}


def least_of_all(problem: Problem, shared: Sequence[SharedCost]) -> float:
    fitting = (
        problem.loss(plan)
        for plan in plans(problem)
        if all(true_costs(problem, shared, plan)[name] <= budget for name, budget in problem.budgets.items())
    )
    return min(fitting, default=math.inf)


@st.composite
def problems(draw: st.DrawFn, most: int = 3) -> tuple[Problem, tuple[SharedCost, ...]]:
    """Groups of two or three options in two resources, and shared costs of either."""
    number = st.integers(0, 20).map(float)
    groups = tuple(
        Group(
            f"g{place}",
            tuple(Option(name, draw(number), {"size": draw(number), "bops": draw(number)}) for name in NAMES[:count]),
        )
        for place, count in enumerate(draw(st.lists(st.integers(2, 3), min_size=2, max_size=4)))
    )
    every = [(group.name, option.name) for group in groups for option in group.options]
    needing = st.frozensets(st.sampled_from([*every, ("elsewhere", "w8")]), min_size=1, max_size=4)
    shared = tuple(
        SharedCost(f"function {index}", draw(st.sampled_from(["size", "bops"])), draw(number), draw(needing))
        for index in range(draw(st.integers(0, most)))
    )
    names = ("size", "bops")
    fixed = {name: 5.0 + sum(item.amount for item in shared if item.resource == name) for name in names}
    budgets = {name: draw(st.integers(0, 90).map(float)) for name in draw(st.sets(st.sampled_from(names), min_size=1))}
    pairs = (Pair("g0", "g1", {("w8", "w4"): -3.0, ("w4", "w4"): 2.0}),) if draw(st.booleans()) else ()
    return Problem(groups, budgets, fixed, pairs), shared


@settings(deadline=None, max_examples=80)
@given(problems())
def test_the_best_of_all_plans_is_found(case: tuple[Problem, tuple[SharedCost, ...]]) -> None:
    problem, shared = case
    found, least = best(problem, shared), least_of_all(problem, shared)
    if found is None:
        assert least == math.inf
        return
    assert found.loss == problem.loss(found.choice) == least
    assert found.costs == true_costs(problem, shared, found.choice)
    assert all(found.costs[name] <= budget for name, budget in problem.budgets.items())
    assert found.bound <= least
    assert problem.pairs or found.proof in {"enumeration", "bound"}


@settings(deadline=None, max_examples=40)
@given(problems(most=9))
def test_many_shared_costs_are_one_program(case: tuple[Problem, tuple[SharedCost, ...]]) -> None:
    problem, shared = case
    assert len(plain_problems(problem, shared)) <= MOST_PROBLEMS
    found, least = best(problem, shared), least_of_all(problem, shared)
    assert (math.inf if found is None else found.loss) == least


def test_one_program_decides_what_is_paid() -> None:
    """Six functions, each of one group's w8: 2^6 plans without some of them."""
    groups = tuple(
        Group(f"g{i}", (Option("w8", 0.0, {"size": 8.0}), Option("w4", 1.0 + i, {"size": 4.0}))) for i in range(6)
    )
    shared = tuple(SharedCost(f"f{i}", "size", 10.0, frozenset({(f"g{i}", "w8")})) for i in range(6))
    problem = Problem(groups, {"size": 24.0 + 2 * 14.0}, {"size": 60.0})
    (program,) = plain_problems(problem, shared)
    assert len(program.groups) == 12
    found = best(problem, shared)
    assert found is not None
    assert set(found.choice) == {group.name for group in groups}
    assert [name for name, option in found.choice.items() if option == "w8"] == ["g4", "g5"]
    assert (found.loss, found.costs) == (10.0, {"size": 52.0})


@settings(deadline=None, max_examples=25)
@given(problems(), st.booleans())
def test_the_least_peak(case: tuple[Problem, tuple[SharedCost, ...]], both: bool) -> None:
    problem, shared = case
    names = ("size", "bops") if both else ("size",)
    costs = [true_costs(problem, shared, plan) for plan in plans(problem)]
    others = {name: budget for name, budget in problem.budgets.items() if name not in names}
    kept = [each for each in costs if all(each[name] <= budget for name, budget in others.items())]
    found = least_peak(problem, shared, names)
    if found is None:
        assert not kept
        return
    assert found.costs == true_costs(problem, shared, found.choice)
    assert max(found.costs[name] for name in names) == min(max(each[name] for name in names) for each in kept)


@settings(deadline=None, max_examples=25)
@given(problems())
def test_no_plan_dominates_one_of_a_front(case: tuple[Problem, tuple[SharedCost, ...]]) -> None:
    problem, shared = case
    problem = replace(problem, budgets={})
    every = [(true_costs(problem, shared, plan)["size"], problem.loss(plan)) for plan in plans(problem)]
    points = [(plan.costs["size"], plan.loss) for plan in front(problem, "size", 4, shared=shared)]
    assert points[-1][1] == min(loss for _, loss in every)
    for size, loss in points:
        assert min(other for cost, other in every if cost <= size) == loss
    if len(points) > 1:
        assert points[0][0] == min(cost for cost, _ in every)


def test_what_is_not_proved_in_time_has_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two plain problems the solver does not finish one."""
    from qcompiler.analysis.allocation import shared as module

    groups = (Group("g", (Option("w8", 1.0, {"size": 8.0}), Option("w4", 2.0, {"size": 4.0}))),)
    shared = (SharedCost("f", "size", 4.0, frozenset({("g", "w8")})),)
    problem = Problem(groups, {"size": 8.0}, {"size": 4.0})
    whole = module.attempt

    def late(case: Problem, **others: float) -> object:
        if len(case.groups[0].options) == 2:
            raise OutOfTimeError
        return whole(case, **others)

    monkeypatch.setattr(module, "attempt", late)
    found = best(problem, shared)
    assert found is not None
    assert (found.choice, found.bound, found.proof) == ({"g": "w4"}, 1.0, "none")
    with pytest.raises(OutOfTimeError):
        best(Problem(groups, {"size": 1.0}, {"size": 4.0}), shared)
