"""Observers that remember nothing but extrema."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.collectors import Range, State, broadcast, flatten
from qcompiler.calibration.histogram import NotFiniteError, extrema
from qcompiler.errors import UsageError
from qcompiler.quant.format import QFormat

__all__ = ["MinMax", "MovingAverage"]


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
