"""What exemptions cost in predicted loss: the best plan with them against the best one without, in the same budgets.

Both are plans by sums of costs; without an exemption there are more plans to choose among, so that none loses more.
Under a bound on the held-out loss, where the plan is the smallest, it is compared with plans of its size.

Prices are words beside a plan, so they may not take longer than the plan. The programs have a time limit together, and
nothing is priced that they do not prove. Whether exemptions are priced one by one is decided by how large the programs
are, not by a clock: a compile that is run again says the same.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from qcompiler.analysis.allocation.problem import OutOfTimeError, Problem, Solution
from qcompiler.analysis.allocation.record import BY_SUMS
from qcompiler.analysis.allocation.shared import best, plain_problems
from qcompiler.analysis.group_costs import SIZE
from qcompiler.passes.allocate._allocation import Material, problem_of

__all__ = ["ExemptLosses", "exempt_losses", "priced"]

_SECONDS: Final = 20.0
"""Time for all programs together; each plain problem of one has a second of its own (``shared``)."""
_LARGEST: Final = 20_000
"""Options in all programs that price exemptions one by one, at most: 0.1 ms each, or 0.3 ms on a busy machine."""
_PAIR: Final = 10
"""A loss of two options together takes the solver as long as so many options."""

_Only: TypeAlias = Mapping[str, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class ExemptLosses:
    """Predicted losses.

    Attributes:
        each: By exempt group, what the plan loses more because this group is exempt as well; empty where exemptions
            were not priced one by one.
        without: Loss of the plan less what all exemptions together cost; ``None`` where that was not proven.
        missing: What there is no price of, and why; empty where nothing is missing.
    """

    each: Mapping[str, float]
    without: float | None
    missing: str = ""


def exempt_losses(
    material: Material, budgets: Mapping[str, float], plan: Solution, *, smallest: bool = False
) -> ExemptLosses | None:
    """Price the exemptions of ``material.only``; ``None`` where there are none.

    Args:
        material: What plans are made of.
        budgets: Most that plans may take, by resource.
        plan: The chosen plan, which counts as within the budgets whatever its sums are.
        smallest: Whether it was chosen as the smallest plan, and not as the best within the budgets.
    """
    if not material.only:
        return None
    limits = {**budgets, SIZE: plan.costs[SIZE]} if smallest else budgets
    room = {name: max(amount, plan.costs[name]) for name, amount in limits.items()}
    pricing = _Pricing(material, room, plan.loss, time.monotonic() + _SECONDS)
    try:
        kept = pricing.loss(material.only)
        together = max(kept - pricing.loss({}), 0.0)
    except OutOfTimeError:
        return ExemptLosses({}, None, f"what exemptions cost in predicted loss was not proven in {_SECONDS:g} s")
    without = plan.loss - together
    if not together:  # no exemption costs more than all of them
        return ExemptLosses(dict.fromkeys(material.only, 0.0), without)
    if pricing.largest > _LARGEST:
        return ExemptLosses({}, without, "exemptions are priced together: there are too many for one by one")
    try:
        return ExemptLosses({name: max(kept - pricing.freed(name), 0.0) for name in material.only}, without)
    except OutOfTimeError:
        return ExemptLosses({}, without, f"what each exemption costs was not proven in {_SECONDS:g} s")


def priced(material: Material, prices: ExemptLosses, *, estimated: bool = False) -> Material:
    """The material in which each exemption also says what it costs in predicted loss.

    Args:
        material: What plans are made of.
        prices: What its exemptions cost.
        estimated: Whether the sums of costs that prices are by are estimates.
    """
    how = f" {BY_SUMS}" if estimated else ""
    only = {
        name: (option, f"{why}, and {prices.each[name]:.3g} of predicted loss{how}" if name in prices.each else why)
        for name, (option, why) in material.only.items()
    }
    return replace(material, only=only)


@dataclass(frozen=True)
class _Pricing:
    """Least losses of plans within a room, the chosen plan of ``known`` loss among them, until a deadline."""

    material: Material
    room: Mapping[str, float]
    known: float
    deadline: float

    def loss(self, only: _Only) -> float:
        """The least loss where some groups are exempt.

        Raises:
            OutOfTimeError: Nothing proves that it is the least.
        """
        seconds = max(self.deadline - time.monotonic(), 0.0)
        found = best(self._problem(only), self.material.costs.shared, seconds=seconds)
        if found is None:  # by rounding of its sums the chosen plan alone is within
            return self.known
        if found.proof == "none":
            raise OutOfTimeError
        return min(found.loss, self.known)

    def freed(self, name: str) -> float:
        """The least loss where one group is exempt no more."""
        return self.loss({other: own for other, own in self.material.only.items() if other != name})

    @property
    def largest(self) -> int:
        """Size of the programs that price one exemption after the other, not below what they have."""
        cases = plain_problems(self._problem({}), self.material.costs.shared)
        return len(self.material.only) * sum(map(_size, cases))

    def _problem(self, only: _Only) -> Problem:
        return problem_of(replace(self.material, only=only), self.room)


def _size(problem: Problem) -> int:
    """Options, with the losses of two of them together."""
    return sum(len(group.options) for group in problem.groups) + _PAIR * sum(len(pair.losses) for pair in problem.pairs)
