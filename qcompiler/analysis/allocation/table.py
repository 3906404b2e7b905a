"""The options of all groups as flat arrays: what the algorithms work on.

Row *i* is an option: ``group[i]``, ``option[i]`` (its place among the group's options), ``loss[i]`` and ``cost[i, r]``
of every budgeted resource *r*. Rows of a group are adjacent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from qcompiler.analysis.allocation.problem import NEGLIGIBLE, Group, Problem

__all__ = ["Floats", "Found", "Integers", "Table"]

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Table:
    """Options as rows, some perhaps left out; every group has at least one.

    Attributes:
        group: ``[rows]``, ascending.
        option: ``[rows]``, place among the options of the problem's group.
        loss: ``[rows]``.
        cost: ``[rows, resources]``.
        fixed: ``[resources]``, taken whatever the plan.
        budget: ``[resources]``, most that a plan and the fixed amounts may take.
    """

    group: Integers
    option: Integers
    loss: Floats
    cost: Floats
    fixed: Floats
    budget: Floats

    @classmethod
    def of(cls, problem: Problem) -> Table:
        """All options of a problem, priced in its budgeted resources."""
        names = tuple(problem.budgets)
        rows = [(g, o) for g, group in enumerate(problem.groups) for o in range(len(group.options))]
        options = [problem.groups[g].options[o] for g, o in rows]
        return cls(
            np.array([g for g, _ in rows], np.intp),
            np.array([o for _, o in rows], np.intp),
            np.array([option.loss if abs(option.loss) >= NEGLIGIBLE else 0.0 for option in options], np.float64),
            np.array([[float(option.costs[name]) for name in names] for option in options]).reshape(
                len(rows), len(names)
            ),
            np.array([problem.fixed.get(name, 0.0) for name in names], np.float64),
            np.array([problem.budgets[name] for name in names], np.float64),
        )

    @cached_property
    def room(self) -> Floats:
        """``[resources]``: budget less fixed amounts."""
        return self.budget - self.fixed

    @cached_property
    def starts(self) -> Integers:
        """First row of each group."""
        return np.flatnonzero(np.r_[True, self.group[1:] != self.group[:-1]])

    @cached_property
    def place(self) -> Integers:
        """Of each row, the number of its group among the groups of the table (as in ``starts``)."""
        return np.cumsum(np.r_[0, self.group[1:] != self.group[:-1]])

    @cached_property
    def groups(self) -> list[Integers]:
        """Rows of each group."""
        return np.split(np.arange(len(self.group)), self.starts[1:])

    @cached_property
    def least_cost(self) -> Floats:
        """``[groups, resources]``: least cost of each group, each resource for itself."""
        return np.minimum.reduceat(self.cost, self.starts, axis=0)

    @cached_property
    def margin(self) -> Floats:
        """``[resources]``: what the cheapest options leave of each budget, to within rounding."""
        return np.array(
            [
                math.fsum((b, -f, *-least))
                for b, f, least in zip(self.budget, self.fixed, self.least_cost.T, strict=True)
            ],
            np.float64,
        )

    @cached_property
    def least_used(self) -> Floats:
        """``[resources]``: the least that any plan and the fixed amounts take, each resource for itself."""
        columns = zip(self.fixed, self.least_cost.T, strict=True)
        return np.array([math.fsum((fixed, *least)) for fixed, least in columns], np.float64)

    def kept(self, rows: NDArray[np.bool_]) -> Table:
        """The table with only these rows."""
        return replace(
            self, group=self.group[rows], option=self.option[rows], loss=self.loss[rows], cost=self.cost[rows]
        )

    def only(self, resources: NDArray[np.bool_]) -> Table:
        """The table with only these budgets."""
        return replace(self, cost=self.cost[:, resources], fixed=self.fixed[resources], budget=self.budget[resources])

    def first_least(self, values: Floats) -> Integers:
        """Row of the least value of each group, the first where several are equal."""
        least = np.minimum.reduceat(values, self.starts)
        rows = np.flatnonzero(values == least[self.place])
        return rows[np.unique(self.place[rows], return_index=True)[1]]

    def total_loss(self, rows: Integers) -> float:
        """Loss of a plan, correctly rounded."""
        return math.fsum(self.loss[rows])

    def used(self, rows: Integers) -> Floats:
        """What a plan and the fixed amounts take of each resource, correctly rounded."""
        columns = zip(self.fixed, self.cost[rows].T, strict=True)
        return np.array([math.fsum((fixed, *column)) for fixed, column in columns], np.float64)

    def keeps(self, rows: Integers) -> bool:
        """Whether a plan is within every budget, without tolerance."""
        return bool((self.used(rows) <= self.budget).all())

    def choice(self, groups: tuple[Group, ...], rows: Integers) -> dict[str, str]:
        """A plan by names."""
        named = (groups[self.group[row]] for row in rows)
        return {group.name: group.options[self.option[row]].name for group, row in zip(named, rows, strict=True)}

    def undominated(self) -> Table:
        """Without options that cost as much as another of their group in every resource and lose no less.

        Of equal options the first stays. The best plan of the table is a best plan of the smaller one: exchange every
        dominated option for the one that dominates it.
        """
        keep = np.ones(len(self.group), bool)
        values = np.column_stack((self.loss, self.cost))
        for rows in self.groups:
            block = values[rows]
            no_worse = (block[:, None] <= block[None]).all(axis=2)  # [i, j]: i is at most j in everything
            earlier = np.triu(np.ones(no_worse.shape, bool), 1)
            keep[rows] = ~(no_worse & (~no_worse.T | earlier)).any(axis=0)
        return self.kept(keep)

    def fitting(self) -> Table:
        """Without options that no plan within the budgets has: those beyond what the cheapest others leave."""
        slack = 1e-9 * (np.abs(self.room) + np.abs(self.least_cost).sum(axis=0))  # rounding must not remove any
        fits = (self.cost - self.least_cost[self.place] <= self.margin + slack).all(axis=1)
        fits[self.first_least(self.cost.sum(axis=1))] = True
        return self.kept(fits)


@dataclass(frozen=True, eq=False)
class Found:
    """A plan within the budgets, as rows of a table; a bound on the loss of all; its proof (see ``Solution``)."""

    table: Table
    rows: Integers
    bound: float
    proof: str
