"""What is to be decided, and what was decided: plain data, checked when it is made.

Losses and costs are finite numbers of any unit and size. **Negative ones are allowed**: a loss may be a gain over a
reference option, a cost the difference to one. What is refused is what no plan could be compared by: NaN, infinity and
magnitudes beyond 1e100, costs nearer to zero than 1e-100 but not zero (prices are losses over costs, and must be
numbers), resources that not every option prices, names used twice. Losses below 1e-100 are zero to the solver.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType
from typing import Final

from qcompiler.errors import UsageError

__all__ = ["NEGLIGIBLE", "Group", "InfeasibleError", "Option", "OutOfTimeError", "Pair", "Problem", "Solution"]

NEGLIGIBLE: Final = 1e-100
"""Losses nearer to zero are zero to the solver; costs are refused."""

_LARGEST: Final = 1e100


class InfeasibleError(UsageError):
    """No plan keeps all bounds at once.

    Attributes:
        bounds: What was asked, per resource (``"loss"`` for a bound on the loss).
        least: The smallest value of each resource: with all other bounds kept where a plan keeps those, else by itself.
        places: Where in the model the smallest value of a resource is reached, of those that have a place.
        searched: Plans were looked for, not all excluded; ``least`` is the smallest of those that were found.
    """

    def __init__(
        self,
        bounds: Mapping[str, float],
        least: Mapping[str, float],
        places: Mapping[str, str] = MappingProxyType({}),
        *,
        searched: bool = False,
    ) -> None:
        super().__init__("")
        self.bounds = dict(bounds)
        self.least = dict(least)
        self.places = dict(places)
        self.searched = searched
        asked = {name: f"{name} ≤ {value:.10g}" for name, value in bounds.items()}
        self.reword(asked, {name: f"{name} {_at_least(least[name])}" for name in bounds})

    def reword(self, asked: Mapping[str, str], least: Mapping[str, str]) -> None:
        """Say it in the words of who asked.

        Args:
            asked: Each bound as it was asked for.
            least: The smallest value of each resource.
        """
        at = {name: f" at '{place}'" for name, place in self.places.items()}
        lowest = ", ".join(f"{least[name]}{at.get(name, '')}" for name in self.bounds)
        found, which = ("no plan found keeps", "found") if self.searched else ("no plan keeps", "feasible")
        self.message = f"{found} {', '.join(asked[name] for name in self.bounds)}"
        self.hint = f"the smallest {which}: {lowest}"
        self.args = (self.message,)


def _at_least(amount: float) -> str:
    """Ten digits, not below the amount: a budget of what is written here has a plan."""
    text = f"{amount:.10g}"
    return text if float(text) >= amount else f"{amount + 1e-9 * abs(amount):.10g}"


class OutOfTimeError(UsageError):
    """The time ran out before a plan was found, or that there is none."""

    def __init__(self) -> None:
        super().__init__(
            "the solver found no plan in its time, nor that there is none", hint="give it more seconds, or more room"
        )


@dataclass(frozen=True)
class Option:
    """One way to treat a group.

    Attributes:
        name: Format text, unique within the group.
        loss: What it adds to the predicted loss.
        costs: What it takes of each resource.
    """

    name: str
    loss: float
    costs: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Group:
    """Layers that share one decision. Of options equal in everything, the first is taken."""

    name: str
    options: tuple[Option, ...]

    def option(self, name: str) -> Option:
        """The option of a name; ``KeyError`` where there is none."""
        for option in self.options:
            if option.name == name:
                return option
        raise KeyError(name)


@dataclass(frozen=True)
class Pair:
    """An additional loss of two groups when both options are chosen together; combinations not named add nothing."""

    first: str
    second: str
    losses: Mapping[tuple[str, str], float]


@dataclass(frozen=True)
class Problem:
    """Choose one option per group: least loss within every budget.

    Attributes:
        groups: At least one.
        budgets: Most that a plan may take, per resource. Resources without a budget are added up, nothing more.
        fixed: What is taken of a resource whatever the plan; counts against the budget.
        pairs: Losses of two decisions together, added to those of each.

    Raises:
        UsageError: A number is not finite, a name is unknown or used twice, or something is empty.
    """

    groups: tuple[Group, ...]
    budgets: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    fixed: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    pairs: tuple[Pair, ...] = ()

    def __post_init__(self) -> None:
        if not self.groups:
            raise UsageError("nothing to decide: the problem has no groups")
        _unique((group.name for group in self.groups), "group", None)
        for group in self.groups:
            self._check_group(group)
        for kind, amounts in (("budget", self.budgets), ("fixed cost", self.fixed)):
            for name, amount in amounts.items():
                if name not in self.resources:
                    known = ", ".join(self.resources) or "none"
                    raise UsageError(f"{kind} of the unknown resource '{name}'", hint=f"options are priced in: {known}")
                _finite(amount, f"{kind} of '{name}'", None)
        options = {group.name: {option.name for option in group.options} for group in self.groups}
        for pair in self.pairs:
            _check_pair(pair, options)

    @property
    def resources(self) -> tuple[str, ...]:
        """Names of what options take, in the order of the first option."""
        return tuple(self.groups[0].options[0].costs)

    def _check_group(self, group: Group) -> None:
        where = f"group '{group.name}'"
        if not group.options:
            raise UsageError("a group without options cannot be decided", where=where)
        _unique((option.name for option in group.options), "option", where)
        for option in group.options:
            _finite(option.loss, f"loss of option '{option.name}'", where)
            if set(option.costs) != set(self.resources):
                odd = ", ".join(sorted(set(option.costs) ^ set(self.resources)))
                raise UsageError(f"option '{option.name}' and the first option differ in resources: {odd}", where=where)
            for name, amount in option.costs.items():
                _finite(amount, f"{name} of option '{option.name}'", where)
                if 0 < abs(amount) < NEGLIGIBLE:
                    raise UsageError(f"{name} of option '{option.name}' is {amount}: too near to zero", where=where)

    def loss(self, choice: Mapping[str, str]) -> float:
        """Predicted loss of a plan: the correctly rounded sum, so that the order of terms does not matter."""
        own = (group.option(choice[group.name]).loss for group in self.groups)
        joint = (pair.losses.get((choice[pair.first], choice[pair.second]), 0.0) for pair in self.pairs)
        return math.fsum(chain(own, joint))

    def costs(self, choice: Mapping[str, str]) -> dict[str, float]:
        """What a plan takes of each resource, fixed amounts included: correctly rounded sums."""
        taken = [group.option(choice[group.name]).costs for group in self.groups]
        return {
            name: math.fsum(chain((self.fixed.get(name, 0.0),), (costs[name] for costs in taken)))
            for name in self.resources
        }

    def keeps(self, choice: Mapping[str, str]) -> bool:
        """Whether a plan stays within every budget, without any tolerance."""
        costs = self.costs(choice)
        return all(costs[name] <= budget for name, budget in self.budgets.items())


@dataclass(frozen=True)
class Solution:
    """A plan within all budgets.

    Attributes:
        choice: Option by group.
        loss: Predicted loss (``Problem.loss``).
        costs: By resource, fixed amounts included (``Problem.costs``).
        bound: No plan within the budgets has less loss than this: the relaxed optimum, or the loss itself where the
            relaxation is tight.
        gap: ``loss - bound``, in units of the loss.
        solver: What found the plan.
        proof: What shows that no plan is better: ``enumeration`` (all plans within the gap were looked through in
            float64), ``bound`` (the gap is no more than rounding), ``solver`` (its word) or ``none`` (it ran out of
            time, or its plan was over a budget by its tolerance: ``gap`` says how much better another may be).
        seconds: Time taken.
    """

    choice: Mapping[str, str]
    loss: float
    costs: Mapping[str, float]
    bound: float
    gap: float
    solver: str
    proof: str
    seconds: float


def _check_pair(pair: Pair, options: Mapping[str, set[str]]) -> None:
    where = f"pair '{pair.first}', '{pair.second}'"
    if pair.first == pair.second or pair.first not in options or pair.second not in options:
        raise UsageError("a pair joins two different groups of the problem", where=where)
    for (one, other), loss in pair.losses.items():
        if one not in options[pair.first] or other not in options[pair.second]:
            raise UsageError(f"no such options: '{one}', '{other}'", where=where)
        _finite(loss, f"loss of '{one}' with '{other}'", where)


def _finite(number: float, what: str, where: str | None) -> None:
    if not abs(number) <= _LARGEST:
        raise UsageError(f"{what} is {number}, not a finite number of at most {_LARGEST:g}", where=where)


def _unique(names: Iterable[str], kind: str, where: str | None) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UsageError(f"the {kind} '{name}' is there twice", where=where)
        seen.add(name)
