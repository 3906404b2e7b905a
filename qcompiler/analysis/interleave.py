"""Time several things fairly: in turns, after warming up, with an interval that says how sure the ratio is.

A machine changes its speed while one measures. So the contestants run in rounds, each once per round and in an order
that turns from round to round; a slow moment then hits all of them. Ratios are formed from medians; their interval
comes from resampling whole rounds (bootstrap), which keeps what the contestants of a round have in common.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Interval", "Timing", "interleave", "ratio", "stopwatch_of", "timing"]

_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of one contestant, in milliseconds."""

    median: float
    minimum: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Interval:
    """A ratio of medians and its 95 % interval."""

    value: float
    low: float
    high: float


def interleave(
    runs: Sequence[Callable[[], Any]],
    *,
    budget: float = 1.5,
    warmup: int = 2,
    least: int = 5,
    most: int = 500,
    clock: Callable[[], float] = time.perf_counter,
    stopwatch: Callable[[], float] | None = None,
) -> NDArray[np.float64]:
    """Run every contestant once per round until the budget is spent.

    Args:
        runs: What to time.
        budget: Seconds for everything, warm-up included.
        warmup: Rounds that are not counted; only one where a round takes more than a tenth of the budget.
        least: Rounds that are made even if the budget is exceeded (slow models); 3 where even those would take more
            than twice the budget.
        most: Rounds at most.
        clock: Seconds, monotonic: the budget is spent by it.
        stopwatch: What a run is timed by; by default ``clock``. ``stopwatch_of`` says which suits.

    Returns:
        Milliseconds, shape ``(rounds, contestants)``.
    """
    watch = clock if stopwatch is None else stopwatch
    start = clock()
    for done in range(warmup):
        for run in runs:
            run()
        if done == 0 and clock() - start > budget / 10:
            break
    first = clock() - start
    rows: list[list[float]] = []
    while len(rows) < most and (clock() - start < budget or len(rows) < least):
        if len(rows) >= 3 and clock() - start > 2 * budget and first > budget / 10:
            break
        row = [0.0] * len(runs)
        for step in range(len(runs)):
            index = (step + len(rows)) % len(runs)
            before = watch()
            runs[index]()
            row[index] = 1000 * (watch() - before)
        rows.append(row)
    return np.array(rows, np.float64)


def stopwatch_of(threads: int) -> Callable[[], float]:
    """A stopwatch that other work on the machine disturbs least.

    A run on one thread never waits: the processor time of the calling thread is its latency on a machine that does
    nothing else. Runs on several threads are timed by the clock on the wall.
    """
    return time.thread_time if threads == 1 else time.perf_counter


def timing(samples: NDArray[np.float64]) -> Timing:
    """Median and minimum of one column of ``interleave``."""
    return Timing(float(np.median(samples)), float(samples.min()), len(samples))


def ratio(over: NDArray[np.float64], under: NDArray[np.float64], *, seed: int = 0) -> Interval:
    """Ratio of medians of two columns of the same rounds, with its bootstrap interval (2.5 % to 97.5 %)."""
    generator = np.random.default_rng(seed)
    chosen = generator.integers(0, len(over), (_RESAMPLES, len(over)))
    ratios = np.median(over[chosen], axis=1) / np.median(under[chosen], axis=1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return Interval(float(np.median(over) / np.median(under)), float(low), float(high))
