"""Observers: what is remembered of a tensor while samples stream by, and the range it gives.

``minmax``          exact extrema
``moving-average``  exponentially weighted mean of the extrema of each sample, newest first
``percentile``      the range that keeps the given share of the elements, with equal tails cut on both sides
``mse``             the range with the least mean squared quantization error in the format asked for
``narrow-mse``      ``mse`` in formats of less than 8 bits, exact extrema in others
``entropy``         the range whose quantized distribution has the least divergence (KL) from the true one

Every observer takes row weights: an element of weight 0 is as if it were not there, exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration import search
from qcompiler.calibration.collectors import Collector, Observer, Range, State, broadcast, flatten
from qcompiler.calibration.histogram import Histogram
from qcompiler.calibration.mean import MeanObserver
from qcompiler.calibration.minmax import MinMax, MovingAverage
from qcompiler.errors import UsageError, nearest
from qcompiler.quant.format import QFormat

__all__ = [
    "METHODS",
    "Collector",
    "HistogramObserver",
    "MeanObserver",
    "MinMax",
    "MovingAverage",
    "Observer",
    "Range",
    "State",
    "broadcast",
    "make",
]

Search: TypeAlias = Callable[[Histogram, QFormat], tuple[float, float]]


class HistogramObserver:
    """A histogram, and a search on it that gives the range.

    Args:
        search: Finds the range on a histogram that has counted something.
        bins: Bins on each side of zero.
        axis: One histogram per slice along this axis.
        label: Name of the method.
    """

    def __init__(self, search: Search, bins: int, axis: int | None = None, label: str = "histogram") -> None:
        self._search = search
        self.bins = bins
        self.axis = axis
        self.label = label
        self.histograms: list[Histogram] = [] if axis is not None else [Histogram(bins)]

    def update(self, array: NDArray[Any], weights: NDArray[Any] | None = None) -> None:
        """Count the elements of ``array``."""
        if self.axis is None:
            self.histograms[0].add(*flatten(array, weights))
            return
        slices = np.moveaxis(array, self.axis, 0)
        full = None if weights is None else np.moveaxis(broadcast(array, weights), self.axis, 0)
        while len(self.histograms) < len(slices):
            self.histograms.append(Histogram(self.bins))
        for index, histogram in enumerate(self.histograms):
            histogram.add(*flatten(slices[index], None if full is None else full[index]))

    def range(self, form: QFormat) -> Range:
        """The range found by the search, of every histogram."""
        ends = [self._search(item, form) if item.total > 0 else (0.0, 0.0) for item in self.histograms]
        low, high = np.array([low for low, _ in ends]), np.array([high for _, high in ends])
        return (low, high) if self.axis is not None else (low.reshape(()), high.reshape(()))

    def merge(self, other: HistogramObserver) -> None:
        """Add the counts of both."""
        for mine, theirs in zip(self.histograms, other.histograms, strict=True):
            mine.merge(theirs)

    def settings(self) -> str:
        """What was counted; the search is not part of it."""
        return f"histogram bins={self.bins} axis={self.axis}"

    def state(self) -> State:
        """All histograms."""
        return {f"{i}.{key}": array for i, item in enumerate(self.histograms) for key, array in item.state().items()}

    def restore(self, state: State) -> None:
        """Set all histograms."""
        count = 1 + max(int(key.partition(".")[0]) for key in state) if state else 0
        self.histograms = [Histogram(self.bins) for _ in range(count)]
        for index, item in enumerate(self.histograms):
            item.restore({key: state[f"{index}.{key}"] for key in ("place", "counts", "range")})


METHODS = ("minmax", "moving-average", "percentile", "mse", "narrow-mse", "entropy")


def make(
    method: str, *, axis: int | None = None, bins: int = 2048, percentile: float = 99.99, momentum: float = 0.9
) -> Observer:
    """An observer by the name of its method.

    Args:
        method: One of ``METHODS``.
        axis: Observe every slice along this axis by itself.
        bins: Resolution of a histogram: bins on each side of zero.
        percentile: Share of the elements kept by ``percentile``.
        momentum: Weight of the past in ``moving-average``.

    Raises:
        UsageError: Unknown method or impossible option.
    """
    if bins < 16 or bins & (bins - 1):
        raise UsageError(f"bins={bins} must be a power of two, at least 16")
    if not 50 < percentile <= 100:
        raise UsageError(f"percentile={percentile} must lie in (50, 100]")
    if method == "minmax":
        return MinMax(axis)
    if method == "moving-average":
        return MovingAverage(axis, momentum)
    if method == "percentile":
        return HistogramObserver(lambda histogram, _: search.percentile(histogram, percentile), bins, axis, method)
    if method == "mse":
        return HistogramObserver(search.least_squares, bins * search.FINER, axis, method)
    if method == "narrow-mse":
        return HistogramObserver(search.narrow_least_squares, bins * search.FINER, axis, method)
    if method == "entropy":
        return HistogramObserver(search.entropy, bins, axis, method)
    hint = nearest(method, METHODS) or f"known: {', '.join(METHODS)}"
    raise UsageError(f"unknown calibration method '{method}'", hint=hint)
