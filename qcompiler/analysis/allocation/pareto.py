"""Loss against one resource: the plans among which a budget chooses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from qcompiler.analysis.allocation.problem import InfeasibleError, Problem, Solution
from qcompiler.analysis.allocation.solve import SECONDS, least_cost, solve
from qcompiler.errors import UsageError

__all__ = ["front", "front_at", "undominated"]


def front(
    problem: Problem, resource: str, points: int, *, solver: str | None = None, seconds: float | None = SECONDS
) -> tuple[Solution, ...]:
    """At most ``points`` plans from the one that takes least of a resource to the one of least loss.

    Budgets are evenly spaced between these two; the problem's own budgets hold as well. Ascending in what they take,
    strictly descending in loss: fewer than ``points`` where several budgets have the same best plan. A single point is
    the plan of least loss.

    Args:
        problem: What to decide.
        resource: What the plans are budgeted in.
        points: At least one.
        solver: As for ``solve``.
        seconds: For each plan, as for ``solve``.

    Raises:
        InfeasibleError: No plan is within the problem's budgets.
        UsageError: The resource is unknown or there are no points.
    """
    if points < 1:
        raise UsageError("a front needs at least one point")
    _known(problem, resource)
    best = solve(problem, solver=solver, seconds=seconds)
    if points == 1:
        return (best,)
    anything = sum(max(option.loss for option in group.options) for group in problem.groups)
    anything += 1e-9 * abs(anything) + sum(abs(option.loss) for group in problem.groups for option in group.options)
    smallest = least_cost(replace(problem, pairs=()), resource, anything, solver=solver, seconds=seconds)
    budgets = np.linspace(smallest.costs[resource], best.costs[resource], points)[:-1].tolist()
    return undominated((*front_at(problem, resource, budgets, solver=solver, seconds=seconds), best), resource)


def front_at(
    problem: Problem,
    resource: str,
    budgets: Iterable[float],
    *,
    solver: str | None = None,
    seconds: float | None = SECONDS,
) -> tuple[Solution, ...]:
    """The best plans at given budgets of a resource, in the order of ``front``; budgets no plan keeps have none.

    Where the problem itself has a budget of the resource, the lower one holds.
    """
    _known(problem, resource)
    own = problem.budgets.get(resource, np.inf)
    found = []
    for budget in sorted({min(each, own) for each in budgets}):
        try:
            found.append(
                solve(replace(problem, budgets={**problem.budgets, resource: budget}), solver=solver, seconds=seconds)
            )
        except InfeasibleError:
            continue
    return undominated(found, resource)


def undominated(plans: Iterable[Solution], resource: str) -> tuple[Solution, ...]:
    """Those that no other equals or betters in both loss and what it takes; of equal plans one."""
    kept: list[Solution] = []
    for plan in sorted(plans, key=lambda each: (each.costs[resource], each.loss)):
        if not kept or plan.loss < kept[-1].loss:
            kept.append(plan)
    return tuple(kept)


def _known(problem: Problem, resource: str) -> None:
    if resource not in problem.resources:
        raise UsageError(
            f"unknown resource '{resource}'", hint=f"options are priced in: {', '.join(problem.resources)}"
        )
