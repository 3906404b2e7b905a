"""What a compiled model will cost on a machine, from a table measured there.

A run costs what a run costs besides its nodes; each node what it costs more between others than among its like (both
are in the table), and its own time. A node whose kind, format and shape were measured costs what it cost then. Any
other costs

    fixed + multiply-accumulates / rate + bytes / bandwidth

where the three numbers are fitted, not below zero, to the points of its kind and format by relative error; the result
is corrected by what the nearest points cost against the fit. ``cross_check`` leaves every point out once and says by
how much such a prediction misses. Kinds without points cost nothing and are named.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.analysis.cost_table import CostPoint, CostTable
from qcompiler.analysis.workload import Workload, weight_elements, workloads
from qcompiler.errors import UsageError, nearest

__all__ = ["CostModel", "NodeCost", "Prediction", "Statistic", "cross_check"]

Statistic: TypeAlias = Literal["median", "minimum"]
_NEAREST: Final = 4


@dataclass(frozen=True, slots=True)
class NodeCost:
    """What one node will cost.

    Attributes:
        node: Its name.
        op_type: Its operator.
        work: What it does.
        microseconds: The prediction; 0 where nothing of its kind was measured.
        source: ``measured`` (this very shape), ``fitted``, or ``unknown``.
    """

    node: str
    op_type: str
    work: Workload
    microseconds: float
    source: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a run of a model will cost.

    Attributes:
        milliseconds: Whole run.
        nodes: Its nodes, in graph order.
        isa: Instruction set the points are of.
        threads: Threads of the run.
    """

    milliseconds: float
    nodes: tuple[NodeCost, ...]
    isa: str
    threads: int

    @property
    def measured_share(self) -> float:
        """Part of the predicted time whose very shapes were measured, 0 to 1."""
        total = sum(node.microseconds for node in self.nodes)
        return sum(node.microseconds for node in self.nodes if node.source == "measured") / total if total else 0.0

    @property
    def unknown(self) -> tuple[str, ...]:
        """Kinds and formats of which nothing was measured."""
        return tuple(dict.fromkeys(f"{n.work.kind} {n.work.format}" for n in self.nodes if n.source == "unknown"))


class CostModel:
    """Predicts costs from the points of one instruction set and number of threads.

    Args:
        table: Measured costs.
        isa: Instruction set; ``None`` takes the first of the table.
        threads: Threads of a run.
        statistic: Whether to predict medians or minima.

    Attributes:
        run: Microseconds of a run besides its nodes.
        between: Microseconds that a node costs more between others.

    Raises:
        UsageError: The table has no such points.
    """

    def __init__(
        self, table: CostTable, *, isa: str | None = None, threads: int = 1, statistic: Statistic = "median"
    ) -> None:
        isas = table.isas()
        self.isa = isa if isa is not None else isas[0]
        self.threads = threads
        self._minimum = statistic == "minimum"
        self.run = table.run_minimum if self._minimum else table.run_microseconds
        self.between = table.between_minimum if self._minimum else table.between_microseconds
        points = [point for point in table.points if point.isa == self.isa and point.threads == threads]
        if not points:
            known = [f"{point.isa} at {point.threads} threads" for point in table.points]
            asked = f"{self.isa} at {threads} threads"
            hint = nearest(asked, known) or f"it has {', '.join(dict.fromkeys(known))}"
            raise UsageError(f"the cost table has nothing on {asked}", hint=hint)
        groups: dict[tuple[str, str], list[CostPoint]] = {}
        for point in points:
            groups.setdefault((point.kind, point.format), []).append(point)
        self._exact = {(point.kind, point.format, point.shape): self._time(point) for point in points}
        self._groups = groups

    def predict(self, model: ir.Model, *, bits: int | None = None) -> Prediction:
        """What a run of a compiled model will cost.

        Args:
            model: The model; the shapes of its values are known (``workload.bind_dimensions``).
            bits: Predict as if all weights of integer operators had this width.
        """
        costs = []
        for node, found in workloads(model):
            work = found if bits is None else in_width(node, found, bits)
            microseconds, source = self.cost(work)
            costs.append(NodeCost(str(node.name), node.op_type, work, microseconds, source))
        total = self.run + self.between * len(costs) + sum(item.microseconds for item in costs)
        return Prediction(total / 1000, tuple(costs), self.isa, self.threads)

    def cost(self, work: Workload) -> tuple[float, str]:
        """Microseconds of one node, and where they come from."""
        exact = self._exact.get((work.kind, work.format, work.shape))
        if exact is not None:
            return exact, "measured"
        fit = self._fit(work.kind, work.format)
        return (0.0, "unknown") if fit is None else (fit.cost(work.macs, work.bytes), "fitted")

    @functools.cache  # noqa: B019 - lives as long as the model, which few make
    def _fit(self, kind: str, form: str) -> _Fit | None:
        points = self._groups.get((kind, form))
        return None if points is None else _Fit.of(points, [self._time(point) for point in points])

    def _time(self, point: CostPoint) -> float:
        return point.minimum if self._minimum else point.microseconds


def in_width(node: ir.Node, work: Workload, bits: int) -> Workload:
    """The work of a node if its weight had another width; unchanged where it has none that could."""
    elements = weight_elements(node)
    if elements is None or not work.format.startswith("w"):
        return work
    old, _, activation = work.format[1:].partition("a")
    changed = work.bytes + math.ceil(elements * bits / 8) - math.ceil(elements * int(old) / 8)
    return replace(work, format=f"w{bits}a{activation}", bytes=changed)


def cross_check(table: CostTable, isa: str, threads: int) -> dict[tuple[str, str], tuple[int, float, float]]:
    """How well points are predicted by the others.

    Returns:
        By kind and format: number of points, median and greatest relative error; groups of one point are left out.
    """
    groups: dict[tuple[str, str], list[CostPoint]] = {}
    for point in table.points:
        if (point.isa, point.threads) == (isa, threads):
            groups.setdefault((point.kind, point.format), []).append(point)
    found = {}
    for key, points in groups.items():
        if len(points) < 2:
            continue
        errors = []
        for index, point in enumerate(points):
            others = [*points[:index], *points[index + 1 :]]
            fit = _Fit.of(others, [item.microseconds for item in others])
            errors.append(abs(fit.cost(point.macs, point.bytes) / max(point.microseconds, 0.05) - 1))
        found[key] = (len(points), float(np.median(errors)), max(errors))
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    """A roofline through points, and what the points say beyond it."""

    parameters: NDArray[np.float64]
    places: NDArray[np.float64]
    corrections: NDArray[np.float64]

    @classmethod
    def of(cls, points: Sequence[CostPoint], times: Sequence[float]) -> _Fit:
        work = np.array([(1.0, point.macs, point.bytes) for point in points])
        measured = np.maximum(np.array(times, np.float64), 0.05)
        parameters = _not_negative(work / measured[:, None])
        corrections = np.log(measured / np.maximum(work @ parameters, 1e-9))
        return cls(parameters, np.log1p(work[:, 1:]), corrections)

    def cost(self, macs: int, size: int) -> float:
        """Microseconds."""
        work = np.array([1.0, macs, size])
        distance = np.square(self.places - np.log1p(work[1:])).sum(axis=1)
        chosen = np.argsort(distance, kind="stable")[:_NEAREST]
        weights = 1 / (distance[chosen] + 0.05)
        correction = float(weights @ self.corrections[chosen] / weights.sum())
        return float(work @ self.parameters) * math.exp(correction)


def _not_negative(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Parameters not below zero that bring all rows nearest to 1: the best over all sets of columns."""
    scale = np.maximum(rows.max(axis=0), 1e-30)
    best, least = np.zeros(3), math.inf
    for count in (1, 2, 3):
        for columns in itertools.combinations(range(3), count):
            part = rows[:, columns] / scale[list(columns)]
            solution, *_ = np.linalg.lstsq(part, np.ones(len(rows)), rcond=None)
            error = float(np.square(part @ solution - 1).sum())
            if (solution >= 0).all() and error < least - 1e-12:
                least = error
                best = np.zeros(3)
                best[list(columns)] = solution / scale[list(columns)]
    return best
