"""What a sample looks like, in a few numbers that cost one look at it.

Two kinds, for two questions. *Traits* say whether a sample is of the same kind as the others: level, spread, extremes,
roughness, spikes; a wrong preprocessing, noise, a blank frame or a damaged record changes one of them by much. A
*sketch* says which samples are alike: the tensor averaged over a coarse grid, or how often its identifiers occur.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Trait", "sketch", "traits"]

_GRID: Final = 4
"""Cells along each long axis of a sketch."""

_WORDS: Final = 64
"""Counters into which identifiers are spread."""

_SHARE: Final = 0.1
"""What a logarithm or a share may differ by without meaning anything."""

_LEVEL: Final = 0.3
"""The same for the level, as a share of a sample's own spread."""

_EXTREME: Final = 0.1
"""The same for extremes, which have bounds (black, white) more often than not."""


class Trait(NamedTuple):
    """One figure of a sample.

    Attributes:
        figure: The figure.
        least: The least difference that means something.
        side: 1 where only more than usual is strange, -1 where only less is, 0 where both are.
    """

    figure: float
    least: float
    side: int = 0


def traits(feed: Mapping[str, NDArray[Any]]) -> dict[str, Trait]:
    """Traits of a sample by name; samples of different lengths have the same ones."""
    found: dict[str, Trait] = {}
    for name, array in feed.items():
        own = _real(array) if array.dtype.kind == "f" else _discrete(array)
        found |= {f"{trait} of '{name}'": item for trait, item in own.items()}
    return found


def _real(array: NDArray[Any]) -> dict[str, Trait]:
    wide = array.astype(np.float64)
    if wide.size == 0:
        return {}
    mean, deviation = float(wide.mean()), float(wide.std())
    tiny = 1e-6 * (abs(mean) + 1e-6)
    figures = {
        "level": Trait(mean, _LEVEL * deviation),
        "least value": Trait(float(wide.min()), _EXTREME * deviation, -1),
        "greatest value": Trait(float(wide.max()), _EXTREME * deviation, 1),
        "spread": Trait(float(np.log(deviation + tiny)), _SHARE),
    }
    if deviation > tiny:  # a constant has neither spikes nor roughness
        figures["spikes"] = Trait(float(np.log(np.abs(wide - mean).max() / deviation)), _SHARE)
        steps = [np.abs(np.diff(wide, axis=axis)).mean() for axis in _long_axes(wide.shape)]
        if steps:
            figures["roughness"] = Trait(float(np.log(np.mean(steps) / deviation + 1e-6)), _SHARE)
    return figures


def _discrete(array: NDArray[Any]) -> dict[str, Trait]:
    if array.size == 0:
        return {}
    _, counts = np.unique(array, return_counts=True)
    return {
        "share of the commonest entry": Trait(float(counts.max() / array.size), _SHARE),
        "share of different entries": Trait(float(len(counts) / array.size), _SHARE),
    }


def _long_axes(shape: tuple[int, ...]) -> list[int]:
    """The last two axes along which neighbours can be compared."""
    return [axis for axis in range(len(shape))[-2:] if shape[axis] > 1]


def sketch(feed: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """A coarse picture of a sample: 1-D, of the same length for all samples of equal rank and channels."""
    parts = [_coarse(array) if array.dtype.kind == "f" else _occurrences(array) for array in feed.values()]
    return np.concatenate([part.reshape(-1) for part in parts]) if parts else np.zeros(0)


def _coarse(array: NDArray[Any]) -> NDArray[np.float64]:
    """Means over a grid; the spread of the whole tensor beside them."""
    cells = array.astype(np.float64)
    deviation = cells.std() if cells.size else 0.0
    for axis, size in enumerate(array.shape):
        # The axis after the batch holds channels where more axes follow: those few are kept apart.
        if size > _GRID and not (axis == 1 and array.ndim > 2 and size <= _WORDS):
            starts = np.linspace(0, size, _GRID, endpoint=False).astype(np.int64)
            lengths = np.diff(np.append(starts, size))
            shape = [-1 if other == axis else 1 for other in range(cells.ndim)]
            cells = np.add.reduceat(cells, starts, axis=axis) / lengths.reshape(shape)
    return np.append(cells, deviation)


def _occurrences(array: NDArray[Any]) -> NDArray[np.float64]:
    """Shares of identifiers, spread over counters by a multiplicative hash (Knuth, vol. 3, 6.4)."""
    spread = (array.astype(np.int64).reshape(-1).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(58)
    counts = np.bincount(spread.astype(np.int64), minlength=_WORDS).astype(np.float64)
    return np.sqrt(counts / max(array.size, 1))
