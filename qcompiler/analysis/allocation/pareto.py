"""Loss against one resource: the plans among which a budget chooses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from qcompiler.analysis.allocation.least import least_peak, refusal
from qcompiler.analysis.allocation.problem import Problem, Solution
from qcompiler.analysis.allocation.shared import best
from qcompiler.analysis.allocation.solve import SECONDS
from qcompiler.analysis.group_costs import SharedCost
from qcompiler.errors import UsageError

__all__ = ["front", "front_at", "undominated"]


def front(
    problem: Problem,
    resource: str,
    points: int,
    *,
    shared: Sequence[SharedCost] = (),
    solver: str | None = None,
    seconds: float = SECONDS,
) -> tuple[Solution, ...]:
    """At most ``points`` plans from the one that takes least of a resource to the one of least loss.

    Budgets are evenly spaced between these two; the problem's own budgets hold as well. Ascending in what they take,
    strictly descending in loss: fewer than ``points`` where several budgets have the same best plan. A single point is
    the plan of least loss.

    Args:
        problem: What to decide.
        resource: What the plans are budgeted in.
        points: At least one.
        shared: Costs that are paid once (``shared``).
        solver: As for ``solve``.
        seconds: For each plan, as for ``solve``.

    Raises:
        InfeasibleError: No plan is within the problem's budgets.
        UsageError: The resource is unknown or there are no points.
    """
    if points < 1:
        raise UsageError("a front needs at least one point")
    _known(problem, resource)
    last = best(problem, shared, solver=solver, seconds=seconds)
    if last is None:
        raise refusal(problem, shared)
    smallest = None if points == 1 else least_peak(problem, shared, [resource], solver=solver, seconds=seconds)
    if smallest is None:
        return (last,)
    budgets = np.linspace(smallest.costs[resource], last.costs[resource], points)[:-1].tolist()
    plans = front_at(problem, resource, budgets, shared=shared, solver=solver, seconds=seconds)
    return undominated((*plans, last), resource)


def front_at(
    problem: Problem,
    resource: str,
    budgets: Iterable[float],
    *,
    shared: Sequence[SharedCost] = (),
    solver: str | None = None,
    seconds: float = SECONDS,
) -> tuple[Solution, ...]:
    """The best plans at given budgets of a resource, in the order of ``front``; budgets no plan keeps have none.

    Where the problem itself has a budget of the resource, the lower one holds.
    """
    _known(problem, resource)
    own = problem.budgets.get(resource, np.inf)
    found = []
    for budget in sorted({min(each, own) for each in budgets}):
        asked = replace(problem, budgets={**problem.budgets, resource: budget})
        found.append(best(asked, shared, solver=solver, seconds=seconds))
    return undominated((plan for plan in found if plan is not None), resource)


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
