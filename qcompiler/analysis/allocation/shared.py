"""Costs that are paid once, by any option that needs them: plans with and plans without them.

Let a *shared cost* be an amount that a plan pays if it takes any option of a set. A plan that pays nothing of some
shared costs takes no option of their sets; among those plans, what is left is a plain problem: options of the sets left
out, fixed costs lowered by the amounts. Every plan is in the problem of exactly what it does without, with its true
costs, and in others with costs too high. The best of the problems is therefore the best plan. Shared costs needed by
the same options count as one, and leaving out what implies a further shared cost is no problem of its own.

Beyond 2^5 problems there is one, with a group of two options ("paid", "spared") per shared cost and a resource
``Σ_{o ∈ S} x_o − |S| y_paid ≤ 0``, which lets options of S only be taken where it is paid.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from qcompiler.analysis.allocation.problem import Group, Option, OutOfTimeError, Pair, Problem, Solution
from qcompiler.analysis.allocation.solve import SECONDS, attempt
from qcompiler.analysis.group_costs import SharedCost

__all__ = ["MOST_PROBLEMS", "best", "least_loss", "plain_problems", "true_costs"]

MOST_PROBLEMS: Final = 32
"""Plain problems that are solved one by one at most."""

_LEAST_SECONDS: Final = 1.0
"""Time that each plain problem has, however long others took."""

_PROOFS: Final = ("enumeration", "bound", "solver", "none")
"""From the best to none."""

_Key: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Switch:
    """What is paid, by resource, if any of the options is taken."""

    options: frozenset[_Key]
    amounts: Mapping[str, float]


def true_costs(problem: Problem, shared: Sequence[SharedCost], choice: Mapping[str, str]) -> dict[str, float]:
    """What a plan takes by resource, without the shared costs that it does not need.

    Args:
        problem: ``fixed`` holds all shared costs.
        shared: Not negative.
        choice: Option by group.
    """
    costs, chosen = problem.costs(choice), set(choice.items())
    for item in shared:
        if item.resource in costs and not item.options & chosen:
            costs[item.resource] -= item.amount
    return costs


def best(
    problem: Problem, shared: Sequence[SharedCost], *, solver: str | None = None, seconds: float = SECONDS
) -> Solution | None:
    """The plan of least loss whose true costs keep the budgets, ``None`` where there is none.

    Its ``bound`` is of all plans that keep the budgets; its ``proof`` is the weakest of those that were needed.

    Args:
        problem: ``fixed`` holds all shared costs.
        shared: Not negative.
        solver: As for ``solve``.
        seconds: Time for all plain problems together.

    Raises:
        OutOfTimeError: The time ran out before any plan was found.
    """
    deadline = time.monotonic() + seconds
    known: Solution | None = None
    late: OutOfTimeError | None = None
    bound, proofs = math.inf, set()
    for case in sorted(plain_problems(problem, shared), key=least_loss):
        if known is not None and least_loss(case) >= known.loss:
            break
        try:
            found = attempt(case, solver=solver, seconds=max(deadline - time.monotonic(), _LEAST_SECONDS))
        except OutOfTimeError as error:
            late, found, bound = error, None, min(bound, least_loss(case))
            proofs.add("none")
        if found is not None:
            known = found if known is None or found.loss < known.loss else known
            bound = min(bound, found.bound)
            proofs.add(found.proof)
    if known is None:
        if late is not None:
            raise late
        return None
    return _of_all(problem, shared, known, min(bound, known.loss), max(proofs, key=_PROOFS.index))


def _of_all(problem: Problem, shared: Sequence[SharedCost], found: Solution, bound: float, proof: str) -> Solution:
    """The plan of a plain problem as one of the problem with shared costs."""
    choice = {group.name: found.choice[group.name] for group in problem.groups}
    costs = true_costs(problem, shared, choice)
    return replace(found, choice=choice, costs=costs, bound=bound, gap=found.loss - bound, proof=proof)


def plain_problems(problem: Problem, shared: Sequence[SharedCost]) -> list[Problem]:
    """Problems without shared costs that together have the plans of one with them; they may have further groups.

    Arguments as for ``true_costs``.
    """
    base, switches = _switches(problem, shared)
    cases = list(itertools.islice(_spared(switches), MOST_PROBLEMS + 1))
    if len(cases) > MOST_PROBLEMS:
        return [_linked(base, switches)]
    without = (_without(base, [switches[index] for index in case]) for case in cases)
    return [case for case in without if case is not None]


def _switches(problem: Problem, shared: Sequence[SharedCost]) -> tuple[Problem, list[_Switch]]:
    """Shared costs that some plans pay and some do not; the problem without those that none pays."""
    offered = {(group.name, option.name) for group in problem.groups for option in group.options}
    amounts: dict[frozenset[_Key], dict[str, float]] = {}
    for item in shared:
        if item.resource in problem.resources and item.amount:
            own = amounts.setdefault(item.options & offered, {})
            own[item.resource] = own.get(item.resource, 0.0) + item.amount
    base = replace(problem, fixed=_lowered(problem, [amounts.pop(frozenset(), {})]))
    switches = [_Switch(options, own) for options, own in amounts.items()]
    return base, [switch for switch in switches if _without(base, [switch]) is not None]


def _lowered(problem: Problem, amounts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    fixed = dict(problem.fixed)
    for own in amounts:
        for resource, amount in own.items():
            fixed[resource] = fixed.get(resource, 0.0) - amount
    return fixed


def _spared(switches: Sequence[_Switch]) -> Iterator[frozenset[int]]:
    """Sets of switches that plans may do without, none that implies a further one."""
    count = len(switches)
    for case in itertools.chain.from_iterable(itertools.combinations(range(count), size) for size in range(count + 1)):
        out = frozenset[_Key]().union(*(switches[index].options for index in case))
        if all(index in case or not switches[index].options <= out for index in range(count)):
            yield frozenset(case)


def _without(problem: Problem, spared: Sequence[_Switch]) -> Problem | None:
    """The problem of plans that pay nothing of some switches; ``None`` where a group has no option left."""
    out = frozenset[_Key]().union(*(switch.options for switch in spared))
    groups = tuple(
        Group(group.name, tuple(option for option in group.options if (group.name, option.name) not in out))
        for group in problem.groups
    )
    if not all(group.options for group in groups):
        return None
    pairs = tuple(_pair_without(pair, out) for pair in problem.pairs)
    fixed = _lowered(problem, [switch.amounts for switch in spared])
    return replace(problem, groups=groups, fixed=fixed, pairs=pairs)


def _pair_without(pair: Pair, out: frozenset[_Key]) -> Pair:
    kept = {
        (one, other): loss
        for (one, other), loss in pair.losses.items()
        if (pair.first, one) not in out and (pair.second, other) not in out
    }
    return replace(pair, losses=kept)


def _linked(problem: Problem, switches: Sequence[_Switch]) -> Problem:
    """One problem that pays for every switch or spares it (see above)."""
    links = [f"(link {index})" for index in range(len(switches))]
    none = dict.fromkeys((*problem.resources, *links), 0.0)
    groups = []
    for group in problem.groups:
        options = []
        for option in group.options:
            taken = (switch.options for switch in switches)
            link = {name: float((group.name, option.name) in own) for name, own in zip(links, taken, strict=True)}
            options.append(replace(option, costs={**option.costs, **link}))
        groups.append(replace(group, options=tuple(options)))
    for name, switch in zip(links, switches, strict=True):
        paid = {**none, **switch.amounts, name: -float(len(switch.options))}
        groups.append(Group(name, (Option("spared", 0.0, none), Option("paid", 0.0, paid))))
    budgets = {**problem.budgets, **dict.fromkeys(links, 0.0)}
    fixed = _lowered(problem, [switch.amounts for switch in switches])
    return replace(problem, groups=tuple(groups), budgets=budgets, fixed=fixed)


def least_loss(problem: Problem) -> float:
    """A bound on the loss of every plan, whatever the budgets."""
    own = (min(option.loss for option in group.options) for group in problem.groups)
    return math.fsum((*own, *(min(0.0, *pair.losses.values()) if pair.losses else 0.0 for pair in problem.pairs)))
