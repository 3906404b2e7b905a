"""What a refusal of budgets says besides the smallest that is kept: what exemptions take of it, and where plans are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from qcompiler.analysis.allocation.bisect import BoundMissedError
from qcompiler.analysis.allocation.least import refusal
from qcompiler.analysis.allocation.pareto import front
from qcompiler.analysis.allocation.problem import InfeasibleError, Solution
from qcompiler.analysis.amounts import amount_text
from qcompiler.analysis.group_costs import SIZE
from qcompiler.passes.allocate._allocation import Material, problem_of
from qcompiler.passes.allocate._settle import Exact
from qcompiler.passes.allocate.budgets import Budget, in_words, least_words

__all__ = ["Refusal"]


@dataclass(frozen=True)
class Refusal:
    """Who asked for what.

    Attributes:
        material: What plans are made of.
        amounts: Budgets as amounts of its resources.
        budgets: As the user gave them.
        whole: What the float model takes of resources of which a share was asked for.
        exempt: Rules by which groups keep the widest candidate.
        exact: Takes a plan's true costs; ``None`` where sums are true.
    """

    material: Material
    amounts: Mapping[str, float]
    budgets: tuple[Budget, ...]
    whole: Mapping[str, float]
    exempt: tuple[str, ...]
    exact: Exact | None = None

    def explain(self, error: InfeasibleError | BoundMissedError, *, reach: bool) -> None:
        """Complete the words of a refusal; ``reach`` says where plans are, whatever the budgets."""
        if isinstance(error, InfeasibleError):
            in_words(error, self.budgets, self.whole)
            error.hint = f"{error.hint}{self._without_exemptions(error)}"
        if reach:
            error.hint = f"{error.hint}; {self._reach()}"

    def _without_exemptions(self, error: InfeasibleError) -> str:
        """What would be the smallest without exemptions, where that is smaller; only where sums of costs say so."""
        if not self.material.only or self.exact is not None:
            return ""
        free = refusal(problem_of(replace(self.material, only={}), self.amounts), self.material.costs.shared)
        if all(free.least[name] >= error.least[name] for name in error.bounds):
            return ""
        return f"; without --exempt {','.join(self.exempt)}: {', '.join(least_words(free, self.budgets, self.whole))}"

    def _reach(self) -> str:
        """The smallest plan and the one of least predicted loss."""
        ends = front(problem_of(self.material, {}), SIZE, 2, shared=self.material.costs.shared)
        least, most = (f"{self._size(plan)} at predicted loss {plan.loss:.4g}" for plan in (ends[0], ends[-1]))
        return f"plans reach from {least} to {most}: --pareto FILE without --budget writes them, and no model"

    def _size(self, plan: Solution) -> str:
        """What a plan takes, as a budget of the size that it keeps in the unit that one was asked in."""
        amount = plan.costs[SIZE] if self.exact is None else self.exact(plan.choice)[SIZE]
        asked = next((item for item in self.budgets if item.resource == SIZE), None)
        return amount_text(SIZE, amount) if asked is None else asked.at_least(amount, self.whole.get(SIZE, 0.0))
