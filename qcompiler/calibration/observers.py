"""Observers: what is remembered of a tensor while samples stream by, and the range it gives.

``minmax``          exact extrema
``moving-average``  exponentially weighted mean of the extrema of each sample, newest first
``percentile``      the range that keeps the given share of the elements, with equal tails cut on both sides
``mse``             the range with the least mean squared quantization error in the format asked for
``entropy``         the range whose quantized distribution has the least divergence (KL) from the true one

Every observer takes row weights: an element of weight 0 is as if it were not there, exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration import search
from qcompiler.calibration.histogram import Histogram, NotFiniteError, extrema
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

Range: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Low and high, of shape ``()`` or ``(channels,)``."""

State: TypeAlias = dict[str, NDArray[Any]]


class Collector(Protocol):
    """Anything that learns from a stream of tensors."""

    def update(self, array: NDArray[Any], weights: NDArray[Any] | None = None) -> None:
        """Learn from one tensor.

        Args:
            array: Float tensor of one feed.
            weights: Weights of its rows: the leading axes of ``array``, or its rank with size-1 axes.
        """

    def settings(self) -> str:
        """Text that, with model and data, determines the state: part of the cache key."""

    def state(self) -> State:
        """Everything learnt, as arrays."""

    def restore(self, state: State) -> None:
        """The inverse of ``state``."""


class Observer(Collector, Protocol):
    """A collector that gives a range."""

    def range(self, form: QFormat) -> Range:
        """The range to quantize in format ``form``; zeros when nothing was seen."""

    def merge(self, other: Any) -> None:
        """Take in what another observer of the same kind has learnt: tied tensors share a range."""


def broadcast(array: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
    """Row weights as a view with the shape of ``array``."""
    shaped = weights.reshape(weights.shape + (1,) * (array.ndim - weights.ndim))
    return np.broadcast_to(shaped, array.shape)


def flatten(array: NDArray[Any], weights: NDArray[Any] | None) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Elements of positive weight as a contiguous 1-D array, and their weights where any differs from 1."""
    real = array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)
    if weights is None:
        return np.ascontiguousarray(real).reshape(-1), None
    full = broadcast(real, weights)
    chosen = full > 0
    fractional = bool(((weights != 0) & (weights != 1)).any())
    return real[chosen], full[chosen].astype(np.float64) if fractional else None


class MinMax:
    """Exact extrema, of the tensor or of every slice along ``axis``."""

    def __init__(self, axis: int | None = None) -> None:
        self.axis = axis
        self.low: NDArray[np.float64] = np.array(np.inf)
        self.high: NDArray[np.float64] = np.array(-np.inf)

    def update(self, array: NDArray[Any], weights: NDArray[Any] | None = None) -> None:
        """Widen the range by the elements of ``array``."""
        low, high = self._extrema(array, weights)
        self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)

    def _extrema(self, array: NDArray[Any], weights: NDArray[Any] | None) -> Range:
        if self.axis is None:
            least, greatest = extrema(flatten(array, weights)[0])
            return np.array(least), np.array(greatest)
        channels = array.shape[self.axis]
        rows = np.moveaxis(array, self.axis, 0).reshape(channels, array.size // max(channels, 1))
        chosen: Any = True
        if weights is not None:
            chosen = np.moveaxis(broadcast(array, weights) > 0, self.axis, 0).reshape(rows.shape)
        low = rows.min(axis=1, initial=np.inf, where=chosen).astype(np.float64)
        high = rows.max(axis=1, initial=-np.inf, where=chosen).astype(np.float64)
        if np.isnan(low).any() or np.isnan(high).any() or (low == -np.inf).any() or (high == np.inf).any():
            raise NotFiniteError("NaN or infinity")
        return low, high

    def range(self, form: QFormat) -> Range:
        """The extrema, whatever the format."""
        del form
        return _or_zero(self.low, self.high)

    def merge(self, other: MinMax) -> None:
        """Union of both ranges."""
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)

    def settings(self) -> str:
        """Method and axis."""
        return f"minmax axis={self.axis}"

    def state(self) -> State:
        """Both extrema."""
        return {"low": self.low, "high": self.high}

    def restore(self, state: State) -> None:
        """Set both extrema."""
        self.low, self.high = np.array(state["low"], np.float64), np.array(state["high"], np.float64)


class MovingAverage(MinMax):
    """Weighted mean of each update's extrema: the newest weighs most, ``momentum`` times more than the one before.

    The weights are normalised, so early samples are not favoured. By its nature the result depends on the order
    of the samples.
    """

    def __init__(self, axis: int | None = None, momentum: float = 0.9) -> None:
        super().__init__(axis)
        if not 0 <= momentum < 1:
            raise UsageError(f"momentum={momentum} must lie in [0, 1)")
        self.momentum = momentum
        self.weight: NDArray[np.float64] = np.array(0.0)
        self.low, self.high = np.array(0.0), np.array(0.0)

    def update(self, array: NDArray[Any], weights: NDArray[Any] | None = None) -> None:
        """Move the means towards the extrema of ``array``; a slice without elements stays where it is."""
        low, high = self._extrema(array, weights)
        seen = low <= high
        keep = np.where(seen, self.momentum, 1.0)
        gain = np.where(seen, 1.0 - self.momentum, 0.0)
        self.low = keep * self.low + gain * np.where(seen, low, 0.0)
        self.high = keep * self.high + gain * np.where(seen, high, 0.0)
        self.weight = keep * self.weight + gain

    def range(self, form: QFormat) -> Range:
        """The means."""
        del form
        safe = np.where(self.weight > 0, self.weight, 1.0)
        return self.low / safe, self.high / safe

    def merge(self, other: MinMax) -> None:
        """Union of both mean ranges."""
        ends = [item.range(_ANY) for item in (self, other)]
        self.low, self.high = np.minimum(ends[0][0], ends[1][0]), np.maximum(ends[0][1], ends[1][1])
        self.weight = np.ones_like(self.low)

    def settings(self) -> str:
        """Method, axis and momentum."""
        return f"moving-average axis={self.axis} momentum={self.momentum!r}"

    def state(self) -> State:
        """Sums and their weight."""
        return {**super().state(), "weight": self.weight}

    def restore(self, state: State) -> None:
        """Set sums and weight."""
        super().restore(state)
        self.weight = np.array(state["weight"], np.float64)


_ANY = QFormat(8)


def _or_zero(low: NDArray[np.float64], high: NDArray[np.float64]) -> Range:
    """The range, with 0 … 0 where nothing was seen."""
    seen = low <= high
    return np.where(seen, low, 0.0), np.where(seen, high, 0.0)


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


class MeanObserver:
    """Mean over samples, accumulated in float64.

    Args:
        axis: ``None`` gives the mean tensor, of the shape of one feed's tensor, which must not change. An axis gives
            one mean per slice along it, over everything else.
    """

    def __init__(self, axis: int | None = None) -> None:
        self.axis = axis
        self._sum: NDArray[np.float64] | None = None
        self._weight: NDArray[np.float64] = np.array(0.0)

    def update(self, array: NDArray[Any], weights: NDArray[Any] | None = None) -> None:
        """Add a tensor; rows count by their weight."""
        total, weight = self._totals(array, weights)
        if not np.isfinite(total).all():
            raise NotFiniteError("NaN or infinity")
        if self._sum is not None and self._sum.shape != total.shape:
            raise UsageError(
                f"shapes {self._sum.shape} and {total.shape} have no common mean", hint="ask for the mean along an axis"
            )
        self._sum = total if self._sum is None else self._sum + total
        self._weight = self._weight + weight

    def _totals(self, array: NDArray[Any], weights: NDArray[Any] | None) -> Range:
        wide: NDArray[np.float64]
        if weights is None:
            if self.axis is None:
                return array.astype(np.float64), np.array(1.0)
            others = tuple(i for i in range(array.ndim) if i != self.axis % array.ndim)
            return array.sum(axis=others, dtype=np.float64), np.array(float(array.size / array.shape[self.axis]))
        full = broadcast(array, weights).astype(np.float64)
        wide = np.where(full > 0, array, 0.0) * full
        if self.axis is None:
            return wide, full
        others = tuple(i for i in range(array.ndim) if i != self.axis % array.ndim)
        return wide.sum(axis=others), full.sum(axis=others)

    def mean(self) -> NDArray[np.float64]:
        """The mean; 0 where all weights were 0.

        Raises:
            ValueError: Nothing was seen.
        """
        if self._sum is None:
            raise ValueError("no tensor was seen")
        return self._sum / np.where(self._weight > 0, self._weight, 1.0)

    def settings(self) -> str:
        """Kind and axis."""
        return f"mean axis={self.axis}"

    def state(self) -> State:
        """Sum and weight."""
        return {"weight": self._weight} if self._sum is None else {"weight": self._weight, "sum": self._sum}

    def restore(self, state: State) -> None:
        """Set sum and weight."""
        self._sum, self._weight = state.get("sum"), state["weight"]


METHODS = ("minmax", "moving-average", "percentile", "mse", "entropy")


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
    if method == "entropy":
        return HistogramObserver(search.entropy, bins, axis, method)
    hint = nearest(method, METHODS) or f"known: {', '.join(METHODS)}"
    raise UsageError(f"unknown calibration method '{method}'", hint=hint)
