"""Relaxed optima: no plan within the budgets has less loss.

Lagrangian. Let λ ≥ 0 price the resources. For every plan *x* within the budgets ``cost(x) ≤ room``::

    loss(x) ≥ loss(x) + λ·(cost(x) − room) ≥ Σ_g min_o (loss_go + λ·cost_go) − λ·room = L(λ)

The sum falls apart into groups, each a minimum over its options: a closed form for given λ. The largest L(λ) is the
value of the linear relaxation (the minimum over a group's options is that over their convex hull).

One resource. Only options on the lower convex hull of a group's points (cost, loss) matter. Start from the cheapest
plan and follow the edges of all hulls in the order of their steepness, loss saved per cost; the edge at which the room
is used up gives the best λ, its steepness (Dantzig's rule for the multiple-choice knapsack; Sinha and Zoltners 1979).

Several resources. λ are the dual values of the linear relaxation, computed by a simplex method; since L(λ) is a bound
for *any* λ ≥ 0, its inexactness costs tightness, not truth. The best of these and of each resource's own λ is taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from qcompiler.analysis.allocation.backend import Backend, Program
from qcompiler.analysis.allocation.table import Floats, Table

__all__ = ["Relaxation", "relaxation"]


@dataclass(frozen=True, eq=False)
class Relaxation:
    """A relaxed optimum of a table.

    Attributes:
        prices: λ, ``[resources]``, loss per unit.
        bound: L(λ), less what rounding can add: never above the loss of a plan within the budgets.
        rounding: By how much the bound was lowered.
        excess: ``[rows]``, ≥ 0: loss_go + λ·cost_go less the least of the group. For every plan
            ``loss = L + Σ excess + λ·(room − cost)``.
    """

    prices: Floats
    bound: float
    rounding: float
    excess: Floats

    @classmethod
    def at(cls, table: Table, prices: Floats) -> Relaxation:
        """The Lagrangian bound of given prices."""
        values = table.loss + table.cost @ prices
        least = np.minimum.reduceat(values, table.starts)
        spent = prices * table.room
        magnitude = np.abs(values).max() * len(least) + np.abs(table.cost @ prices).max() * len(least)
        rounding = float(4 * np.finfo(float).eps * (magnitude + np.abs(spent).sum()))
        return cls(prices, math.fsum((*least, *-spent)) - rounding, rounding, values - least[table.place])


def relaxation(table: Table, backend: Backend) -> Relaxation:
    """The best relaxed optimum found: exact (up to rounding) for at most one resource."""
    resources = len(table.room)
    candidates = [np.zeros(resources)]
    for resource in range(resources):
        prices = np.zeros(resources)
        prices[resource] = steepness(table, resource)
        candidates.append(prices)
    if resources > 1:
        candidates.append(_dual_prices(table, backend))
    return max((Relaxation.at(table, prices) for prices in candidates), key=lambda each: each.bound)


def hull(cost: Floats, loss: Floats) -> list[int]:
    """Options on the lower left convex hull of points (cost, loss): from the cheapest to the one of least loss."""
    corners: list[int] = []
    for point in np.lexsort((loss, cost)):
        if corners and loss[point] >= loss[corners[-1]]:
            continue
        while len(corners) > 1 and _above(cost, loss, corners[-2], corners[-1], int(point)):
            corners.pop()
        corners.append(int(point))
    return corners


def _above(cost: Floats, loss: Floats, left: int, middle: int, right: int) -> bool:
    """Whether ``middle`` lies on or above the line from ``left`` to ``right``."""
    first = (loss[left] - loss[middle]) / (cost[middle] - cost[left])
    return bool(first <= (loss[left] - loss[right]) / (cost[right] - cost[left]))


def edges(table: Table, resource: int) -> tuple[Floats, Floats]:
    """Steepness and width of every edge of all hulls, steepest first."""
    steep: list[float] = []
    width: list[float] = []
    cost = table.cost[:, resource]
    for rows in table.groups:
        corners = rows[hull(cost[rows], table.loss[rows])]
        runs = np.diff(cost[corners])
        width.extend(runs)
        steep.extend(-np.diff(table.loss[corners]) / runs)
    order = np.argsort(-np.array(steep), kind="stable")
    return np.array(steep)[order], np.array(width)[order]


def steepness(table: Table, resource: int) -> float:
    """The best price of one resource when the others are free; 0 where there is room for the least loss."""
    steep, width = edges(table, resource)
    over = np.flatnonzero(np.cumsum(width) > table.margin[resource])
    return float(steep[over[0]]) if len(over) else 0.0


def _dual_prices(table: Table, backend: Backend) -> Floats:
    """Dual values of the budgets in the linear relaxation; zeros where the solver finds none."""
    spread = np.maximum.reduceat(table.loss, table.starts) - np.minimum.reduceat(table.loss, table.starts)
    unit = float(spread.max()) or 1.0
    shifted = table.cost - table.least_cost[table.place]
    widest = shifted.max(axis=0)
    scale = np.where(widest > 0, widest, 1.0)
    program = Program.choice(table, table.loss / unit, shifted / scale, table.margin / scale)
    outcome = backend.relaxed(program)
    return np.zeros(len(scale)) if outcome is None else np.maximum(-outcome.duals * unit / scale, 0.0)
