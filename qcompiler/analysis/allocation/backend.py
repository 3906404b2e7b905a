"""Linear and integer programs through PuLP: CBC, or HiGHS where it is installed. Silent, without files left behind."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np

from qcompiler.analysis.allocation.table import Floats, Integers, Table
from qcompiler.errors import QCompilerError, UsageError, first_line

__all__ = ["Backend", "Program", "Relaxed", "Terms"]

Terms = tuple[Integers, Floats]
"""Columns and their coefficients."""

_INTEGER: Final = 1e-9
"""How far from an integer a solver may leave a variable."""


@dataclass(frozen=True, eq=False)
class Program:
    """Minimise ``objective · x`` over x ≥ 0, the first ``binary`` columns 0 or 1.

    Coefficients are expected near one: whoever makes a program scales it.

    Attributes:
        objective: ``[columns]``.
        binary: Number of 0/1 columns, which come first.
        equal: Rows ``terms · x = value``.
        most: Rows ``terms · x ≤ value``.
    """

    objective: Floats
    binary: int
    equal: list[tuple[Terms, float]] = field(default_factory=list)
    most: list[tuple[Terms, float]] = field(default_factory=list)

    @classmethod
    def choice(cls, table: Table, objective: Floats, cost: Floats, room: Floats) -> Program:
        """One option of every group; row by row as the table, with scaled numbers."""
        columns = np.arange(len(objective))
        groups = np.split(columns, table.starts[1:])
        equal: list[tuple[Terms, float]] = [((rows, np.ones(len(rows))), 1.0) for rows in groups]
        most: list[tuple[Terms, float]] = [
            ((columns[used], column[used]), float(limit))
            for column, limit in zip(cost.T, room, strict=True)
            for used in [np.flatnonzero(column)]
        ]
        return cls(objective, len(objective), equal, most)


@dataclass(frozen=True, eq=False)
class Relaxed:
    """Value of a linear relaxation, and the dual values of its rows ``most``."""

    value: float
    duals: Floats


@dataclass(frozen=True, eq=False)
class Backend:
    """A solver and the time it has left.

    Attributes:
        name: ``cbc`` or ``highs``.
        deadline: ``time.monotonic()`` at which it must be done, ``None`` without limit.
    """

    name: str
    deadline: float | None = None

    @classmethod
    def of(cls, name: str | None, seconds: float | None) -> Backend:
        """A solver by name; without one CBC, or HiGHS where CBC is not there.

        Raises:
            UsageError: The solver is unknown or not installed.
        """
        import pulp

        if name not in {None, "cbc", "highs"}:
            raise UsageError(f"unknown solver '{name}'", hint="cbc or highs")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            there = {"cbc": pulp.PULP_CBC_CMD(msg=False).available(), "highs": find_spec("highspy") is not None}
        chosen = name or ("cbc" if there["cbc"] else "highs")
        if not there[chosen]:
            raise UsageError(f"the solver '{chosen}' is not installed", hint="cbc comes with pulp, highs with highspy")
        if chosen == "highs":
            _highs_banner()
        return cls(chosen, None if seconds is None else time.monotonic() + seconds)

    def relaxed(self, program: Program) -> Relaxed | None:
        """The linear relaxation, ``None`` where no solution was found."""
        model, columns, rows = self._solve(program, integral=False)
        if model.status != 1:
            return None
        values = np.array([column.varValue or 0.0 for column in columns], np.float64)
        duals = np.array([0.0 if row is None or row.pi is None else row.pi for row in rows], np.float64)
        return Relaxed(float(program.objective @ values), duals)

    def solved(self, program: Program) -> tuple[Floats | None, bool]:
        """Values of the columns (``None`` where no solution was found) and whether they are said to be optimal."""
        model, columns, _ = self._solve(program, integral=True)
        if model.sol_status not in {1, 2}:
            return None, model.status == -1
        values = np.array([column.varValue or 0.0 for column in columns], np.float64)
        return values, model.status == 1 and model.sol_status == 1

    def _solve(self, program: Program, integral: bool) -> tuple[Any, list[Any], list[Any]]:
        import pulp

        model = pulp.LpProblem("allocation", pulp.LpMinimize)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # PuLP announcing its next version
            kinds = [pulp.LpBinary] * program.binary
            kinds += [pulp.LpContinuous] * (len(program.objective) - program.binary)
            columns = [
                pulp.LpVariable(f"x{i}", 0, 1 if kind == pulp.LpBinary else None, kind) for i, kind in enumerate(kinds)
            ]
            model += pulp.LpAffineExpression(list(zip(columns, program.objective.tolist(), strict=True)))
            for terms, value in program.equal:
                model += _expression(columns, terms) == value
            rows: list[Any] = []
            for terms, value in program.most:
                rows.append(_expression(columns, terms) <= value if len(terms[0]) else None)
                if rows[-1] is not None:
                    model += rows[-1]
            with tempfile.TemporaryDirectory() as folder:
                try:
                    model.solve(self._solver(folder, integral))
                except pulp.PulpSolverError as error:
                    raise QCompilerError(f"the solver '{self.name}' failed: {first_line(error)}") from error
        return model, columns, rows

    def _solver(self, folder: str, integral: bool) -> Any:
        import pulp

        left = None if self.deadline is None else max(self.deadline - time.monotonic(), 0.01)
        if self.name == "highs":
            return pulp.HiGHS(
                mip=integral, msg=False, timeLimit=left, gapRel=0.0, gapAbs=0.0, threads=1,
                mip_feasibility_tolerance=_INTEGER, primal_feasibility_tolerance=1e-9, dual_feasibility_tolerance=1e-9,
            )  # fmt: skip
        options = [f"integerTolerance {_INTEGER}", "primalTolerance 1e-9", "dualTolerance 1e-9"]
        if integral:
            options.append("increment 0")
        solver = pulp.PULP_CBC_CMD(mip=integral, msg=False, timeLimit=left, gapRel=0.0, gapAbs=0.0, options=options)
        solver.tmpDir = folder
        return solver


def _expression(columns: list[Any], terms: Terms) -> Any:
    import pulp

    return pulp.LpAffineExpression(
        [(columns[i], factor) for i, factor in zip(*(part.tolist() for part in terms), strict=True)]
    )


@cache
def _highs_banner() -> None:
    """Makes HiGHS print its banner, which it does once per process and cannot be told not to, into nowhere."""
    highspy = import_module("highspy")
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            highspy.Highs()
    finally:
        os.dup2(kept, 1)
        os.close(kept)
