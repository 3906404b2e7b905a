"""Which channel every element of a tensor belongs to, as a sum of what each axis contributes.

A transformer moves its channels about: ``[N, L, H D]`` becomes ``[N, L, H, D]`` and ``[N, H, L, D]``, key heads are
repeated, halves are cut out and put together again. Each of these keeps the form
``label(i0, i1, …) = base + part0[i0] + part1[i1] + …``, which needs one short array per axis whatever the length of
the sequence is, and stays valid where sizes of other axes are unknown.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Labels", "Layout", "Sizes", "along"]

Labels: TypeAlias = NDArray[np.int64]
Sizes: TypeAlias = tuple[int | None, ...]
"""A shape; ``None`` where a size is not known."""

_MOST: Final = 1 << 22
"""Labels that are written out at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Labels of a tensor's elements.

    Attributes:
        parts: For each axis what its index adds, starting at 0; ``None`` where the label does not depend on it.
        base: The label of the first element.
    """

    parts: tuple[Labels | None, ...]
    base: int = 0

    def labels(self, *axes: int) -> Labels:
        """Labels along some axes (negative ones count from the end), index 0 on all others."""
        parts = (self.parts[axis] for axis in axes)
        grids = [np.zeros(1, np.int64) if part is None else part for part in parts]
        found: Labels = functools.reduce(np.add.outer, grids, np.asarray(self.base, np.int64))
        return found

    def all(self) -> Labels:
        """Every label that occurs, once."""
        return np.unique(self.labels(*range(len(self.parts))))

    def depends(self, *axes: int) -> bool:
        """Whether the label varies along one of the axes."""
        return any(self.parts[axis] is not None for axis in axes)

    def transposed(self, order: Sequence[int]) -> Layout:
        """Behind Transpose."""
        return replace(self, parts=tuple(self.parts[axis] for axis in order))

    def taken(self, axis: int, indices: Labels) -> Layout:
        """Behind a selection of elements along an axis."""
        part = self.parts[axis]
        return self if part is None else self.replaced(axis, part[indices])

    def picked(self, axis: int, index: int) -> Layout:
        """Behind the selection of one element, whose axis is dropped."""
        one = self.taken(axis, np.array([index], np.int64))
        axis %= len(self.parts)
        return replace(one, parts=one.parts[:axis] + one.parts[axis + 1 :])

    def tiled(self, repeats: Sequence[int]) -> Layout:
        """Behind Tile."""
        pairs = zip(self.parts, repeats, strict=True)
        return replace(self, parts=tuple(part if part is None else np.tile(part, count) for part, count in pairs))

    def broadcast(self, rank: int) -> Layout:
        """Behind an operation that adds leading axes, or makes axes of size 1 longer."""
        return replace(self, parts=(None,) * (rank - len(self.parts)) + self.parts)

    def reshaped(self, before: Sizes, after: Sizes) -> Layout | None:
        """Behind Reshape; ``None`` where the new axes do not say the label by a sum, or sizes are not known."""
        parts: list[Labels | None] = [None] * len(after)
        base, i, j = self.base, len(before) - 1, len(after) - 1
        while any(part is not None for part in self.parts[: i + 1]):
            first, last = i, j
            left, right = before[i], after[j] if j >= 0 else 1
            while left != right:
                if left is None or right is None or (left < right and i == 0) or (left > right and j <= 0):
                    return None
                if left < right:
                    i -= 1
                    left = None if before[i] is None else left * (before[i] or 0)
                else:
                    j -= 1
                    right = None if after[j] is None else right * (after[j] or 0)
            group = _regrouped(self.parts[i : first + 1], before[i : first + 1], after[max(j, 0) : last + 1])
            if group is None:
                return None
            parts[max(j, 0) : last + 1] = group
            i, j = i - 1, j - 1
        return Layout(tuple(parts), base)

    def replaced(self, axis: int, part: Labels) -> Layout:
        """With other labels along an axis; they may start anywhere."""
        axis %= len(self.parts)
        start = int(part[0]) if part.size else 0
        rest = part - start
        parts = (*self.parts[:axis], rest if rest.any() else None, *self.parts[axis + 1 :])
        return Layout(parts, self.base + start)

    @staticmethod
    def joined(layouts: Sequence[Layout], axis: int, sizes: Sequence[int | None]) -> Layout | None:
        """Behind Concat; ``None`` where the parts differ in more than where they begin."""
        first = layouts[0]
        axis %= len(first.parts)
        for other in layouts[1:]:
            pairs = [pair for at, pair in enumerate(zip(first.parts, other.parts, strict=True)) if at != axis]
            if any(not _same(one, two) for one, two in pairs):
                return None
        pieces = []
        for layout, size in zip(layouts, sizes, strict=True):
            part = layout.parts[axis]
            if part is None and size is None:
                return None
            pieces.append((np.zeros(size or 0, np.int64) if part is None else part) + layout.base - first.base)
        return first.replaced(axis, np.concatenate(pieces)) if pieces else None


def along(rank: int, axis: int, first: int, count: int) -> Layout:
    """Labels ``first``, ``first + 1``, … along one axis."""
    parts: list[Labels | None] = [None] * rank
    parts[axis] = np.arange(count, dtype=np.int64) if count > 1 else None
    return Layout(tuple(parts), first)


def _same(one: Labels | None, two: Labels | None) -> bool:
    return (one is None and two is None) or (one is not None and two is not None and np.array_equal(one, two))


def _regrouped(parts: tuple[Labels | None, ...], before: Sizes, after: Sizes) -> list[Labels | None] | None:
    """The parts of axes that are split or merged; ``None`` where their sum cannot be written so."""
    if all(part is None for part in parts):
        return [None] * len(after)
    if len(parts) == len(after) == 1:
        return list(parts)
    if math.prod(size or 0 for size in before) > _MOST:
        return None
    grids = [np.zeros(size or 0, np.int64) if part is None else part for part, size in zip(parts, before, strict=True)]
    whole = functools.reduce(np.add.outer, grids).reshape([size or 0 for size in after])
    origin = (0,) * whole.ndim
    found: list[Labels | None] = []
    total = np.zeros(whole.shape, np.int64)
    for axis in range(whole.ndim):
        index: tuple[int | slice, ...] = (*origin[:axis], slice(None), *origin[axis + 1 :])
        line = whole[index]
        found.append(line.copy() if line.any() else None)
        total += line.reshape([-1 if at == axis else 1 for at in range(whole.ndim)])
    return found if np.array_equal(total, whole) else None
