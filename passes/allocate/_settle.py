"""From what the solver adds up to what a plan really takes.

Sums of a plan are not always its costs. Some things are paid once and counted always (function bodies that a plan does
without): plans with and without them are decided exactly (``allocation/shared``). Where activations have several
widths, what stands between neighbours is an estimate, too high or too low: the plan is built without samples
(``plan_costs``), the solver gets budgets with what was estimated too much added or what it takes too much taken off,
and then budgets halfway between those whose plan fits and those whose plan does not; where sums leave none, the plans
that take least are built. No proof is left of such a plan: the solver's is of sums.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from qcompiler.analysis.allocation.least import asked_budgets, budget_parts, least_plan, refusal
from qcompiler.analysis.allocation.problem import InfeasibleError, Problem, Solution
from qcompiler.analysis.allocation.shared import best, least_loss
from qcompiler.analysis.group_costs import GroupCosts, SharedCost

__all__ = ["Exact", "settled"]

Exact: TypeAlias = Callable[[Mapping[str, str]], Mapping[str, float]]
"""What a plan (option by group) takes by resource; peak memory under ``memory``."""

Amounts: TypeAlias = Mapping[str, float]

_ROUNDS: Final = 6


def settled(problem: Problem, costs: GroupCosts, exact: Exact | None = None) -> Solution:
    """The plan of least loss that keeps the budgets by what it really takes.

    Args:
        problem: What to decide.
        costs: Where its costs come from.
        exact: Takes a plan's true costs; ``None`` where the sums of ``costs`` are true.

    Raises:
        InfeasibleError: No plan keeps the budgets, or none was found that does by ``exact``. Memory is one resource
            there, whatever the number of nodes that may be the peak.
        OutOfTimeError: The solver's time ran out.
    """
    if exact is not None:
        return _Search(problem, costs.shared, exact).found()
    found = best(problem, costs.shared)
    if found is None:
        raise refusal(problem, costs.shared)
    return found


class _Search:
    """The search for a plan that keeps the budgets by what it really takes. All amounts are by the user's resources."""

    def __init__(self, problem: Problem, shared: Sequence[SharedCost], exact: Exact) -> None:
        self.problem, self.shared, self.exact = problem, shared, exact
        self.parts, self.asked = budget_parts(problem), asked_budgets(problem)
        self.built: list[Mapping[str, float]] = []  # what plans took
        self.best: Solution | None = None  # of those that keep the budgets
        self.fitting: Amounts | None = None  # budgets whose plan kept the user's
        self.failing: Amounts | None = None  # budgets whose plan did not

    def found(self) -> Solution:
        """The best plan that keeps the budgets, of those that the solver finds for budgets around them."""
        budgets: Amounts = self.asked
        for _ in range(_ROUNDS):
            plan = self._by_sums(budgets)
            further = self._from_least() if plan is None else self._after(plan, budgets)
            if further is None:
                break
            budgets = further
        if self.best is None:
            self._from_least()
        if self.best is None:
            raise InfeasibleError(self.asked, self._least(), searched=True)
        bound = least_loss(self.problem)
        return replace(self.best, bound=bound, gap=self.best.loss - bound, proof="none")

    def _by_sums(self, budgets: Amounts) -> Solution | None:
        every = {name: budgets[resource] for resource, names in self.parts.items() for name in names}
        return best(replace(self.problem, budgets=every), self.shared)

    def _over(self, plan: Solution) -> Amounts:
        """How much a plan takes beyond the user's budgets, built; keeps it if it is the best that does not."""
        taken = self.exact(plan.choice)
        self.built.append(taken)
        over = {resource: taken[resource] - amount for resource, amount in self.asked.items()}
        if _none(over) and (self.best is None or plan.loss < self.best.loss):
            self.best = plan
        return over

    def _after(self, plan: Solution, budgets: Amounts) -> Amounts | None:
        """Budgets to try after those that gave a plan; ``None`` where there are none."""
        over = self._over(plan)
        if _none(over):
            return self._fits(budgets, plan, over)
        self.failing = budgets
        if self.fitting is None:
            return {resource: amount - max(over[resource], 0.0) for resource, amount in budgets.items()}
        return _between(self.fitting, budgets)

    def _fits(self, budgets: Amounts, plan: Solution, over: Amounts) -> Amounts | None:
        """Wider budgets than those whose plan fits: halfway to others, or with what was estimated too much added."""
        self.fitting = budgets
        if self.failing is not None:
            return _between(budgets, self.failing)
        sums = self._sums(plan)
        wider = {resource: max(sums[resource] - over[resource], amount) for resource, amount in budgets.items()}
        return None if wider == budgets else wider

    def _sums(self, plan: Solution) -> Amounts:
        """What a plan takes by estimate."""
        return {resource: max(plan.costs[name] for name in names) for resource, names in self.parts.items()}

    def _from_least(self) -> Amounts | None:
        """Builds the plans that take least, as sums leave none; ``None`` where none fits or one was found before."""
        if self.fitting is not None:
            return None
        for names in self.parts.values():
            plan = least_plan(self.problem, self.shared, names)
            over = self._over(plan)
            if _none(over):
                return self._fits(self._sums(plan), plan, over)
        return None

    def _least(self) -> Amounts:
        """The least of each resource that a built plan takes: with the other budgets kept where one keeps those."""
        found = {}
        for resource in self.parts:
            others = [name for name in self.parts if name != resource]
            keep = [each for each in self.built if all(each[name] <= self.asked[name] for name in others)]
            found[resource] = min(each[resource] for each in keep or self.built)
        return found


def _none(over: Amounts) -> bool:
    return all(amount <= 0 for amount in over.values())


def _between(one: Amounts, other: Amounts) -> Amounts:
    return {resource: (amount + other[resource]) / 2 for resource, amount in one.items()}
