"""``qcompiler profile``: measure what operators cost here, into a table that predicts what models will.

A node is measured as the difference between a session with several copies of it and one with few, run in turns:
what a run costs besides its nodes is then not part of it. Every node is measured at two moments, because a machine that
does other things too is slow for seconds at a time; on one thread by processor time, which others cannot spend.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.analysis import medley as medleys
from qcompiler.analysis.cost_table import CostPoint, CostTable
from qcompiler.analysis.interleave import interleave, stopwatch_of
from qcompiler.analysis.latency import random_feed
from qcompiler.analysis.machine import this_machine
from qcompiler.analysis.specimen_grid import grid
from qcompiler.analysis.specimens import Specimen, feed_of, isolated, other_widths, specimen
from qcompiler.analysis.workload import bind_dimensions, workloads
from qcompiler.errors import ModelError, QCompilerError, UsageError, first_line
from qcompiler.target.schema import Target

__all__ = ["Plan", "check_here", "measure", "plan", "weight_widths"]

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


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        specimens: Nodes, in the order in which they are measured.
        skipped: Nodes that cannot be, and why.
    """

    specimens: tuple[Specimen, ...]
    skipped: tuple[str, ...]


def check_here(target: Target) -> None:
    """Refuse a target whose speed cannot be measured on this machine.

    Raises:
        UsageError: Its models are run by something else than our kernels.
        QCompilerError: Our kernels are not installed.
    """
    from qcompiler.target.runs_here import runs_here
    from qcompiler.target.schema import Provider

    hint = "profile the target that our kernels run: lowbit-cpu"
    if target.provider is not Provider.QCOMPILER:
        raise UsageError(f"{target.name} cannot be profiled: our kernels do not run its models", hint=hint)
    here, reason = runs_here(target)
    if not here:
        raise QCompilerError(f"{target.name} cannot be profiled here: {reason}")


def weight_widths(target: Target) -> tuple[int, ...]:
    """Widths of weights that a target accepts, widest first."""
    from qcompiler.target.schema import Role

    rules = [rule for rule in target.operators.values() if Role.WEIGHT in rule.inputs]
    return tuple(sorted({form.bits for rule in rules for form in rule.weights if form.bits <= 8}, reverse=True))


def plan(target: Target, models: Sequence[str | Path] = (), *, with_grid: bool = True) -> Plan:
    """Choose what to measure: the nodes of compiled models, then a grid; weights in every width of the target.

    Args:
        target: The profile.
        models: Compiled models whose very shapes are measured, at the shapes that ``qcompiler bench`` makes up.
        with_grid: Whether the grid of common shapes is measured too.
    """
    graphs = [_at_bench_shapes(path) for path in models] + ([grid()] if with_grid else [])
    skipped: list[str] = []
    own = [list(_specimens(model, skipped)) for model in graphs]
    found: dict[tuple[str, str, str], Specimen] = {}
    # What the models hold comes first, then its other widths, then the grid: a budget may end early.
    count = len(models)
    for part in (own[:count], _widths(own[:count], target), own[count:], _widths(own[count:], target)):
        for group in part:
            for _, one in group:
                found.setdefault((one.work.kind, one.work.format, one.work.shape), one)
    return Plan(tuple(found.values()), tuple(dict.fromkeys(skipped)))


_Nodes: TypeAlias = list[tuple[ir.Node, Specimen]]


def _at_bench_shapes(path: str | Path) -> ir.Model:
    from qcompiler.ir import io

    model = io.load(path)
    bind_dimensions(model, {name: array.shape for name, array in random_feed(path).items()})
    return model


def _specimens(model: ir.Model, skipped: list[str]) -> Iterator[tuple[ir.Node, Specimen]]:
    """Nodes of a model, as they are."""
    opset = model.opset_imports.get("", 21)
    for node, work in workloads(model):
        try:
            yield node, specimen(node, work, opset)
        except QCompilerError as error:
            skipped.append(f"{work.kind} {node.name}: {error.message}")


def _widths(groups: Sequence[_Nodes], target: Target) -> list[_Nodes]:
    """The same nodes with weights of the other widths."""
    widths = weight_widths(target)
    return [[(node, other) for node, one in group for other in other_widths(node, one, widths)] for group in groups]


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


def open_native(model: bytes, threads: int, isa: str | None) -> Any:
    """A session with our kernels, which runs the nodes as they are.

    Raises:
        QCompilerError: The native library is not installed, or the instruction set is not available here.
    """
    import onnxruntime

    from qcompiler import runtime
    from qcompiler.ir.execute import session_options

    if runtime.library_path() is None:
        hint = "install qcompiler where a C++17 compiler is at hand (pip install --force-reinstall .)"
        raise QCompilerError("the native library is not installed: there is nothing to measure", hint=hint)
    options = session_options(threads=threads)
    # An optimizer would keep one of equal copies, and none whose result nobody reads.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return runtime.session(model, threads=threads, isa=isa, options=options)


def _copies(one: Specimen) -> int:
    return max(_LEAST_COPIES, min(_COPIES, _COPIED_BYTES // max(one.work.bytes, 1)))


def _times(task: _Task, seconds: float, opened: Open) -> _Times:
    """Milliseconds: medians and minima in rows, one copy and several in columns."""
    one, isa, threads = task
    calls = [
        _bound(opened(isolated(one, copies), threads, isa), feed_of(one, copies), one, copies)
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


def best_isa() -> str:
    """The best instruction set that this machine has kernels for; ``none`` without a native library."""
    from qcompiler import runtime

    if runtime.library_path() is None:
        return "none"
    from qcompiler.runtime.native_operator import instruction_sets

    return instruction_sets()[-1]


def _bound(session: Any, feed: Mapping[str, NDArray[Any]], one: Specimen, copies: int) -> Callable[[], None]:
    """A run of copies with everything bound: neither input nor result is copied."""
    return _fed(session, feed, [f"{name}/{copies - 1}" for name, _, _ in one.outputs], one)


def _fed(session: Any, feed: Mapping[str, NDArray[Any]], names: Sequence[str], one: Specimen) -> Callable[[], None]:
    """The same where the results of ``one`` have these names."""
    import onnxruntime

    binding = session.io_binding()
    wrap = onnxruntime.OrtValue.ortvalue_from_numpy
    for name, array in feed.items():
        binding.bind_ortvalue_input(name, wrap(array))
    for name, (_, dtype, shape) in zip(names, one.outputs, strict=True):
        binding.bind_ortvalue_output(name, wrap(np.zeros(shape, dtype.numpy())))

    def call() -> None:
        session.run_with_iobinding(binding)

    return call


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
            _fed(opened(content, threads, isa), feed, names, alone),
            _bound(opened(isolated(alone, 1), threads, isa), feed_of(alone), alone, 1),
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
