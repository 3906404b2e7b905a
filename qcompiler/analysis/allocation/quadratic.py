"""Losses of two decisions together: a quadratic program, linearised.

The loss ``Σ loss_go x_go + Σ_pairs Σ_op q_op x_go x_hp`` has products of binaries. Each is replaced by a variable
y_op ≥ 0 tied to both sides::

    Σ_p y_op = x_go  for every option o of g,      Σ_o y_op = x_hp  for every option p of h

With x binary, one x_go and one x_hp are one, all other rows and columns of y are zero, and y_op = x_go x_hp follows,
whatever the sign of q. With x relaxed, this is the convex hull of one pair's products (Adams and Sherali 1986), tighter
than the three inequalities per product that are often used.

The program is scaled: losses less the least of their group in units of the largest, rows as in ``solve``. The start is
the best plan of the single losses, improved by exchanges with the joint ones; whatever the solver answers is compared
with it in exactly rounded sums. Nothing here looks through all plans: a proof is the solver's word.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from qcompiler.analysis.allocation.backend import Backend, Program, Terms
from qcompiler.analysis.allocation.problem import Problem
from qcompiler.analysis.allocation.table import Floats, Found, Integers, Table

__all__ = ["minimum_of_pairs"]

_UNIT: Final = 1e3
"""Size of the largest coefficients given to a solver."""

_TIGHTER: Final = 1e-6
"""Share of a row's width by which its limit is lowered when a solver's tolerance let a plan over it."""

_INEXACT: Final = 1e-8
"""Share of all losses by which the value of the relaxed program is lowered: it comes from tolerances, too."""


@dataclass(frozen=True, eq=False)
class _Joint:
    """The losses of a pair: ``losses[o, p]`` when rows ``first[o]`` and ``second[p]`` of the table are chosen."""

    first: Integers
    second: Integers
    losses: Floats


@dataclass(frozen=True, eq=False)
class _Pairs:
    """A table with joint losses."""

    table: Table
    joints: list[_Joint]

    @classmethod
    def of(cls, problem: Problem, table: Table) -> _Pairs:
        number = {group.name: g for g, group in enumerate(problem.groups)}
        joints = []
        for pair in problem.pairs:
            one, other = number[pair.first], number[pair.second]
            first, second = table.groups[one], table.groups[other]
            names = [[problem.groups[g].options[o].name for o in table.option[table.groups[g]]] for g in (one, other)]
            losses = [[pair.losses.get((a, b), 0.0) for b in names[1]] for a in names[0]]
            joints.append(_Joint(first, second, np.array(losses, np.float64)))
        return cls(table, joints)

    def loss(self, rows: Integers) -> float:
        """Loss of a plan, correctly rounded."""
        place = self.table.place
        joint = (
            each.losses[rows[place[each.first[0]]] - each.first[0], rows[place[each.second[0]]] - each.second[0]]
            for each in self.joints
        )
        return math.fsum((*self.table.loss[rows], *joint))

    def beside(self, rows: Integers) -> Floats:
        """Loss of each option, its own and that with the options chosen elsewhere."""
        values = self.table.loss.copy()
        place = self.table.place
        for each in self.joints:
            values[each.first] += each.losses[:, rows[place[each.second[0]]] - each.second[0]]
            values[each.second] += each.losses[rows[place[each.first[0]]] - each.first[0]]
        return values

    def climbed(self, rows: Integers) -> Integers:
        """A plan made better until no exchange of one option saves loss within the budgets."""
        rows, table = rows.copy(), self.table
        loss = self.loss(rows)
        while True:
            values = self.beside(rows)
            gain = values[rows[table.place]] - values
            for best in np.argsort(-gain, kind="stable"):
                if gain[best] <= 0:
                    return rows
                before = rows[table.place[best]]
                rows[table.place[best]] = best
                if table.keeps(rows) and self.loss(rows) < loss:
                    loss = self.loss(rows)
                    break
                rows[table.place[best]] = before
            else:
                return rows


def minimum_of_pairs(problem: Problem, known: Found, backend: Backend) -> Found:
    """The least loss of a problem with pairs.

    Args:
        problem: With pairs; a plan within its budgets exists.
        known: One such plan.
        backend: The solver.
    """
    table = Table.of(problem).fitting()
    pairs = _Pairs.of(problem, table)
    plan = np.flatnonzero(np.isin(_keys(table), _keys(known.table)[known.rows])).astype(np.intp)
    best, proof = pairs.climbed(plan), "none"
    program, offset, unit = _program(pairs, 0.0)
    relaxed = backend.relaxed(program)
    for tightening in (0.0, _TIGHTER):
        values, optimal = backend.solved(program if not tightening else _program(pairs, tightening)[0])
        if values is None:
            break
        rows = table.first_least(-values[: len(table.group)])
        if table.keeps(rows):
            rows = pairs.climbed(rows)
            best = rows if pairs.loss(rows) <= pairs.loss(best) else best
            proof = "solver" if optimal and not tightening else "none"
            break
    inexact = _INEXACT * unit * _UNIT * (len(table.starts) + len(pairs.joints))
    bound = -np.inf if relaxed is None else offset + relaxed.value * unit - inexact
    return Found(table, best, min(bound, pairs.loss(best)), proof)


def _keys(table: Table) -> Integers:
    """A number for each (group, option)."""
    return table.group * (1 << 20) + table.option


def _program(pairs: _Pairs, tightening: float) -> tuple[Program, float, float]:
    """The linearised program; its objective is (loss - offset) / unit."""
    table = pairs.table
    least = np.minimum.reduceat(table.loss, table.starts)
    lowest = [float(each.losses.min()) for each in pairs.joints]
    products = [each.losses - low for each, low in zip(pairs.joints, lowest, strict=True)]
    objective = np.r_[table.loss - least[table.place], *(part.ravel() for part in products)]
    unit = float(objective.max()) / _UNIT or 1.0
    shifted = table.cost - table.least_cost[table.place]
    row = np.where(shifted.max(axis=0) > 0, shifted.max(axis=0), 1.0) / _UNIT
    chosen = Program.choice(table, table.loss, shifted / row, table.margin / row - tightening * _UNIT)
    equal = chosen.equal + _ties(pairs, len(table.group))
    return Program(objective / unit, len(table.group), equal, chosen.most), math.fsum((*least, *lowest)), unit


def _ties(pairs: _Pairs, column: int) -> list[tuple[Terms, float]]:
    """Rows that tie the products to both sides; products are columns from ``column`` on, row by row."""
    ties: list[tuple[Terms, float]] = []
    for each in pairs.joints:
        products = column + np.arange(each.losses.size).reshape(each.losses.shape)
        sides = [*zip(each.first, products, strict=True), *zip(each.second, products.T, strict=True)]
        ties.extend(((np.r_[own, tied], np.r_[-1.0, np.ones(len(tied))]), 0.0) for own, tied in sides)
        column += each.losses.size
    return ties
