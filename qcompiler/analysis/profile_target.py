"""``qcompiler profile``: measure what operators cost here, into a table that predicts what models will.

A node is measured as the difference between a session with several copies of it and one with few, run in turns:
what a run costs besides its nodes is then not part of it. Every node is measured at two moments, because a machine that
does other things too is slow for seconds at a time; on one thread by processor time, which others cannot spend.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.analysis import medley as medleys
from qcompiler.analysis.cost_table import CostPoint, CostTable
from qcompiler.analysis.interleave import interleave, stopwatch_of
from qcompiler.analysis.machine import this_machine
from qcompiler.analysis.profile_plan import Plan
from qcompiler.analysis.specimen_runs import best_isa, bound, fed, open_native
from qcompiler.analysis.specimens import Specimen, feed_of, isolated
from qcompiler.errors import ModelError, UsageError, first_line
from qcompiler.target.schema import Target

__all__ = ["measure"]

Open = Callable[[bytes, int, str | None], Any]
"""Opens a session on a model, with threads and instruction set."""

_Task: TypeAlias = "tuple[Specimen, str | None, int]"
"""A node, the instruction set and the number of threads."""

_Times: TypeAlias = NDArray[np.float64]

_SWEEPS: Final = 2
_LEAST_MEDLEY: Final = 8
_COPIES: Final = 9
_LEAST_COPIES: Final = 3
_COPIED_BYTES: Final = 32 << 20
"""Weights of all copies together stay below, where two copies do."""

_LEAST_SECONDS: Final = 0.04
_MOST_SECONDS: Final = 0.6


def measure(
    target: Target,
    chosen: Plan,
    *,
    isas: Sequence[str | None] = (None,),
    threads: Sequence[int] = (1,),
    budget: float = 60.0,
    opener: Open | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> CostTable:
    """Measure what was chosen.

    Args:
        target: The profile.
        chosen: What to measure.
        isas: Instruction sets; ``None`` is the best that the machine has.
        threads: Numbers of threads.
        budget: Seconds for everything; what is left when they are spent is skipped, and the table says so.
        opener: Opens sessions; by default with our kernels.
        progress: Called as ``progress("measure", done, total)``.

    Raises:
        UsageError: There is nothing to measure, or nothing could be.
        QCompilerError: The native library is not installed, or an instruction set is not available here.
    """
    opened = opener if opener is not None else open_native
    tasks = [(one, isa, count) for isa in isas for count in threads for one in chosen.specimens]
    if not tasks:
        raise UsageError("there is nothing to measure", hint="name a model, or leave out --no-grid")
    run = _run_cost(opened, isas[0])
    found, skipped = _sweep(tasks, budget, opened, progress)
    if not found:
        raise UsageError("nothing could be measured", hint=skipped[0] if skipped else None)
    points = tuple(_point(tasks[index], times) for index, times in sorted(found.items()))
    first = [index for index in sorted(found) if tasks[index][1:] == (isas[0], threads[0])]
    between = _between([tasks[index][0] for index in first], [points[sorted(found).index(i)] for i in first], isas[0],
                       threads[0], opened)  # fmt: skip
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    left_out = tuple(dict.fromkeys([*chosen.skipped, *skipped]))
    return CostTable(target.name, now, this_machine(), *run, points, left_out, *between)


def _sweep(
    tasks: Sequence[_Task], budget: float, opened: Open, progress: Callable[[str, int, int], None] | None
) -> tuple[dict[int, _Times], list[str]]:
    """Measure every task at several moments; of each session the least disturbed moment counts.

    Returns:
        Times by the index of the task, and what could not be measured.
    """
    start = time.perf_counter()
    found: dict[int, _Times] = {}
    failed: dict[int, str] = {}
    total = _SWEEPS * len(tasks)
    for done in range(total):
        if progress is not None:
            progress("measure", done, total)
        index = done % len(tasks)
        left = budget - (time.perf_counter() - start)
        if left <= 0:
            break
        if index in failed:
            continue
        try:
            times = _times(tasks[index], min(max(left / (total - done), _LEAST_SECONDS), _MOST_SECONDS), opened)
        except ModelError as error:
            work = tasks[index][0].work
            failed[index] = f"{work.kind} {work.format} {work.shape}: {error.message}"
            continue
        found[index] = np.minimum(found[index], times) if index in found else times
    skipped = list(failed.values())
    if missing := len(tasks) - len(found) - len(failed):
        skipped.append(f"{missing} of {len(tasks)} points: the budget of {budget:g} s was spent")
    return found, skipped


def _copies(one: Specimen) -> int:
    return max(_LEAST_COPIES, min(_COPIES, _COPIED_BYTES // max(one.work.bytes, 1)))


def _times(task: _Task, seconds: float, opened: Open) -> _Times:
    """Milliseconds: medians and minima in rows, one copy and several in columns."""
    one, isa, threads = task
    calls = [
        bound(opened(isolated(one, copies), threads, isa), feed_of(one, copies), one, copies)
        for copies in (1, _copies(one))
    ]
    try:
        times = interleave(calls, budget=seconds, warmup=2, least=6, most=2000, stopwatch=stopwatch_of(threads))
    except Exception as error:  # ONNX Runtime raises many unrelated types
        raise ModelError(f"ONNX Runtime failed while running it: {first_line(error)}") from error
    return np.stack([np.median(times, axis=0), times.min(axis=0)])


def _point(task: _Task, times: _Times) -> CostPoint:
    one, isa, threads = task
    per_copy = np.maximum(1000 * (times[:, 1] - times[:, 0]) / (_copies(one) - 1), 0.0)
    work = one.work
    return CostPoint(
        work.kind, work.format, work.shape, isa or best_isa(), threads, work.macs, work.bytes,
        round(float(per_copy[0]), 4), round(float(per_copy[1]), 4),
    )  # fmt: skip


def _between(
    many: Sequence[Specimen], points: Sequence[CostPoint], isa: str | None, threads: int, opened: Open
) -> tuple[float, float]:
    """Median and minimum, in microseconds, of what a node costs more between others; 0 where there are too few."""
    picked = medleys.chosen(many)
    if len(picked) < _LEAST_MEDLEY:
        return 0.0, 0.0
    mixed = [many[index] for index in picked]
    content, feed = medleys.medley(mixed)
    alone = mixed[-1]
    names = [f"{len(mixed) - 1}/{name}/0" for name, _, _ in alone.outputs]
    try:
        calls = [
            fed(opened(content, threads, isa), feed, names, alone),
            bound(opened(isolated(alone, 1), threads, isa), feed_of(alone), alone, 1),
        ]
        moments = [interleave(calls, budget=_MOST_SECONDS, stopwatch=stopwatch_of(threads)) for _ in range(_SWEEPS)]
    except Exception as error:  # ONNX Runtime raises many unrelated types
        raise ModelError(f"ONNX Runtime cannot run different nodes together: {first_line(error)}") from error
    medians = np.min([np.median(times, axis=0) for times in moments], axis=0)
    minima = np.min([times.min(axis=0) for times in moments], axis=0)
    own = [sum(getattr(points[index], name) for index in picked[:-1]) for name in ("microseconds", "minimum")]
    return tuple(
        round(max(float(1000 * (item[0] - item[1]) - known) / (len(picked) - 1), 0.0), 4)
        for item, known in zip((medians, minima), own, strict=True)
    )  # type: ignore[return-value]


def _run_cost(opened: Open, isa: str | None) -> tuple[float, float]:
    """Median and minimum, in microseconds, of a run that does next to nothing, fed and read as users do."""
    value = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1]))
    node = ir.node("Neg", [value], name="nothing")
    result = node.outputs[0]
    result.name, result.type, result.shape = "y", ir.TensorType(ir.DataType.FLOAT), ir.Shape([1])
    model = ir.Model(ir.Graph([value], [result], nodes=[node], opset_imports={"": 21}, name="nothing"), ir_version=10)
    session = opened(ir.to_proto(model).SerializeToString(), 1, isa)
    feed = {"x": np.zeros(1, np.float32)}
    times = interleave(
        [lambda: session.run(None, feed)], budget=0.2, warmup=20, least=50, most=5000, stopwatch=stopwatch_of(1)
    )
    return round(1000 * float(np.median(times)), 4), round(1000 * float(times.min()), 4)
