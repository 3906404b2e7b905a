"""A histogram that never needs a second run: its range grows by doubling.

Bins are ``[i * w, (i + 1) * w)`` for integer ``i``, with a width ``w = 2**exponent``. When a larger value arrives the
width doubles until the value fits, and neighbouring bins merge in pairs: ``floor(floor(x / w) / 2) = floor(x / 2w)``,
so the merged counts are those that the wider bins would have counted from the start. The exponent depends on the
largest magnitude alone. Hence the histogram of a stream does not depend on how it was cut into updates. Scaling by a
power of two is exact in floating point, so no value falls into a neighbour's bin by rounding; only a negative number
so small that it underflows when scaled counts as zero.

Memory is O(bins); a value costs about 2 ns (scale, floor, convert, ``bincount`` in cache-sized pieces).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PIECE", "Histogram", "NotFiniteError", "extrema"]

PIECE = 1 << 17
"""Elements worked on at once: small enough for the second-level cache."""

_LEAST_EXPONENT = -120
_EMPTY = np.zeros(0)


class NotFiniteError(ValueError):
    """An observed tensor holds NaN or infinity; the engine knows which tensor and sample."""


def extrema(flat: NDArray[Any]) -> tuple[float, float]:
    """Least and greatest element of a contiguous 1-D array, read once; ``(inf, -inf)`` when it is empty.

    Raises:
        NotFiniteError: NaN or infinity among the elements.
    """
    low, high = np.inf, -np.inf
    for start in range(0, flat.size, PIECE):
        piece = flat[start : start + PIECE]
        least, greatest = float(piece.min()), float(piece.max())
        if not (np.isfinite(least) and np.isfinite(greatest)):
            raise NotFiniteError("NaN" if np.isnan(least) or np.isnan(greatest) else "infinity")
        low, high = min(low, least), max(high, greatest)
    return low, high


class Histogram:
    """Counts of a stream of numbers.

    Args:
        bins: Bins on each side of zero, a power of two. The largest magnitude lies in the upper half of them.

    Attributes:
        exponent: Binary logarithm of the bin width.
        first: Index of the first bin in ``counts``.
        counts: Counts (sums of weights) of consecutive bins.
        low, high: Exact extrema; ``inf, -inf`` before the first value.
    """

    def __init__(self, bins: int) -> None:
        if bins < 2 or bins & (bins - 1):
            raise ValueError(f"{bins} bins: the number must be a power of two")
        self.bins = bins
        self.exponent = _LEAST_EXPONENT
        self.first = 0
        self.counts: NDArray[np.float64] = _EMPTY
        self.low, self.high = np.inf, -np.inf

    @property
    def width(self) -> float:
        """Width of a bin."""
        return float(2.0**self.exponent)

    @property
    def total(self) -> float:
        """Sum of all counts."""
        return float(self.counts.sum())

    def centres(self) -> NDArray[np.float64]:
        """Middle of every bin."""
        index = np.arange(self.first, self.first + self.counts.size, dtype=np.float64)
        return (index + 0.5) * self.width

    def add(self, flat: NDArray[Any], weights: NDArray[Any] | None = None) -> None:
        """Count the elements of a contiguous 1-D float array, each by its weight (default 1).

        Raises:
            NotFiniteError: NaN or infinity among the elements.
        """
        if not flat.size:
            return
        low, high = extrema(flat)
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._widen(_exponent(max(-low, high), self.bins))
        start, stop = int(np.floor(low / self.width)), int(np.floor(high / self.width))
        self._reach(start, stop)
        scale = flat.dtype.type(2.0**-self.exponent)
        real, whole = np.empty(min(PIECE, flat.size), flat.dtype), np.empty(min(PIECE, flat.size), np.intp)
        for begin in range(0, flat.size, PIECE):
            piece = flat[begin : begin + PIECE]
            scaled, index = real[: piece.size], whole[: piece.size]
            np.multiply(piece, scale, out=scaled)
            np.floor(scaled, out=scaled)
            np.subtract(scaled, self.first, out=index, casting="unsafe")
            part = None if weights is None else weights[begin : begin + PIECE]
            found = np.bincount(index, part)
            self.counts[: found.size] += found

    def merge(self, other: Histogram) -> None:
        """Add the counts of another histogram with the same number of bins."""
        if other.bins != self.bins:
            raise ValueError(f"{self.bins} and {other.bins} bins cannot be merged")
        if not other.counts.size:
            return
        self._widen(other.exponent)
        wide = other.coarser(self.exponent)
        self._reach(wide.first, wide.first + wide.counts.size - 1)
        self.counts[wide.first - self.first :][: wide.counts.size] += wide.counts
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)

    def coarser(self, exponent: int) -> Histogram:
        """A copy whose bins are ``2**exponent`` wide (at least as wide as now)."""
        copy = Histogram(self.bins)
        copy.exponent, copy.first, copy.counts = self.exponent, self.first, self.counts.copy()
        copy.low, copy.high = self.low, self.high
        copy._widen(exponent)
        return copy

    def _widen(self, exponent: int) -> None:
        """Merge neighbours until bins are at least ``2**exponent`` wide."""
        shift = exponent - self.exponent
        if shift <= 0:
            return
        self.exponent = exponent
        if self.counts.size:
            index = np.arange(self.first, self.first + self.counts.size) >> min(shift, 62)
            self.first = int(index[0])
            self.counts = np.bincount(index - self.first, self.counts).astype(np.float64, copy=False)

    def _reach(self, start: int, stop: int) -> None:
        """Let ``counts`` hold the bins ``start … stop``."""
        if not self.counts.size:
            self.first, self.counts = start, np.zeros(stop - start + 1)
            return
        before = max(self.first - start, 0)
        after = max(stop - (self.first + self.counts.size - 1), 0)
        if before or after:
            self.counts = np.concatenate([np.zeros(before), self.counts, np.zeros(after)])
            self.first -= before

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything, as arrays."""
        place = np.array([self.exponent, self.first], np.int64)
        return {"place": place, "counts": self.counts, "range": np.array([self.low, self.high])}

    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        """The inverse of ``state``."""
        self.exponent, self.first = (int(item) for item in state["place"])
        self.counts = np.array(state["counts"], np.float64)
        self.low, self.high = (float(item) for item in state["range"])


def _exponent(magnitude: float, bins: int) -> int:
    """The least exponent at which ``bins`` bins on each side hold ``magnitude``."""
    if magnitude == 0:
        return _LEAST_EXPONENT
    return max(int(np.frexp(magnitude)[1]) - (bins.bit_length() - 1), _LEAST_EXPONENT)
