"""What exemptions cost in predicted loss: the best plan with them against the best one without, in the same budgets.

Both are plans by sums of costs, of which the chosen one is one; without an exemption there are more plans to choose
among, so that none loses more. Under a bound on the held-out loss, where the plan is the smallest, it is compared with
plans of its size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from qcompiler.analysis.allocation.problem import OutOfTimeError, Solution
from qcompiler.analysis.allocation.shared import best
from qcompiler.analysis.group_costs import SIZE
from qcompiler.passes.allocate._allocation import Material, problem_of

__all__ = ["ExemptLosses", "exempt_losses", "priced"]

_MOST: Final = 32
"""Exemptions of which each is priced by itself: every one takes a program of its own."""
_SECONDS: Final = 10.0
"""Time for each program."""


@dataclass(frozen=True, slots=True)
class ExemptLosses:
    """Predicted losses.

    Attributes:
        each: By exempt group, what the plan loses more because this group is exempt as well; without those that took
            too long.
        without: Loss of the best plan without any exemption; ``None`` where it took too long.
    """

    each: Mapping[str, float]
    without: float | None


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
    kept = _loss(material, room)
    kept = plan.loss if kept is None else min(kept, plan.loss)
    each: dict[str, float] = {}
    for name in material.only if len(material.only) <= _MOST else ():
        others = {other: own for other, own in material.only.items() if other != name}
        if (found := _loss(replace(material, only=others), room)) is not None:
            each[name] = max(kept - found, 0.0)
    without = _loss(replace(material, only={}), room)
    return ExemptLosses(each, None if without is None else min(without, kept))


def priced(material: Material, prices: ExemptLosses) -> Material:
    """The material in which each exemption also says what it costs in predicted loss."""
    only = {
        name: (option, f"{why}, and {prices.each[name]:.3g} of predicted loss" if name in prices.each else why)
        for name, (option, why) in material.only.items()
    }
    return replace(material, only=only)


def _loss(material: Material, room: Mapping[str, float]) -> float | None:
    try:
        found = best(problem_of(material, room), material.costs.shared, seconds=_SECONDS)
    except OutOfTimeError:
        return None
    return None if found is None else found.loss
