"""From what the solver adds up to what a plan really takes.

Sums of a plan are not always its costs. Some things are paid once and counted always (function bodies that a plan does
without): that room is given back and the problem solved again. Where activations have several widths, what stands
between neighbours is an estimate, too high or too low: the plan is built without samples (``plan_costs``), the solver
gets budgets with what was estimated too much added or what it takes too much taken off, and then budgets halfway
between those whose plan fits and those whose plan does not. No proof is left of such a plan: the solver's is of sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, TypeAlias

from qcompiler.analysis.allocation.problem import InfeasibleError, Problem, Solution
from qcompiler.analysis.allocation.solve import least_cost, solve
from qcompiler.analysis.group_costs import GroupCosts
from qcompiler.errors import PassError

__all__ = ["Exact", "settled"]

Exact: TypeAlias = Callable[[Mapping[str, str]], Mapping[str, float]]
"""What a plan (option by group) takes by resource; peak memory under ``memory``."""

_ROUNDS: Final = 6


def settled(problem: Problem, costs: GroupCosts, exact: Exact | None = None) -> Solution:
    """The plan of least loss that keeps the budgets by what it really takes.

    Args:
        problem: What to decide.
        costs: Where its costs come from.
        exact: Takes a plan's true costs; ``None`` where the sums of ``costs`` are true.

    Raises:
        InfeasibleError: No plan keeps the budgets.
        PassError: Estimates miss so far that no plan was found that keeps them.
    """
    if exact is None:
        return _with_room(problem, costs, _first(problem, costs))
    found = _searched(problem, exact)
    bound = math.fsum(min(option.loss for option in group.options) for group in problem.groups)
    return replace(found, bound=bound, gap=found.loss - bound, proof="none")


def _searched(problem: Problem, exact: Exact) -> Solution:
    """The best plan that keeps the budgets, of those that the solver finds for budgets around them."""
    budgets = dict(problem.budgets)
    fitting: dict[str, float] | None = None
    failing: dict[str, float] | None = None
    best: Solution | None = None
    for _ in range(_ROUNDS):
        found = solve(replace(problem, budgets=budgets))
        costs = exact(found.choice)
        taken = {name: _amount(costs, name) for name in budgets}
        over = {name: taken[name] - asked for name, asked in problem.budgets.items()}
        if all(amount <= 0 for amount in over.values()):
            fitting, best = budgets, found if best is None or found.loss < best.loss else best
        else:
            failing = budgets
        if fitting is None:
            budgets = {name: amount - max(over[name], 0.0) for name, amount in budgets.items()}
        elif failing is not None:
            budgets = {name: (fitting[name] + failing[name]) / 2 for name in budgets}
        else:
            room = {name: problem.costs(found.choice)[name] - taken[name] for name in budgets}
            budgets = {name: max(asked + room[name], fitting[name]) for name, asked in problem.budgets.items()}
            if budgets == fitting:
                break
    if best is not None:
        return best
    raise PassError(
        f"no plan was found that keeps {', '.join(problem.budgets)}: what stands between activations of different width"
        " takes more than was estimated",
        where="choose-formats",
        hint="ask for a little more, or for one width",
    )


def _first(problem: Problem, costs: GroupCosts) -> Solution:
    """The plan by sums; where they find none, the smallest plan, if that keeps the budget by what it really takes."""
    try:
        return solve(problem)
    except InfeasibleError:
        if len(problem.budgets) != 1:
            raise
        ((name, asked),) = problem.budgets.items()
        any_loss = sum(max(abs(option.loss) for option in group.options) for group in problem.groups) + 1.0
        smallest = least_cost(replace(problem, budgets={}), name, any_loss)
        least = costs.total(smallest.choice, name)
        if least > asked:
            raise InfeasibleError(problem.budgets, {name: least}) from None
        return smallest


def _with_room(problem: Problem, costs: GroupCosts, found: Solution) -> Solution:
    """Solve again with the room of what the plan does not need, as long as that lowers the loss."""
    for _ in range(_ROUNDS):
        room = {name: costs.bound(found.choice, name) - costs.total(found.choice, name) for name in problem.budgets}
        if not any(room.values()):
            return found
        try:
            budgets = {name: asked + room[name] for name, asked in problem.budgets.items()}
            wider = solve(replace(problem, budgets=budgets))
        except InfeasibleError:
            return found
        fits = all(costs.total(wider.choice, name) <= asked for name, asked in problem.budgets.items())
        if not fits or wider.loss >= found.loss:
            return found
        found = wider
    return found


def _amount(taken: Mapping[str, float], name: str) -> float:
    return taken[name.partition("@")[0]]
