"""The exact solver: least loss within budgets, least cost at a loss.

The integer program has one binary per (group, option)::

    minimise  Σ loss_go x_go    with  Σ_o x_go = 1 for every group g,  Σ cost_gor x_go ≤ room_r for every resource r

Solvers compare with absolute tolerances (CBC: 1e-7 of a row, 1e-5 of the objective), so that a program in small
numbers, such as losses of 1e-6, is answered wrongly and called optimal. What a solver is given is therefore made of
numbers of order one that carry only what is undecided:

1. options that fit no plan, and those dominated within their group, are left out;
2. a relaxed optimum gives prices λ, a bound L and each option's excess e (``bounds``), a greedy plan a loss U. Options
   with ``e > U − L`` are in no plan better than U: left out;
3. the rest is minimised as ``Σ e x + λ·s`` with slacks ``s = room − cost``, which is the loss less L, in units of the
   gap U − L, each row less the cheapest options and in units of its largest coefficient;
4. what comes back is not believed: its options are rounded, the budgets compared in exactly rounded sums, single
   exchanges tried, and all plans that the gap leaves are looked through (``enumeration``). That finds what a solver
   missed by its tolerances; where there are too many to look through, ``Solution.proof`` says that it is the solver's
   word, or that there is none.
"""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import replace
from typing import Final

import numpy as np

from qcompiler.analysis.allocation.backend import Backend, Program
from qcompiler.analysis.allocation.bounds import Relaxation, relaxation
from qcompiler.analysis.allocation.enumeration import TooManyPlansError, best_within
from qcompiler.analysis.allocation.greedy import climb, start, weights
from qcompiler.analysis.allocation.problem import InfeasibleError, OutOfTimeError, Problem, Solution
from qcompiler.analysis.allocation.quadratic import minimum_of_pairs
from qcompiler.analysis.allocation.table import Floats, Found, Integers, Table
from qcompiler.errors import UsageError

__all__ = ["SECONDS", "attempt", "least_cost", "solve"]

SECONDS: Final = 60.0
"""Time a solver has unless told otherwise: a few problems, such as many layers that save the same loss per byte, would
take it for ever to prove a plan that it found at once."""


_UNIT: Final = 1e3
"""Size of the largest coefficients given to a solver: far above its tolerances, far below where they lose digits."""

_TIGHTER: Final = 1e-6
"""Share of a row's width by which its limit is lowered when a solver's tolerance let a plan over it."""

_RAISED: Final = (1 + 1e-9, 1.001, 1.003, 1.01, 1.03, 1.1, 1.3)
"""Factors on the prices at which the options of least priced loss are tried as a plan."""


def solve(problem: Problem, *, solver: str | None = None, seconds: float | None = SECONDS) -> Solution:
    """The plan of least loss within all budgets.

    Args:
        problem: What to decide. One with pairs is solved without them first, which gives a start (``quadratic``).
        solver: ``cbc`` or ``highs``; ``None`` for CBC, or HiGHS where CBC is not there.
        seconds: Time after which the solver stops and the best plan found is returned, its ``proof`` perhaps ``none``;
            ``None`` without limit.

    Raises:
        InfeasibleError: No plan is within the budgets.
        OutOfTimeError: The time ran out before any plan was found.
        UsageError: The solver is unknown or not installed.
    """
    plan = attempt(problem, solver=solver, seconds=seconds)
    if plan is None:
        least = _least(Table.of(problem), tuple(problem.budgets), Backend.of(solver, seconds))
        raise InfeasibleError(problem.budgets, least)
    return plan


def attempt(problem: Problem, *, solver: str | None = None, seconds: float | None = SECONDS) -> Solution | None:
    """As ``solve``; ``None`` where no plan is within the budgets, without looking for the least of each resource."""
    begin = time.monotonic()
    backend = Backend.of(solver, seconds)
    found = minimum(Table.of(problem), backend)
    if found is None:
        return None
    if problem.pairs:
        found = minimum_of_pairs(problem, found, backend)
    return _solution(problem, found, backend, begin, None)


def least_cost(
    problem: Problem, resource: str, loss: float, *, solver: str | None = None, seconds: float | None = SECONDS
) -> Solution:
    """The plan that takes least of a resource at a predicted loss of at most ``loss``, within the other budgets.

    ``bound`` and ``gap`` of the solution are in units of the resource. Arguments and errors as for ``solve``; pairs are
    refused, because their losses do not add up group by group.
    """
    begin = time.monotonic()
    if problem.pairs:
        raise UsageError("least cost at a loss is not available with pairs", hint="bisect over the budget")
    if resource not in problem.resources:
        raise UsageError(
            f"unknown resource '{resource}'", hint=f"options are priced in: {', '.join(problem.resources)}"
        )
    if not np.isfinite(loss):
        raise UsageError(f"bound on the loss is {loss}, not a finite number")
    backend = Backend.of(solver, seconds)
    others = {name: budget for name, budget in problem.budgets.items() if name != resource}
    table = Table.of(replace(problem, budgets={resource: 0.0, **others}))
    swapped = replace(
        table,
        loss=table.cost[:, 0],
        cost=np.column_stack((table.loss, table.cost[:, 1:])),
        fixed=np.r_[0.0, table.fixed[1:]],
        budget=np.r_[loss, table.budget[1:]],
    )
    found = minimum(swapped, backend)
    if found is None:
        raise InfeasibleError({"loss": loss, **others}, _least(swapped, ("loss", *others), backend))
    return _solution(problem, found, backend, begin, resource)


def minimum(table: Table, backend: Backend) -> Found | None:
    """The least loss of a table within its budgets, ``None`` where no plan keeps them.

    Raises:
        OutOfTimeError: The time ran out before a plan was found.
    """
    if (table.least_used > table.budget).any():
        return None
    small = table.fitting().undominated()
    if (small.least_used > small.budget).any():  # what is cheap in one resource was dear in another
        return None
    relaxed = relaxation(small, backend)
    weight = relaxed.prices if relaxed.prices.any() else weights(small)
    known = _first(small, relaxed)
    plan, proof = _integer(small, relaxed, known, backend)
    known = _lesser(small, known, plan if plan is None else climb(small, plan, weight))
    gap = np.inf if known is None else small.total_loss(known) - relaxed.bound
    with contextlib.suppress(TooManyPlansError):
        known, proof = _lesser(small, known, best_within(small, relaxed, gap)), "enumeration"
    if known is not None:
        return Found(small, known, min(relaxed.bound, small.total_loss(known)), proof)
    if proof == "none":
        raise OutOfTimeError
    return None


def _first(table: Table, relaxed: Relaxation) -> Integers | None:
    """A good plan: the options of least priced loss, at prices raised until they fit, or the greedy plan."""
    weight = relaxed.prices if relaxed.prices.any() else weights(table)
    for factor in _RAISED:
        rows = table.first_least(table.loss + factor * (table.cost @ relaxed.prices))
        if table.keeps(rows):
            return climb(table, rows, weight)
    cheap = start(table, weights(table))
    return None if cheap is None else climb(table, cheap, weight)


def _lesser(table: Table, known: Integers | None, plan: Integers | None) -> Integers | None:
    """The plan of less loss; the new one where both have the same."""
    if known is None or plan is None:
        return plan if known is None else known
    return plan if table.total_loss(plan) <= table.total_loss(known) else known


def _integer(
    table: Table, relaxed: Relaxation, known: Integers | None, backend: Backend
) -> tuple[Integers | None, str]:
    """A plan by integer programming and what it proves; no plan where none is better than the known one."""
    gap = float(relaxed.excess.max()) if known is None else table.total_loss(known) - relaxed.bound
    near = np.flatnonzero(relaxed.excess <= gap)
    small = table.kept(relaxed.excess <= gap)
    if known is not None and gap <= 2 * relaxed.rounding:
        return None, "bound"
    if len(near) == len(small.starts) or gap <= 0:
        return None, "none" if known is None else "solver"
    for tightening in (0.0, _TIGHTER):
        values, optimal = backend.solved(_program(small, relaxed, relaxed.excess[near], gap, tightening))
        if values is None:
            return None, "solver" if optimal and not tightening else "none"
        rows = small.first_least(-values[: len(near)])
        if small.keeps(rows):
            return near[rows], "solver" if optimal and not tightening else "none"
    return None, "none"


def _program(small: Table, relaxed: Relaxation, excess: Floats, gap: float, tightening: float) -> Program:
    """The loss above the bound, in units of the gap, over the options left (step 3 above)."""
    shifted = small.cost - small.least_cost[small.place]
    widest = np.maximum.reduceat(shifted, small.starts)
    binding = np.flatnonzero(widest.sum(axis=0) > small.margin)
    unit = widest.max(axis=0)[binding] / _UNIT
    limit = small.margin[binding] / unit - tightening * _UNIT
    program = Program.choice(small, _UNIT * excess / gap, shifted[:, binding] / unit, limit)
    slacks = _UNIT * relaxed.prices[binding] * unit / gap
    equal, most, objective = list(program.equal), [], list(program.objective)
    for (terms, value), price in zip(program.most, slacks, strict=True):
        if price > 0:
            columns, factors = terms
            equal.append(((np.r_[columns, len(objective)], np.r_[factors, 1.0]), value))
            objective.append(price)
        else:
            most.append((terms, value))
    return Program(np.array(objective), program.binary, equal, most)


def _least(table: Table, names: tuple[str, ...], backend: Backend) -> dict[str, float]:
    """The least of each resource: with the other budgets kept where that is possible, else by itself."""
    least = dict(zip(names, table.least_used.tolist(), strict=True))
    if len(names) < 2:
        return least
    for index, name in enumerate(names):
        rest = np.arange(len(names)) != index
        found = minimum(replace(table.only(rest), loss=table.cost[:, index]), backend)
        if found is not None:
            costs = found.table.loss[found.rows]
            least[name] = math.fsum((table.fixed[index], *costs))
    return least


def _solution(problem: Problem, found: Found, backend: Backend, begin: float, resource: str | None) -> Solution:
    choice = found.table.choice(problem.groups, found.rows)
    loss, costs = problem.loss(choice), problem.costs(choice)
    fixed = 0.0 if resource is None else problem.fixed.get(resource, 0.0)
    value = loss if resource is None else costs[resource]
    bound = min(found.bound + fixed, value)
    return Solution(choice, loss, costs, bound, value - bound, backend.name, found.proof, time.monotonic() - begin)
