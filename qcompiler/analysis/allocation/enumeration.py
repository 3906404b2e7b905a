"""Looks through every plan that could still be better: exact in float64, whatever a solver's tolerances are.

With prices λ and the excess e ≥ 0 of every option over the least of its group (``Relaxation``), each plan's loss is
``L + Σ e + λ·(room − cost)``. A plan no worse than one of loss U therefore has ``Σ e + λ·(room − cost) ≤ U − L``: the
gap. The gap of an optimal plan is small, few options have an excess below it and few of these combine. Groups are added
one by one to a list of partial plans; a partial plan goes

* when its excess, with the least it will pay for unused room, exceeds the gap;
* when even the cheapest remaining options take it over a budget;
* when another partial plan of the same groups has no more loss and takes no more of any resource.

For one resource this is Nemhauser and Ullmann's list (1969) with Lagrangian bounds, on the core that reduced costs
leave.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from qcompiler.analysis.allocation.bounds import Relaxation
from qcompiler.analysis.allocation.table import Floats, Integers, Table

__all__ = ["TooManyPlansError", "best_within"]

_MOST: Final = 60_000
"""Partial plans kept at most."""

_PIVOTS: Final = 16
"""Partial plans that all others are compared with, where there are several resources."""


class TooManyPlansError(Exception):
    """More partial plans than are worth looking through."""


@dataclass(frozen=True, eq=False)
class _Partial:
    """Partial plans, each by its last option: ``[n]``.

    Attributes:
        excess: Sum of excesses.
        used: ``[n, resources]``, beyond the cheapest options.
        parent: Which partial plan of one group less it extends.
        row: Row of the option it adds.
    """

    excess: Floats
    used: Floats
    parent: Integers
    row: Integers

    def taken(self, keep: NDArray[np.bool_] | Integers) -> _Partial:
        return _Partial(self.excess[keep], self.used[keep], self.parent[keep], self.row[keep])


def best_within(table: Table, relaxed: Relaxation, gap: float) -> Integers | None:
    """The plan of least loss among those within the budgets whose loss exceeds the bound by at most ``gap``.

    Ties go to the plan that takes less (the resources weighted by λ), then to options that come first.

    Raises:
        TooManyPlansError: There are too many to look through.
    """
    priced = relaxed.prices > 0
    if priced.any() and not priced.all():  # a budget without a price seldom binds: look without it first
        rows = _best_within(table.only(priced), replace(relaxed, prices=relaxed.prices[priced]), gap)
        if rows is None or table.keeps(rows):
            return rows
    return _best_within(table, relaxed, gap)


def _best_within(table: Table, relaxed: Relaxation, gap: float) -> Integers | None:
    near = np.flatnonzero(relaxed.excess <= gap)
    small = table.kept(relaxed.excess <= gap)
    excess, shifted = relaxed.excess[near], small.cost - small.least_cost[small.place]
    rounding = 1e-13 * (np.abs(table.budget) + np.abs(table.fixed) + np.abs(small.cost).sum(axis=0))
    forced = np.array([rows[0] for rows in small.groups if len(rows) == 1], np.intp)
    free = [rows for rows in small.groups if len(rows) > 1]
    free.sort(key=lambda rows: -float((shifted[rows] @ relaxed.prices).max()))
    most = np.array([shifted[rows].max(axis=0) for rows in free]).reshape(len(free), shifted.shape[1])
    later = np.vstack((np.cumsum(most[::-1], axis=0)[::-1], np.zeros((1, shifted.shape[1]))))[1:]
    none = np.zeros(1, np.intp)
    partial = _Partial(np.array([excess[forced].sum()]), np.zeros((1, shifted.shape[1])), none, none)
    history: list[_Partial] = []
    for rows, rest in zip(free, later, strict=True):
        partial = _extended(partial, rows, excess[rows], shifted[rows])
        unused = np.maximum(small.margin - partial.used - rest - rounding, 0.0) @ relaxed.prices
        fits = (partial.used <= small.margin + rounding).all(axis=1)
        partial = _undominated(partial.taken(fits & (partial.excess + unused <= gap)), relaxed.prices)
        if len(partial.excess) > _MOST:
            raise TooManyPlansError
        history.append(partial)
    return _best(small, near, forced, history, relaxed.prices)


def _extended(partial: _Partial, rows: Integers, excess: Floats, used: Floats) -> _Partial:
    """Every partial plan with every option of a further group."""
    count, options = len(partial.excess), len(rows)
    return _Partial(
        np.add.outer(partial.excess, excess).ravel(),
        (partial.used[:, None] + used[None]).reshape(count * options, used.shape[1]),
        np.repeat(np.arange(count), options),
        np.tile(rows, count),
    )


def _undominated(partial: _Partial, prices: Floats) -> _Partial:
    """Without partial plans that another equals or betters in loss and every resource.

    For one resource without all of these. For several only those that one of a few good plans betters are found.
    """
    loss = partial.excess - partial.used @ prices
    if partial.used.shape[1] == 1:
        order = np.lexsort((loss, partial.used[:, 0]))
        loss = loss[order]
        least = np.minimum.accumulate(np.r_[np.inf, loss])[:-1]
        return partial.taken(order[loss < least])
    order = np.argsort(partial.excess, kind="stable")
    partial, loss = partial.taken(order), loss[order]
    position = 0
    while position < min(_PIVOTS, len(loss)):
        worse = (loss >= loss[position]) & (partial.used >= partial.used[position]).all(axis=1)
        worse[position] = False
        partial, loss = partial.taken(~worse), loss[~worse]
        position += 1 - int(worse[:position].sum())
    return partial


def _plans(history: list[_Partial], forced: Integers) -> Integers:
    """``[plans, groups]``: rows of the plans at the end of the history."""
    count = len(history[-1].row) if history else 1
    which = np.arange(count)
    columns = [np.broadcast_to(row, count) for row in forced]
    for partial in reversed(history):
        columns.append(partial.row[which])
        which = partial.parent[which]
    return np.sort(np.column_stack(columns), axis=1)


def _best(small: Table, near: Integers, forced: Integers, history: list[_Partial], prices: Floats) -> Integers | None:
    """The first in order of loss, cost and options that keeps the budgets in exactly rounded arithmetic."""
    plans = _plans(history, forced)
    losses = small.loss[plans].sum(axis=1)
    close = 1e-12 * float(np.abs(small.loss).max() * len(small.starts))
    best: tuple[float, float, list[int]] | None = None
    limit = np.inf
    for index in np.argsort(losses, kind="stable"):
        if losses[index] > limit:
            break
        rows = plans[index]
        if small.keeps(rows):
            limit = min(limit, losses[index] + close)
            key = (small.total_loss(rows), float(small.used(rows) @ prices), near[rows].tolist())
            best = key if best is None else min(best, key)
    return None if best is None else np.array(best[2], np.intp)
