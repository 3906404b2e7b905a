"""Predicted latency of compiled models: for the report of a compile, and beside what was measured."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx_ir as ir

from qcompiler.analysis.contestants import Contestant
from qcompiler.analysis.cost import CostModel, Prediction
from qcompiler.analysis.cost_table import CostTable
from qcompiler.analysis.interleave import interleave, stopwatch_of
from qcompiler.analysis.latency import random_feed
from qcompiler.analysis.machine import this_machine
from qcompiler.analysis.workload import bind_dimensions, weight_index

__all__ = ["Checked", "Predicted", "check_model", "predict_latency"]

_MOMENTS: Final = 5
_MOMENT_SECONDS: Final = 0.4
_PAUSE_SECONDS: Final = 0.4


@dataclass(frozen=True, slots=True)
class Checked:
    """A model's latency, predicted and measured, in milliseconds; on one thread in processor time.

    Attributes:
        path: The model.
        isa: Instruction set of the kernels.
        threads: Threads of each run.
        predicted: What the table says of medians.
        measured: The median.
        predicted_minimum: What the table says of minima.
        measured_minimum: The minimum.
        measured_share: Part of the predicted time whose very shapes are in the table.
        unknown: Operators and formats of which the table says nothing: predictions are lower bounds then.
    """

    path: Path
    isa: str
    threads: int
    predicted: float
    measured: float
    predicted_minimum: float
    measured_minimum: float
    measured_share: float
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Predicted:
    """What a compile says about latency from a table.

    Attributes:
        milliseconds: A run of the compiled model.
        widths: The same if all its packable weights had this many bits, by width; empty where there are none.
        prediction: Its nodes.
        date: When the table was measured.
        cpu: Where.
        warnings: What the reader must know: another machine, kinds without points.
    """

    milliseconds: float
    widths: dict[int, float]
    prediction: Prediction
    date: str
    cpu: str
    warnings: tuple[str, ...]


def predict_latency(
    path: str | Path, table: CostTable, widths: tuple[int, ...], *, target: str | None = None, threads: int = 1
) -> Predicted:
    """Predict a compiled model at the shapes that ``qcompiler bench`` makes up.

    Args:
        path: The compiled model.
        table: Measured costs.
        widths: Widths of weights that the target accepts.
        target: Name of the target, where there is one: a table of another one is used with a warning.
        threads: Threads of a run.

    Raises:
        UsageError: The table has nothing on so many threads.
    """
    model = _bound_model(path)
    costs = CostModel(table, threads=threads)
    found = costs.predict(model)
    packable = any(weight_index(node) is not None for node in model.graph)
    others = {bits: costs.predict(model, bits=bits) for bits in widths} if packable else {}
    known = {bits: item.milliseconds for bits, item in others.items() if set(item.unknown) <= set(found.unknown)}
    warnings = tuple(_warnings(table, found, target))
    return Predicted(found.milliseconds, known, found, table.date, table.machine.cpu, warnings)


def _warnings(table: CostTable, found: Prediction, target: str | None) -> list[str]:
    texts = []
    if target not in (None, table.target):
        texts.append(f"the cost table was measured for {table.target}, this model is for {target}")
    if differences := table.machine.differences(this_machine()):
        texts.append(f"the cost table was measured elsewhere ({'; '.join(differences)})")
    if found.unknown:
        shown = ", ".join(found.unknown[:5]) + (", …" if len(found.unknown) > 5 else "")
        texts.append(f"the cost table says nothing on {shown}: the predicted latency is a lower bound")
    return texts


def check_model(path: Path, table: CostTable, isa: str, threads: int) -> Checked:
    """Predict a model and time it, at several moments of which the least disturbed counts, as in the table.

    Raises:
        ModelError: The model cannot be run.
        QCompilerError: The native library is not installed.
    """
    model = _bound_model(path)
    found = CostModel(table, isa=isa, threads=threads).predict(model)
    least = CostModel(table, isa=isa, threads=threads, statistic="minimum").predict(model)
    medians, minima = zip(*_moments(path, isa, threads), strict=True)
    return Checked(
        path, isa, threads, found.milliseconds, min(medians), least.milliseconds, min(minima), found.measured_share,
        found.unknown,
    )  # fmt: skip


def _moments(path: Path, isa: str, threads: int) -> Iterator[tuple[float, float]]:
    """Median and minimum of a model at several moments."""
    runner = Contestant(path, "qcompiler", isa).open(threads)
    feed = random_feed(path)
    for moment in range(_MOMENTS):
        if moment:
            time.sleep(_PAUSE_SECONDS)
        times = interleave(
            [lambda: runner.run(feed)], budget=_MOMENT_SECONDS, warmup=3, stopwatch=stopwatch_of(threads)
        )
        yield float(np.median(times)), float(times.min())


def _bound_model(path: str | Path) -> ir.Model:
    from qcompiler.ir import io

    model = io.load(path)
    bind_dimensions(model, {name: array.shape for name, array in random_feed(path).items()})
    return model
