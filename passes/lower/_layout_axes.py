"""Axes when channels move behind the spatial axes: ``[N, C, spatial...]`` becomes ``[N, spatial..., C]``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["last_axis", "to_first", "to_last", "turned", "turned_constant"]

Item = TypeVar("Item")


def to_last(rank: int) -> tuple[int, ...]:
    """The permutation of a Transpose from channels first to channels last."""
    return (0, *range(2, rank), 1)


def to_first(rank: int) -> tuple[int, ...]:
    """The permutation of a Transpose from channels last to channels first."""
    return (0, rank - 1, *range(1, rank - 1))


def last_axis(axis: int, rank: int) -> int:
    """Where an axis (negative ones count from the end) of channels-first codes lies once channels are last."""
    return to_last(rank).index(axis % rank)


def turned(items: Sequence[Item]) -> tuple[Item, ...]:
    """One item per axis, in the order of channels last."""
    return tuple(items[axis] for axis in to_last(len(items)))


def turned_constant(content: NDArray[Any], rank: int, *, behind: int = 0) -> NDArray[Any]:
    """A constant that broadcasts against channels-first codes, so that it broadcasts against channels-last ones.

    Args:
        content: The constant.
        rank: Rank of the codes.
        behind: Axes of the constant behind those of the codes (digits of a factor).

    Returns:
        The same numbers without leading axes of size 1; scalars stay scalars.
    """
    if content.ndim == 0:
        return content
    axes = rank + behind
    full = content.reshape((1,) * (axes - content.ndim) + content.shape)
    moved = np.moveaxis(full, 1, rank - 1)
    while moved.ndim > max(behind, 1) and moved.shape[0] == 1:
        moved = moved[0]
    return np.ascontiguousarray(moved)
