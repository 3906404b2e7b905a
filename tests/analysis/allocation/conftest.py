"""Random problems, and all their plans looked through."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from qcompiler.analysis.allocation.problem import Group, Option, Problem


@pytest.fixture(scope="session")
def problem_of() -> Callable[..., Problem]:
    """Makes a problem from losses ``[groups][options]``, costs ``[groups][options][resources]`` and budgets."""

    def make(losses: object, costs: object, budgets: object, **others: object) -> Problem:
        names = [f"resource{i}" for i in range(len(budgets))]
        groups = tuple(
            Group(
                f"group{g}",
                tuple(
                    Option(f"option{o}", float(loss), {name: float(c) for name, c in zip(names, cost, strict=True)})
                    for o, (loss, cost) in enumerate(zip(own, prices, strict=True))
                ),
            )
            for g, (own, prices) in enumerate(zip(losses, costs, strict=True))
        )
        return Problem(groups, {n: float(b) for n, b in zip(names, budgets, strict=True)}, **others)

    return make


@pytest.fixture(scope="session")
def random_problem(problem_of: Callable[..., Problem]) -> Callable[..., Problem]:
    """Makes problems of wide options that lose less: spreads as of real networks, costs not quite in proportion."""

    def make(
        rng: np.random.Generator, groups: int, options: int, resources: int, loss: float = 1.0, cost: float = 1.0
    ) -> Problem:
        bits = 2.0 + 1.5 * np.arange(options)
        losses = loss * rng.lognormal(0, 2, (groups, 1)) * 4.0**-bits * rng.uniform(0.8, 1.2, (groups, options))
        shape = (groups, options, resources)
        costs = cost * rng.lognormal(0, 1.5, (groups, 1, 1)) * bits[:, None] * rng.uniform(0.7, 1.3, shape)
        costs *= 10.0 ** np.arange(resources)
        least, most = costs.min(axis=1).sum(axis=0), costs.max(axis=1).sum(axis=0)
        return problem_of(losses, costs, least + rng.uniform(0.2, 0.8, resources) * (most - least))

    return make


@pytest.fixture(scope="session")
def least_loss() -> Callable[[Problem], float]:
    """The least loss of all plans within the budgets, each looked at; infinity where none is."""

    def total(columns: list[list[float]], plans: np.ndarray, start: float = 0.0) -> np.ndarray:
        """Sums in higher precision, rounded once."""
        terms = (np.array(column, np.longdouble)[plan] for column, plan in zip(columns, plans, strict=True))
        return sum(terms, start=np.longdouble(start))

    def look(problem: Problem) -> float:
        counts = [len(group.options) for group in problem.groups]
        plans = np.indices(counts).reshape(len(counts), -1)
        losses = total([[option.loss for option in group.options] for group in problem.groups], plans)
        number = {group.name: g for g, group in enumerate(problem.groups)}
        for pair in problem.pairs:
            first, second = number[pair.first], number[pair.second]
            names = [[option.name for option in problem.groups[g].options] for g in (first, second)]
            joint = np.array([[pair.losses.get((a, b), 0.0) for b in names[1]] for a in names[0]])
            losses = losses + joint[plans[first], plans[second]]
        for name, budget in problem.budgets.items():
            costs = [[option.costs[name] for option in group.options] for group in problem.groups]
            used = total(costs, plans, problem.fixed.get(name, 0.0)).astype(np.float64)
            losses = np.where(used <= budget, losses, np.inf)
        return float(losses.min())

    return look
