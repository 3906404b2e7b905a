"""The least that plans take: of one resource, or of the greatest of several (a peak); refusals that say so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from qcompiler.analysis.allocation.problem import InfeasibleError, OutOfTimeError, Problem, Solution
from qcompiler.analysis.allocation.shared import least_loss, plain_problems, true_costs
from qcompiler.analysis.allocation.solve import SECONDS, attempt
from qcompiler.analysis.group_costs import SharedCost

__all__ = ["asked_budgets", "budget_parts", "least_peak", "least_plan", "refusal"]

_CLOSE: Final = 1e-7
"""Share of a peak to which it is found: below one byte up to 10 MB."""


def refusal(problem: Problem, shared: Sequence[SharedCost]) -> InfeasibleError:
    """What was asked and the least of each resource, of a problem that no plan solves.

    Resources named ``RESOURCE@PLACE`` are parts of one, of which the greatest counts (a peak).
    """
    least: dict[str, float] = {}
    places: dict[str, str] = {}
    for resource, names in budget_parts(problem).items():
        taken = least_plan(problem, shared, names).costs
        worst = max(names, key=taken.__getitem__)
        least[resource] = taken[worst]
        if worst != resource:
            places[resource] = worst.partition("@")[2]
    return InfeasibleError(asked_budgets(problem), least, places)


def least_plan(problem: Problem, shared: Sequence[SharedCost], names: Sequence[str]) -> Solution:
    """As ``least_peak``, with the other budgets kept where that is possible, else by itself."""
    for each in (problem, replace(problem, budgets={})):
        plan = least_peak(each, shared, names)
        if plan is not None:
            return plan
    raise OutOfTimeError  # without budgets there is a plan


def budget_parts(problem: Problem) -> dict[str, list[str]]:
    """Budgets by what the user asked for: peak memory is one per node."""
    found: dict[str, list[str]] = {}
    for name in problem.budgets:
        found.setdefault(name.partition("@")[0], []).append(name)
    return found


def asked_budgets(problem: Problem) -> dict[str, float]:
    """The user's budgets."""
    return {resource: min(problem.budgets[name] for name in names) for resource, names in budget_parts(problem).items()}


def least_peak(
    problem: Problem,
    shared: Sequence[SharedCost],
    names: Sequence[str],
    *,
    solver: str | None = None,
    seconds: float = SECONDS,
) -> Solution | None:
    """The plan whose greatest of some resources is least, within the budgets of all others.

    Args:
        problem: What to decide; budgets of ``names`` are left aside.
        shared: Costs paid once (``shared``).
        names: At least one resource.
        solver: As for ``solve``.
        seconds: For each program, as for ``solve``.

    Returns:
        The plan with its true costs, nothing said of how good its loss is; ``None`` where no plan keeps the other
        budgets.
    """
    found: Solution | None = None
    for case in plain_problems(problem, shared):
        budgets = {name: amount for name, amount in case.budgets.items() if name not in names}
        plan = _least_peak(replace(case, budgets=budgets, pairs=()), names, solver, seconds)
        if plan is not None:
            plan = _priced_truly(problem, shared, plan)
            found = plan if found is None or _peak(plan, names) < _peak(found, names) else found
    return found


def _priced_truly(problem: Problem, shared: Sequence[SharedCost], plan: Solution) -> Solution:
    choice = {group.name: plan.choice[group.name] for group in problem.groups}
    loss, bound = problem.loss(choice), least_loss(problem)
    costs = true_costs(problem, shared, choice)
    return replace(plan, choice=choice, loss=loss, costs=costs, bound=bound, gap=loss - bound, proof="none")


def _least_peak(problem: Problem, names: Sequence[str], solver: str | None, seconds: float) -> Solution | None:
    """As ``least_peak``, of a problem without shared costs or pairs: bisection over the peak."""
    known = attempt(_priced(problem, names), solver=solver, seconds=seconds)
    if known is None or len(names) == 1:
        return known
    low = max(_floor(problem, name) for name in names)
    probe = low
    while (high := _peak(known, names)) - low > _CLOSE * abs(high):
        within = replace(problem, budgets={**problem.budgets, **dict.fromkeys(names, probe)})
        found = attempt(within, solver=solver, seconds=seconds)
        if found is None:
            low = probe
        else:
            known = found
        probe = (low + _peak(known, names)) / 2
    return known


def _priced(problem: Problem, names: Sequence[str]) -> Problem:
    """The problem with the sum of some costs as its loss."""
    groups = tuple(
        replace(
            group,
            options=tuple(
                replace(option, loss=math.fsum(option.costs[name] for name in names)) for option in group.options
            ),
        )
        for group in problem.groups
    )
    return replace(problem, groups=groups)


def _floor(problem: Problem, name: str) -> float:
    own = (min(option.costs[name] for option in group.options) for group in problem.groups)
    return math.fsum((problem.fixed.get(name, 0.0), *own))


def _peak(plan: Solution, names: Sequence[str]) -> float:
    return max(plan.costs[name] for name in names)
