"""Plans that keep budgets by what they really take, where the solver only has estimates."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.analysis.allocation.problem import Group, InfeasibleError, Option, Problem
from qcompiler.analysis.allocation.solve import solve
from qcompiler.analysis.group_costs import GroupCosts
from qcompiler.errors import PassError
from qcompiler.passes.allocate._settle import Exact, settled

NO_COSTS = GroupCosts({}, {})


def problem_of(losses: list[tuple[float, float]], budget: float) -> Problem:
    """Groups that take 8 or 4, and lose the first or the second figure."""
    groups = tuple(
        Group(f"g{place}", (Option("w8", low, {"size": 8.0}), Option("w4", high, {"size": 4.0})))
        for place, (low, high) in enumerate(losses)
    )
    return Problem(groups, {"size": budget})


def with_changes(problem: Problem, price: float) -> Exact:
    """True costs: where neighbours differ, something stands between them."""

    def exact(choice: Mapping[str, str]) -> Mapping[str, float]:
        names = [choice[group.name] for group in problem.groups]
        changes = sum(one != other for one, other in itertools.pairwise(names))
        return {"size": problem.costs(choice)["size"] + price * changes}

    return exact


def test_true_estimates_leave_the_plan() -> None:
    problem = problem_of([(0.0, 3.0), (0.0, 2.0), (0.0, 1.0)], 20)
    assert settled(problem, NO_COSTS, with_changes(problem, 0)).choice == solve(problem).choice


LOSSES = [(0.0, 10.0), (0.0, 9.9), (0.0, 1.0), (0.0, 9.8), (0.0, 1.1), (0.0, 1.2), (0.0, 1.3), (0.0, 1.4)]


def test_what_came_off_too_much_is_given_back() -> None:
    """The first plan is over by what stands between; the one for budgets less that fits, and perhaps a better one."""
    problem = problem_of(LOSSES, 48)
    exact = with_changes(problem, 3.0)
    first = solve(problem)
    over = exact(first.choice)["size"] - 48
    assert over > 0
    found = settled(problem, NO_COSTS, exact)
    assert exact(found.choice)["size"] <= 48
    assert first.loss <= found.loss <= solve(problem_of(LOSSES, 48 - over)).loss
    assert (found.proof, found.bound) == ("none", 0)


def test_what_was_estimated_too_much_is_used() -> None:
    """Estimates are 10 too high: a plan fits that the solver may not take."""
    problem = problem_of(LOSSES, 48)

    def exact(choice: Mapping[str, str]) -> Mapping[str, float]:
        return {"size": problem.costs(choice)["size"] - 10}

    found = settled(problem, NO_COSTS, exact)
    assert exact(found.choice)["size"] <= 48
    assert found.loss == solve(problem_of(LOSSES, 58)).loss < solve(problem).loss


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(5, 40)), min_size=2, max_size=6),
    st.integers(0, 40), st.sampled_from([-0.5, 0.0, 0.5, 2.0]),
)  # fmt: skip
def test_budgets_hold_and_the_bound_is_one(losses: list[tuple[int, int]], room: int, price: float) -> None:
    problem = problem_of([(float(low), float(high)) for low, high in losses], 4.0 * len(losses) + room)
    exact = with_changes(problem, price)
    plans = [
        dict(zip((group.name for group in problem.groups), names, strict=True))
        for names in itertools.product(("w8", "w4"), repeat=len(losses))
    ]
    fitting = [problem.loss(plan) for plan in plans if exact(plan)["size"] <= problem.budgets["size"]]
    try:
        found = settled(problem, NO_COSTS, exact)
    except (InfeasibleError, PassError):
        assert price > 0 or not fitting  # estimates were too low: the plan that fits was not found
        return
    assert exact(found.choice)["size"] <= problem.budgets["size"]
    assert found.bound <= min(fitting) <= found.loss
    if price == 0:
        assert found.loss == min(fitting)
    assert found.gap == pytest.approx(found.loss - found.bound)
