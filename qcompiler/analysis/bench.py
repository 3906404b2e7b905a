"""``qcompiler bench``: model files on their providers timed in turns, and what ONNX Runtime makes of each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.analysis.census import FLOAT_COMPUTE, INTEGER_OPERATORS, left, optimized_census
from qcompiler.analysis.contestants import Contestant, contestants
from qcompiler.analysis.interleave import Interval, Timing, interleave, ratio, stopwatch_of, timing
from qcompiler.analysis.latency import random_feed
from qcompiler.analysis.node_profile import NodeTime, profile_nodes
from qcompiler.analysis.sessions import Runs, fit
from qcompiler.analysis.size import stored_bytes
from qcompiler.errors import UsageError
from qcompiler.ir.execute import Feed

__all__ = ["BenchRow", "bench"]

_PROFILE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class BenchRow:
    """One model of a benchmark.

    Attributes:
        path: The file.
        provider: The provider it ran on.
        isa: Instruction set of our kernels; ``None`` where the best was taken or none of ours took part.
        threads: Threads of each run.
        timing: Its times.
        speedup: Time of the first model over this one's; the first has 1.
        bytes: Size on disk, external data included.
        census: Operators of ONNX Runtime's optimized graph.
        nodes: Which provider ran which node and how long; ``None`` where it was not asked for.
    """

    path: Path
    provider: str
    isa: str | None
    threads: int
    timing: Timing
    speedup: Interval
    bytes: int
    census: dict[str, int]
    nodes: tuple[NodeTime, ...] | None = None

    @property
    def integer_nodes(self) -> int:
        """Nodes that run on integers in ONNX Runtime, those of our kernels included."""
        from qcompiler.quant.functions.catalogue import operators

        known = INTEGER_OPERATORS | set(operators())
        return sum(count for op_type, count in self.census.items() if op_type in known)

    @property
    def native_nodes(self) -> int:
        """Nodes that our kernels run."""
        from qcompiler.quant.functions.catalogue import operators

        if self.provider == "stock":
            return 0
        return sum(count for op_type, count in self.census.items() if op_type in operators())

    @property
    def float_nodes(self) -> int:
        """Convolutions and matrix products that run in float."""
        return sum(count for op_type, count in self.census.items() if op_type in FLOAT_COMPUTE)

    @property
    def conversions(self) -> int:
        """Q/DQ nodes that no kernel absorbed."""
        return left(self.census)


def bench(
    models: Sequence[str | Path | Contestant],
    feed: Mapping[str, NDArray[Any]] | None = None,
    *,
    threads: int | Sequence[int] = 1,
    budget: float = 3.0,
    warmup: int = 2,
    rounds: int | None = None,
    nodes: bool = False,
    processor_time: bool = False,
) -> tuple[BenchRow, ...]:
    """Time models in turns; the first is what the others are compared with.

    Args:
        models: Model files with the same inputs; one that is to run on our kernels as a ``Contestant``.
        feed: One sample; made up from the first model's inputs where none is given.
        threads: Threads of each run; of several numbers each makes a benchmark of its own.
        budget: Seconds per model and number of threads.
        warmup: Rounds that are not counted.
        rounds: Exactly so many rounds instead of a budget.
        processor_time: Whether runs on one thread are timed by their processor time, which other processes on the
            machine cannot spend, instead of by the clock on the wall.
        nodes: Whether to say which provider ran which node and how long, from further runs.

    Returns:
        For every number of threads a row per model, in their order.

    Raises:
        UsageError: No model is given, or one wants inputs that the sample lacks.
        ModelError: A model cannot be loaded or run.
        QCompilerError: The native library is needed and not installed.
    """
    if not models:
        raise UsageError("no model to time", hint="give at least one .onnx file")
    entries = [item if isinstance(item, Contestant) else contestants([item])[0] for item in models]
    sample = dict(feed) if feed is not None else random_feed(entries[0].path)
    counts = [threads] if isinstance(threads, int) else list(threads)
    rows: list[BenchRow] = []
    for count in counts:
        runners = [entry.open(count) for entry in entries]
        feeds = [_fitting(sample, runner, entry) for runner, entry in zip(runners, entries, strict=True)]
        calls = [_call(runner, given) for runner, given in zip(runners, feeds, strict=True)]
        watch = stopwatch_of(count) if processor_time else None
        if rounds is None:
            times = interleave(calls, budget=budget * len(calls), warmup=warmup, stopwatch=watch)
        else:
            times = interleave(calls, budget=float("inf"), warmup=warmup, least=rounds, most=rounds, stopwatch=watch)
        del runners, calls
        for index, (entry, given) in enumerate(zip(entries, feeds, strict=True)):
            profile = _profile(entry, count, given, budget) if nodes else None
            rows.append(_row(entry, count, times[:, 0], times[:, index], profile))
    return tuple(rows)


def _row(
    entry: Contestant,
    count: int,
    first: NDArray[np.float64],
    own: NDArray[np.float64],
    profile: tuple[NodeTime, ...] | None,
) -> BenchRow:
    """What the times of one model (milliseconds of each round) say beside those of the first."""
    return BenchRow(
        entry.path, entry.provider, entry.isa, count, timing(own), ratio(first, own), stored_bytes(entry.path),
        _census(entry, count), profile,
    )  # fmt: skip


def _fitting(sample: Mapping[str, NDArray[Any]], runner: Runs, entry: Contestant) -> Feed:
    given = fit(sample, runner)
    if missing := sorted(set(runner.inputs) - set(given)):
        hint = "time models of equal inputs together"
        raise UsageError(f"the sample lacks input '{missing[0]}'", where=str(entry.path), hint=hint)
    return given


def _profile(entry: Contestant, threads: int, feed: Mapping[str, NDArray[Any]], budget: float) -> tuple[NodeTime, ...]:
    return profile_nodes(
        lambda prefix: entry.open(threads, profile_prefix=prefix), feed, budget=min(budget, _PROFILE_SECONDS)
    )


def _census(entry: Contestant, threads: int) -> dict[str, int]:
    return optimized_census(entry.path, lambda target: entry.open(threads, optimized_path=target))


def _call(runner: Runs, feed: Mapping[str, NDArray[Any]]) -> Callable[[], object]:
    return lambda: runner.run(feed)
