"""Means over samples, for corrections that are linear in the activations."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.collectors import Range, State, broadcast
from qcompiler.calibration.histogram import NotFiniteError
from qcompiler.errors import UsageError

__all__ = ["MeanObserver"]


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
