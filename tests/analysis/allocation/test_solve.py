"""The solver against all plans, at every scale, and where there is nothing or little to choose."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qcompiler.analysis.allocation.problem import Group, InfeasibleError, Option, Problem
from qcompiler.analysis.allocation.solve import least_cost, solve
from qcompiler.errors import UsageError


@pytest.mark.parametrize("resources", [1, 2])
@pytest.mark.parametrize("seed", range(10))
def test_no_plan_is_better_at_any_scale(
    seed: int, resources: int, random_problem: Callable, least_loss: Callable
) -> None:
    rng = np.random.default_rng((seed, resources))
    for _ in range(10):
        scales = 10.0 ** rng.integers(-12, 7, 2)
        problem = random_problem(rng, int(rng.integers(1, 10)), int(rng.integers(2, 5)), resources, *scales)
        best = least_loss(problem)
        try:
            solution = solve(problem)
        except InfeasibleError:
            assert best == math.inf
            continue
        assert solution.loss == pytest.approx(best, rel=1e-12, abs=0)
        assert problem.keeps(solution.choice)
        assert solution.costs == problem.costs(solution.choice)
        assert solution.bound <= solution.loss
        assert solution.proof == "enumeration"


@pytest.mark.parametrize("seed", range(10))
def test_unrelated_numbers_of_mixed_size_and_sign(seed: int, problem_of: Callable, least_loss: Callable) -> None:
    """Nothing as in networks: signs and magnitudes mixed within each row, equal numbers, integers that fill budgets."""
    rng = np.random.default_rng(seed)
    for resources in (1, 2, 3):
        shape = (int(rng.integers(1, 7)), 4)
        mixed = 10.0 ** rng.integers(-9, 5, shape) * rng.normal(size=shape)
        whole = rng.integers(-3, 9, (*shape, resources)).astype(float)
        skewed = whole * 10.0 ** rng.integers(-3, 6, (*shape, 1))
        for losses, costs in ((mixed, whole), (rng.integers(0, 4, shape), whole), (mixed, skewed)):
            plan = rng.integers(0, 4, shape[0])
            budgets = costs[np.arange(shape[0]), plan].sum(axis=0) - (rng.random(resources) < 0.2)
            problem = problem_of(losses, costs, budgets)
            best = least_loss(problem)
            if best == math.inf:
                with pytest.raises(InfeasibleError):
                    solve(problem)
                continue
            solution = solve(problem)
            assert solution.loss == pytest.approx(best, rel=1e-12, abs=1e-15 * np.abs(losses).max())
            assert problem.keeps(solution.choice)
            assert solution.bound <= solution.loss


@pytest.mark.parametrize("resources", [1, 2])
def test_three_hundred_layers_reach_their_bound(resources: int, random_problem: Callable) -> None:
    problem = random_problem(np.random.default_rng(resources), 300, 5, resources, 1e-9, 1e5)
    solution = solve(problem)
    assert problem.keeps(solution.choice)
    assert solution.proof in {"enumeration", "solver"}
    assert 0 <= solution.gap <= 0.005 * solution.loss
    for group in problem.groups:
        for option in group.options:
            other = {**solution.choice, group.name: option.name}
            assert problem.loss(other) >= solution.loss or not problem.keeps(other)


def test_least_cost_at_a_loss_is_the_other_side(random_problem: Callable) -> None:
    rng = np.random.default_rng(5)
    for _ in range(8):
        problem = random_problem(rng, 7, 4, 1)
        solution = solve(problem)
        back = least_cost(problem, "resource0", solution.loss)
        assert back.loss <= solution.loss
        assert back.costs["resource0"] <= solution.costs["resource0"]
        assert back.gap == back.costs["resource0"] - back.bound >= 0
        assert solve(Problem(problem.groups, back.costs)).loss <= back.loss
        tighter = np.nextafter(back.costs["resource0"], -np.inf)
        try:
            assert solve(Problem(problem.groups, {"resource0": tighter})).loss > solution.loss
        except InfeasibleError:
            assert tighter < sum(min(o.costs["resource0"] for o in group.options) for group in problem.groups)


def test_least_cost_counts_fixed_amounts_and_keeps_other_budgets(problem_of: Callable) -> None:
    costs = [[[4, 1], [2, 3]], [[4, 1], [2, 3]]]
    problem = problem_of([[0, 1], [0, 1]], costs, [99, 4.5], fixed={"resource0": 10.0, "resource1": 0.5})
    solution = least_cost(problem, "resource0", 2.0)
    assert solution.costs == {"resource0": 16.0, "resource1": 4.5}
    with pytest.raises(InfeasibleError) as refused:
        least_cost(problem, "resource0", -1.0)
    assert refused.value.least["loss"] == 0.0
    assert refused.value.bounds == {"loss": -1.0, "resource1": 4.5}
    with pytest.raises(UsageError, match="unknown resource 'bytes'"):
        least_cost(problem, "bytes", 2.0)


def test_infeasible_budgets_are_answered_with_the_least_of_each(problem_of: Callable) -> None:
    costs = [[[4, 1], [1, 4]], [[4, 1], [1, 4]]]
    with pytest.raises(InfeasibleError, match="the smallest feasible: resource0 8, resource1 8") as refused:
        solve(problem_of([[0, 1], [1, 0]], costs, [2, 2]))
    assert refused.value.exit_code == 2
    assert refused.value.least == {"resource0": 8.0, "resource1": 8.0}


def test_infeasible_together_but_not_each(problem_of: Callable) -> None:
    costs = [[[4, 1], [1, 4]], [[4, 1], [1, 4]]]
    with pytest.raises(InfeasibleError) as refused:
        solve(problem_of([[0, 1], [1, 0]], costs, [4, 6]))
    assert refused.value.least == {"resource0": 5.0, "resource1": 8.0}
    for name, other in (("resource0", [5, 6]), ("resource1", [4, 8])):
        solution = solve(problem_of([[0, 1], [1, 0]], costs, other))
        assert solution.costs[name] == refused.value.least[name]


def test_infeasible_once_what_fits_no_plan_is_gone(problem_of: Callable) -> None:
    """The options that the first budget leaves all take the same of the second, and too much."""
    costs = [[[5, 3], [2, 5]], [[3, 3], [2, 3]]]
    with pytest.raises(InfeasibleError) as refused:
        solve(problem_of([[0, 0], [0, 1]], costs, [6, 6]))
    assert refused.value.least == {"resource0": 7.0, "resource1": 8.0}


def test_a_single_option_and_no_budget_and_equal_options(problem_of: Callable) -> None:
    assert solve(problem_of([[3.5]], [[[7]]], [7])).choice == {"group0": "option0"}
    free = solve(problem_of([[3, 1, 2]], [[[], [], []]], []))
    assert (free.choice, free.loss, free.costs) == ({"group0": "option1"}, 1.0, {})
    equal = solve(problem_of([[1, 1, 1], [2, 2, 2]], [[[5], [5], [5]]] * 2, [10]))
    assert equal.choice == {"group0": "option0", "group1": "option0"}
    assert 0 <= equal.gap < 1e-13


def test_of_plans_with_equal_loss_the_cheapest(problem_of: Callable) -> None:
    solution = solve(problem_of([[1, 1, 0.5], [1, 1, 0.5]], [[[5], [4], [9]]] * 2, [8.5]))
    assert solution.choice == {"group0": "option1", "group1": "option1"}


def test_zero_budget(problem_of: Callable) -> None:
    assert solve(problem_of([[0, 1], [0, 1]], [[[1], [0]]] * 2, [0])).loss == 2.0
    assert solve(problem_of([[0, 1], [0, 1]], [[[1], [-1]]] * 2, [0])).loss == 1.0
    with pytest.raises(InfeasibleError):
        solve(problem_of([[0, 1]], [[[1], [1e-90]]], [0]))


def test_a_budget_is_kept_to_the_last_bit(problem_of: Callable) -> None:
    """Sums are rounded once, those of whole numbers below 2^53 not at all."""
    losses, costs = [[0, 1]] * 3, [[[0.1], [0.0]]] * 3
    full = math.fsum([0.1] * 3)
    assert solve(problem_of(losses, costs, [full])).loss == 0
    assert solve(problem_of(losses, costs, [np.nextafter(full, 0)])).loss == 1
    wide = [10**14 + 2 * i for i in range(40)]
    solution = solve(problem_of([[0, 1]] * 40, [[[cost], [cost - 1]] for cost in wide], [sum(wide) - 7]))
    assert solution.loss == 7
    assert solution.costs["resource0"] == sum(wide) - 7


def test_resources_without_a_budget_are_added_up() -> None:
    groups = tuple(
        Group(name, (Option("w8", 0.0, {"size": 8.0, "bops": 64.0}), Option("w4", 1.0, {"size": 4.0, "bops": 32.0})))
        for name in ("a", "b")
    )
    solution = solve(Problem(groups, {"size": 13.0}, {"size": 1.0, "bops": 0.5}))
    assert solution.costs == {"size": 13.0, "bops": 96.5}


@pytest.mark.parametrize("solver", ["cbc", "highs"])
def test_silent_repeatable_and_without_files(
    solver: str, random_problem: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    if solver == "highs":
        pytest.importorskip("highspy")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    problem = random_problem(np.random.default_rng(3), 40, 5, 2)
    first, second = (solve(problem, solver=solver) for _ in range(2))
    assert first.choice == second.choice
    assert first.solver == solver
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("solver", ["cbc", "highs"])
def test_without_time_a_plan_is_there_and_says_what_it_proves(solver: str, random_problem: Callable) -> None:
    if solver == "highs":
        pytest.importorskip("highspy")
    problem = random_problem(np.random.default_rng(11), 60, 5, 2)
    hasty, patient = solve(problem, solver=solver, seconds=0.0), solve(problem, solver=solver)
    assert problem.keeps(hasty.choice)
    assert hasty.loss >= patient.loss
    assert hasty.bound <= patient.loss
    assert hasty.proof != "none" or hasty.gap > 0


@pytest.mark.parametrize(("loss", "cost"), [(1e-99, 1e-100), (1e99, 1e99), (1e-99, 1e99), (1e99, 1e-100)])
def test_numbers_at_the_ends_of_what_is_taken(
    loss: float, cost: float, problem_of: Callable, least_loss: Callable
) -> None:
    rng = np.random.default_rng(1)
    for _ in range(5):
        problem = problem_of(
            loss * (1 + rng.random((5, 3))), cost * (1 + rng.random((5, 3, 2))), [cost * 7.6, cost * 7.4]
        )
        best = least_loss(problem)
        if best < math.inf:
            assert solve(problem).loss == pytest.approx(best, rel=1e-12, abs=0)


def test_many_budgets_at_once(problem_of: Callable, least_loss: Callable) -> None:
    """As of activations that live for some steps each: a budget per step, most groups not in it."""
    rng = np.random.default_rng(2)
    costs = np.zeros((7, 3, 12))
    for group, first in enumerate(rng.integers(0, 10, 7)):
        costs[group, :, first : first + 4] = rng.integers(1, 9) * np.array([[4], [2], [1]])
    budgets = 0.6 * costs.max(axis=1).sum(axis=0)
    problem = problem_of(np.outer(rng.random(7), [0, 1, 5]), costs, budgets)
    solution = solve(problem)
    assert solution.loss == pytest.approx(least_loss(problem), rel=1e-12)
    assert problem.keeps(solution.choice)


def test_unknown_solver_is_refused(problem_of: Callable) -> None:
    with pytest.raises(UsageError, match="unknown solver 'simplex'"):
        solve(problem_of([[1]], [[[1]]], [1]), solver="simplex")
