"""Greedy plans: the best loss saved per cost first. A start for the exact solver, and what it is compared with."""

from __future__ import annotations

import time

import numpy as np

from qcompiler.analysis.allocation.problem import Problem, Solution
from qcompiler.analysis.allocation.table import Floats, Integers, Table

__all__ = ["climb", "greedy", "start", "weights"]


def weights(table: Table) -> Floats:
    """``[resources]``: what makes costs of several resources one number: shares of what the cheapest options leave."""
    widest = (table.cost - table.least_cost[table.place]).max(axis=0)
    return np.array(1.0 / np.where(table.margin > 0, table.margin, np.where(widest > 0, widest, 1.0)))


def start(table: Table, weight: Floats) -> Integers | None:
    """A plan within the budgets: the cheapest, repaired by single exchanges; ``None`` where these find none.

    Every exchange lowers what is over. Where that is no more than rounding, exchanges could go to and fro for ever, so
    there are at most as many as options.
    """
    rows = table.first_least(table.cost @ weight)
    for _ in range(len(table.group) + 1):
        over = np.maximum(table.used(rows) - table.budget, 0.0)
        if not over.any():
            return rows
        used = table.used(rows) - table.budget - table.cost[rows][table.place] + table.cost
        left = np.maximum(used, 0.0) @ weight
        best = int(left.argmin())
        if left[best] >= over @ weight:
            return None
        rows[table.place[best]] = best
    return None


def climb(table: Table, rows: Integers, weight: Floats) -> Integers:
    """A plan within the budgets made better until no exchange of one option saves loss within the budgets.

    The exchange that saves most loss per weighted cost comes first; those that cost nothing before all others.
    """
    rows = rows.copy()
    total = table.cost @ weight
    doubt = 1e-12 * (np.abs(table.budget) + np.abs(table.fixed) + np.abs(table.cost).max(axis=0) * len(rows))
    tried = np.zeros(len(table.group), bool)
    used = table.used(rows)
    while True:
        now = rows[table.place]
        gain = table.loss[now] - table.loss
        after = used + (table.cost - table.cost[now])
        fits = (gain > 0) & ~tried & (after <= table.budget + doubt).all(axis=1)
        if not fits.any():
            return rows
        extra = total - total[now]
        ratio = np.full(len(gain), -1.0)
        ratio[fits] = np.divide(gain[fits], extra[fits], out=np.full(int(fits.sum()), np.inf), where=extra[fits] > 0)
        best = int(ratio.argmax())
        place, before = table.place[best], now[best]
        rows[place] = best
        if (after[best] <= table.budget - doubt).all():
            used = after[best]
        elif table.keeps(rows):  # sums of floats in doubt: the exactly rounded ones decide
            used, tried = table.used(rows), np.zeros(len(tried), bool)
        else:
            rows[place], tried[best] = before, True


def greedy(problem: Problem) -> Solution | None:
    """The greedy plan of a problem without pairs; ``None`` where it finds none within the budgets.

    ``bound`` is minus infinity: a greedy plan proves nothing.
    """
    begin = time.monotonic()
    table = Table.of(problem)
    weight = weights(table)
    rows = start(table, weight)
    if rows is None:
        return None
    choice = table.choice(problem.groups, climb(table, rows, weight))
    return Solution(
        choice, problem.loss(choice), problem.costs(choice), -np.inf, np.inf, "greedy", "none", time.monotonic() - begin
    )
