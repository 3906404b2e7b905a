"""What learns from a stream of tensors, and how row weights reach it."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qcompiler.quant.format import QFormat

__all__ = ["Collector", "Observer", "Range", "State", "broadcast", "flatten"]

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
