"""Fronts, and the bisection along them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from qcompiler.analysis.allocation.bisect import (
    BoundMissedError,
    ladder_steps,
    most_evaluations,
    smallest_step,
    smallest_within,
)
from qcompiler.analysis.allocation.greedy import greedy
from qcompiler.analysis.allocation.pareto import front, front_at
from qcompiler.analysis.allocation.problem import InfeasibleError, Pair, Problem
from qcompiler.analysis.allocation.solve import solve
from qcompiler.errors import UsageError


@pytest.fixture
def free(random_problem: Callable) -> Callable[[int, int], Problem]:
    """Makes a problem whose only resource has no budget."""

    def make(seed: int, groups: int) -> Problem:
        return replace(random_problem(np.random.default_rng(seed), groups, 4, 1), budgets={})

    return make


def range_of(problem: Problem) -> tuple[float, float]:
    """Least and most that a plan takes."""
    costs = [[option.costs["resource0"] for option in group.options] for group in problem.groups]
    return math.fsum(map(min, costs)), math.fsum(map(max, costs))


@pytest.mark.parametrize("seed", range(3))
def test_no_plan_of_a_front_is_dominated_by_any_plan(seed: int, free: Callable, least_loss: Callable) -> None:
    problem = free(seed, 6)
    plans = front(problem, "resource0", 9)
    costs = [plan.costs["resource0"] for plan in plans]
    losses = [plan.loss for plan in plans]
    assert 3 <= len(plans) <= 9
    assert costs == sorted(set(costs))
    assert losses == sorted(set(losses), reverse=True)
    assert costs[0] == range_of(problem)[0]
    assert losses[-1] == least_loss(problem)
    for cost, loss in zip(costs, losses, strict=True):
        assert least_loss(replace(problem, budgets={"resource0": cost})) == pytest.approx(loss, rel=1e-12)
        cheaper = least_loss(replace(problem, budgets={"resource0": float(np.nextafter(cost, 0))}))
        assert cheaper > loss * (1 - 1e-12)


def test_a_front_keeps_the_budgets_of_the_problem(problem_of: Callable) -> None:
    costs = [[[8, 1], [4, 2], [2, 3]]] * 4
    problem = problem_of([[0, 1, 4]] * 4, costs, [28, 10])
    plans = front(problem, "resource0", 20)
    assert all(problem.keeps(plan.choice) for plan in plans)
    assert max(plan.costs["resource0"] for plan in plans) == 28
    assert min(plan.costs["resource0"] for plan in plans) == 12
    given = front_at(problem, "resource0", [5, 16, 16, 99])
    assert [plan.costs["resource0"] for plan in given] == [16, 28]
    with pytest.raises(InfeasibleError):
        front(replace(problem, budgets={"resource1": 3.0}), "resource0", 5)
    with pytest.raises(UsageError, match="unknown resource 'bytes'"):
        front(problem, "bytes", 5)


def test_a_front_with_pairs(free: Callable, least_loss: Callable) -> None:
    problem = free(4, 4)
    typical = problem.groups[0].options[0].loss
    joint = {("option0", "option0"): 2 * typical, ("option0", "option1"): -typical / 2}
    problem = replace(problem, pairs=(Pair("group0", "group2", joint), Pair("group1", "group2", joint)))
    for plan in front(problem, "resource0", 5):
        best = least_loss(replace(problem, budgets={"resource0": plan.costs["resource0"]}))
        assert plan.loss == pytest.approx(best, rel=1e-10)


def test_greedy_is_within_budget_and_seldom_best(random_problem: Callable) -> None:
    worse = 0
    for seed in range(12):
        problem = random_problem(np.random.default_rng(seed), 12, 4, 1)
        plan, best = greedy(problem), solve(problem)
        assert plan is not None
        assert problem.keeps(plan.choice)
        assert plan.loss >= best.loss * (1 - 1e-12)
        worse += plan.loss > best.loss * (1 + 1e-9)
    assert worse >= 3


@pytest.mark.parametrize(("groups", "factor"), [(1, 1.0), (2, 0.3), (3, 3.0), (8, 1.0), (9, 0.2), (20, 0.5)])
def test_bisection_finds_the_smallest_step_within_its_measurements(groups: int, factor: float, free: Callable) -> None:
    problem = free(groups, groups)
    ladder = front(problem, "resource0", ladder_steps(groups))
    for wanted in range(len(ladder)):
        seen: list[Mapping[str, str]] = []

        def measure(choice: Mapping[str, str], seen: list[Mapping[str, str]] = seen) -> float:
            seen.append(choice)
            return factor * problem.loss(choice)

        found = smallest_step(ladder, factor * ladder[wanted].loss, measure)
        assert found.solution.choice == ladder[wanted].choice
        assert found.value == factor * ladder[wanted].loss
        assert found.evaluations == len(seen) <= math.ceil(math.log2(groups)) + 1
        assert [trial.choice for trial, _ in found.trials] == seen


def test_a_right_prediction_is_measured_first(free: Callable) -> None:
    problem = free(0, 30)
    found = smallest_within(problem, "resource0", 1.0, lambda plan: 2 * problem.loss(plan), predicted=0.5)
    assert found.trials[0][0].choice == found.solution.choice


def test_what_is_returned_was_measured_whatever_the_measure(free: Callable) -> None:
    problem = free(1, 12)
    ladder = front(problem, "resource0", ladder_steps(12))
    rng = np.random.default_rng(0)
    for _ in range(50):
        values: dict[str, float] = {}

        def measure(choice: Mapping[str, str], values: dict[str, float] = values) -> float:
            return values.setdefault(str(choice), float(rng.choice([rng.random(), np.nan])))

        try:
            found = smallest_step(ladder, 0.5, measure)
        except BoundMissedError:
            assert not any(value <= 0.5 for value in values.values())
        else:
            assert values[str(found.solution.choice)] == found.value <= 0.5
        assert len(values) <= most_evaluations(12)


def test_a_bound_that_even_the_best_plan_misses(free: Callable) -> None:
    problem = free(2, 10)
    least = solve(problem)
    with pytest.raises(BoundMissedError, match="no plan keeps a measured loss") as missed:
        smallest_within(problem, "resource0", 0.5 * least.loss, problem.loss)
    assert missed.value.exit_code == 2
    assert missed.value.least == least.loss
    assert missed.value.trials[-1][0].choice == least.choice
    assert len(missed.value.trials) <= most_evaluations(10)
