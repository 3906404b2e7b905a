"""Joint losses of two groups, against all plans."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from qcompiler.analysis.allocation.problem import InfeasibleError, Pair, Problem
from qcompiler.analysis.allocation.solve import least_cost, solve
from qcompiler.errors import UsageError


def joined(problem: Problem, rng: np.random.Generator, share: float, scale: float) -> Problem:
    """The problem with random joint losses of either sign for some of all pairs, some combinations left out."""
    pairs = []
    for first, second in itertools.combinations(problem.groups, 2):
        if rng.random() < share:
            names = itertools.product((o.name for o in first.options), (o.name for o in second.options))
            losses = {each: float(scale * rng.normal()) for each in names if rng.random() < 0.8}
            pairs.append(Pair(first.name, second.name, losses))
    return replace(problem, pairs=tuple(pairs))


@pytest.mark.parametrize("seed", range(15))
def test_no_plan_is_better(seed: int, random_problem: Callable, least_loss: Callable) -> None:
    rng = np.random.default_rng(seed)
    scales = 10.0 ** rng.integers(-12, 7, 2)
    base = random_problem(rng, int(rng.integers(2, 8)), int(rng.integers(2, 4)), 1 + seed % 2, *scales)
    typical = float(np.median([option.loss for group in base.groups for option in group.options]))
    problem = joined(base, rng, 0.6, typical)
    best = least_loss(problem)
    if best == math.inf:
        with pytest.raises(InfeasibleError):
            solve(problem)
        return
    solution = solve(problem)
    assert solution.loss == pytest.approx(best, rel=1e-10, abs=0)
    assert solution.loss == problem.loss(solution.choice)
    assert problem.keeps(solution.choice)
    assert solution.bound <= solution.loss


def test_joint_losses_change_the_plan(problem_of: Callable) -> None:
    base = problem_of([[0, 1], [0, 1]], [[[8], [4]]] * 2, [12])
    alone = solve(base)
    assert alone.loss == 1.0
    for kept, lost in (("option0", "option1"), ("option1", "option0")):
        problem = replace(base, pairs=(Pair("group0", "group1", {(kept, lost): 5.0}),))
        assert solve(problem).choice == {"group0": lost, "group1": kept}
    rewarded = replace(base, pairs=(Pair("group0", "group1", {("option1", "option1"): -1.5}),))
    assert solve(rewarded).loss == 0.5


def test_least_cost_with_pairs_is_refused(problem_of: Callable) -> None:
    problem = problem_of([[0, 1]] * 2, [[[8], [4]]] * 2, [12], pairs=(Pair("group0", "group1", {}),))
    with pytest.raises(UsageError, match="not available with pairs"):
        least_cost(problem, "resource0", 1.0)
