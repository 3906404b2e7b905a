"""``qcompiler bench``: several model files timed in turns, and what ONNX Runtime makes of each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from qcompiler.analysis.census import FLOAT_COMPUTE, INTEGER_OPERATORS, left, optimized_census
from qcompiler.analysis.interleave import Interval, Timing, interleave, ratio, timing
from qcompiler.analysis.latency import random_feed
from qcompiler.analysis.sessions import StockRunner, fit
from qcompiler.analysis.size import stored_bytes
from qcompiler.errors import UsageError

__all__ = ["BenchRow", "bench"]


@dataclass(frozen=True, slots=True)
class BenchRow:
    """One model of a benchmark.

    Attributes:
        path: The file.
        timing: Its times.
        speedup: Time of the first model over this one's; the first has 1.
        bytes: Size on disk, external data included.
        census: Operators of ONNX Runtime's optimized graph.
    """

    path: Path
    timing: Timing
    speedup: Interval
    bytes: int
    census: dict[str, int]

    @property
    def integer_nodes(self) -> int:
        """Nodes that run on integers in ONNX Runtime."""
        return sum(count for op_type, count in self.census.items() if op_type in INTEGER_OPERATORS)

    @property
    def float_nodes(self) -> int:
        """Convolutions and matrix products that run in float."""
        return sum(count for op_type, count in self.census.items() if op_type in FLOAT_COMPUTE)

    @property
    def conversions(self) -> int:
        """Q/DQ nodes that no kernel absorbed."""
        return left(self.census)


def bench(
    paths: Sequence[str | Path],
    feed: Mapping[str, NDArray[Any]] | None = None,
    *,
    threads: int = 1,
    budget: float = 3.0,
    warmup: int = 2,
    rounds: int | None = None,
) -> tuple[BenchRow, ...]:
    """Time models in turns; the first is what the others are compared with.

    Args:
        paths: Model files with the same inputs.
        feed: One sample; made up from the first model's inputs where none is given.
        threads: Threads of each run.
        budget: Seconds per model.
        warmup: Rounds that are not counted.
        rounds: Exactly so many rounds instead of a budget.

    Raises:
        UsageError: No model is given, or one wants inputs that the sample lacks.
        ModelError: A model cannot be loaded or run.
    """
    if not paths:
        raise UsageError("no model to time", hint="give at least one .onnx file")
    runners = [StockRunner(path, threads=threads) for path in paths]
    sample = dict(feed) if feed is not None else random_feed(paths[0])
    feeds = [fit(sample, runner) for runner in runners]
    for path, runner, given in zip(paths, runners, feeds, strict=True):
        if missing := sorted(set(runner.inputs) - set(given)):
            hint = "time models of equal inputs together"
            raise UsageError(f"the sample lacks input '{missing[0]}'", where=str(path), hint=hint)
    calls = [_call(runner, given) for runner, given in zip(runners, feeds, strict=True)]
    if rounds is None:
        times = interleave(calls, budget=budget * len(calls), warmup=warmup)
    else:
        times = interleave(calls, budget=float("inf"), warmup=warmup, least=rounds, most=rounds)
    return tuple(
        BenchRow(
            Path(path),
            timing(times[:, index]),
            ratio(times[:, 0], times[:, index]),
            stored_bytes(path),
            optimized_census(path),
        )
        for index, path in enumerate(paths)
    )


def _call(runner: StockRunner, feed: Mapping[str, NDArray[Any]]) -> Any:
    return lambda: runner.run(feed)
