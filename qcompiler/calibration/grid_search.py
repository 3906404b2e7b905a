"""Which grid of few bits fits the values of a tensor best, by measured squared error.

The error of a grid on sorted numbers takes ``2^bits`` look-ups and no pass over them: with prefix sums of ``1``, ``x``
and ``x^2`` a cell that holds the numbers ``a ... b`` errs by ``S2 - 2 v S1 + v^2 S0``. So families are searched by
trying parameters, and the family is chosen by what was measured: at 3 bits uniform can win. Errors are those of the
values as they will be decoded, rounded to 16 bits.

Of a stream of tensors nothing is kept but sums per class of numbers that share sign, exponent and the first 7 bits of
their mantissa (:class:`ValueSums`): a number is at most 0.4 % from the middle of its class, and sums are exact, so only
what lies within one class of a border may be counted to the wrong neighbour.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.collectors import State, flatten
from qcompiler.calibration.histogram import PIECE, NotFiniteError
from qcompiler.quant.log_grids import KINDS, Grid

__all__ = ["Fit", "Sorted", "ValueSums", "best_grids"]

_CLIPS: Final = (*np.linspace(0.02, 0.3, 29), *np.linspace(0.32, 1.0, 35))
_TOPS: Final = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)
_STEPS: Final = tuple(np.arange(2, 33) / 16)
_SHIFTS: Final = tuple(2.0 ** -np.arange(1.0, 16.5, 0.5))
_DROPPED: Final = 16
"""Bits of a float32 that do not tell classes apart."""

_Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Fit:
    """A grid and its sum of squared errors on the numbers it was fitted to, over their sum of squares."""

    grid: Grid
    error: float


class Sorted:
    """Numbers in order, with sums that tell the error of a grid without looking at each.

    Args:
        numbers: Any shape, finite.
        counts: How often each number counts; by default once.
        squares: Sum of the squares that each number stands for; by default ``counts * numbers^2``.
    """

    def __init__(self, numbers: NDArray[Any], counts: _Values | None = None, squares: _Values | None = None) -> None:
        flat = np.asarray(numbers, np.float64).reshape(-1)
        order = np.argsort(flat, kind="stable")
        self.numbers: _Values = flat[order]
        weights = np.ones(flat.size) if counts is None else counts[order]
        powers = weights * np.square(self.numbers) if squares is None else squares[order]
        self._sums = np.array([np.concatenate([[0.0], np.cumsum(item)]) for item in
                               (weights, weights * self.numbers, powers)])  # fmt: skip

    @property
    def power(self) -> float:
        """Sum of squares."""
        return float(self._sums[2, -1])

    @property
    def low(self) -> float:
        """The least number, 0 where there is none."""
        return float(self.numbers[0]) if self.numbers.size else 0.0

    @property
    def top(self) -> float:
        """The greatest number, 0 where there is none."""
        return float(self.numbers[-1]) if self.numbers.size else 0.0

    def error(self, values: _Values) -> float:
        """Sum of squared distances to the nearest of ascending ``values``."""
        inner = np.searchsorted(self.numbers, (values[1:] + values[:-1]) / 2)
        ends = np.concatenate([[0], inner, [self.numbers.size]])
        count, total, squares = np.diff(self._sums[:, ends])
        return max(float((squares - 2 * values * total + np.square(values) * count).sum()), 0.0)


class ValueSums:
    """Collects what :class:`Sorted` needs of a stream of tensors, in constant memory."""

    def __init__(self) -> None:
        self._sums: NDArray[np.float64] = np.zeros((3, 1 << (32 - _DROPPED)))

    def update(self, array: NDArray[Any], weights: NDArray[Any] | None = None) -> None:
        """Count the elements of ``array``, each by the weight of its row.

        Raises:
            NotFiniteError: NaN or infinity among the elements.
        """
        flat, each = flatten(array.astype(np.float32, copy=False), weights)
        for start in range(0, flat.size, PIECE):
            piece = flat[start : start + PIECE]
            if not np.isfinite(piece).all():
                raise NotFiniteError("NaN" if np.isnan(piece).any() else "infinity")
            part = None if each is None else each[start : start + PIECE]
            self._add(piece, part)

    def _add(self, piece: NDArray[np.float32], weights: NDArray[np.float64] | None) -> None:
        classes = (piece.view(np.uint32) >> _DROPPED).astype(np.intp)
        once = np.ones(piece.size) if weights is None else weights
        real = piece.astype(np.float64)
        for sums, item in zip(self._sums, (once, once * real, once * np.square(real)), strict=True):
            found = np.bincount(classes, item)
            sums[: found.size] += found

    def sorted(self) -> Sorted:
        """The numbers that stand for all that was seen: the mean of each class."""
        seen = np.flatnonzero(self._sums[0])
        count, total, squares = self._sums[:, seen]
        return Sorted(total / count, count, squares)

    def settings(self) -> str:
        """What was counted."""
        return f"value sums dropped={_DROPPED}"

    def state(self) -> State:
        """The classes that hold something."""
        seen = np.flatnonzero(self._sums[0])
        return {"classes": seen, "sums": self._sums[:, seen]}

    def restore(self, state: State) -> None:
        """The inverse of ``state``."""
        self._sums = np.zeros_like(self._sums)
        self._sums[:, state["classes"]] = state["sums"]


def best_grids(
    numbers: NDArray[Any] | Sorted, bits: int, kinds: Sequence[str] = KINDS, *, floor: float = 0.0
) -> dict[str, Fit]:
    """The best grid of each family, by measured squared error.

    Args:
        numbers: What a tensor held on calibration samples: probabilities, the results of a Gelu.
        bits: Bits of a code, 2 to 7.
        kinds: Families to try.
        floor: Where grids begin; 0 for numbers that are not negative.

    Raises:
        ValueError: Numbers below the floor, or other widths.
    """
    ordered = numbers if isinstance(numbers, Sorted) else Sorted(numbers)
    if ordered.numbers.size and ordered.low < floor:
        raise ValueError(f"grids begin at {floor:g}: the least number is {ordered.low:g}")
    if ordered.power == 0 or ordered.top <= floor:
        raise ValueError("all numbers are zero, or as great as each other: there is nothing to fit")
    found: dict[str, Fit] = {}
    for grid in _candidates(ordered.top - floor, bits, kinds, floor):
        error = ordered.error(grid.decoded() * np.float64(grid.scale)) / ordered.power
        if grid.kind not in found or error < found[grid.kind].error:
            found[grid.kind] = Fit(grid, error)
    return found


def _candidates(top: float, bits: int, kinds: Sequence[str], floor: float) -> Iterator[Grid]:
    """All grids that are tried, of numbers that a plan can show in six digits."""

    def short(number: float) -> float:
        return float(f"{number:.6g}")

    floor = short(floor)
    if "uniform" in kinds:
        yield from (Grid("uniform", bits, short(top * clip), floor=floor) for clip in _CLIPS)
    for span in (short(top * share) for share in _TOPS):
        if "log2" in kinds:
            yield Grid("log2", bits, span, step=1.0, floor=floor)
        if "searched-base" in kinds:
            yield from (Grid("searched-base", bits, span, step=float(step), floor=floor) for step in _STEPS)
        if "shift-uniform-log2" in kinds:
            yield from (
                Grid("shift-uniform-log2", bits, span, shift=short(top * part), floor=floor) for part in _SHIFTS
            )
