"""Grids of few bits for tensors whose values crowd near zero: which ones there are, and which fits best.

A grid is a list of ``2^bits`` ascending values; every number goes to the nearest one. Four families::

    uniform              v = i * s                                        with the best clip: what the others must beat
    log2                 v = t * 2^-i                                     i = 0 ... 2^bits - 1
    searched base        v = t * 2^(-i * step)                            step a multiple of 1/16
    shift-uniform-log2   v = (t + h) * r^i - h,   r = (h / (t + h))^(1/(2^bits - 1))

The last one is uniform in ``log(x + h)`` between 0 and ``t``: it holds zero exactly, and its steps grow with ``x + h``.
Families with ``t`` alone never reach zero and waste no code on it.

The error of a grid on sorted numbers takes ``2^bits`` look-ups and no pass over them: with prefix sums of ``x`` and
``x^2`` a cell that holds the numbers ``a ... b`` errs by ``S2 - 2 v S1 + v^2 (b - a)``. So families are searched by
trying parameters, and the family is chosen by what was measured: at 3 bits uniform can win.

Sources: I&S-ViT (arXiv:2311.10126, section 3.2) for the shift, AdaLog (arXiv:2407.12951, section 3.2) for the base.
Rounding differs from both: to the nearest value and not to the nearest exponent, which never errs more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qcompiler.quant.params import QParams

__all__ = ["KINDS", "Grid", "Sorted", "best_grids", "decoded_values", "encode_thresholds"]

KINDS: Final = ("uniform", "log2", "searched-base", "shift-uniform-log2")

_CLIPS: Final = np.concatenate([np.linspace(0.02, 0.3, 29), np.linspace(0.32, 1.0, 35)])
_TOPS: Final = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)
_STEPS: Final = np.arange(2, 33) / 16
_SHIFTS: Final = 2.0 ** -np.arange(1.0, 16.5, 0.5)

_Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Values that codes stand for.

    Attributes:
        kind: One of ``KINDS``.
        values: Ascending, float64.
        error: Sum of squared errors on the numbers it was fitted to, over their sum of squares.
    """

    kind: str
    values: _Values
    error: float

    def borders(self) -> _Values:
        """Halfway between neighbours."""
        return (self.values[1:] + self.values[:-1]) / 2


class Sorted:
    """Numbers in order, with sums that tell the error of a grid without looking at each.

    Args:
        numbers: Any shape, finite.
    """

    def __init__(self, numbers: NDArray[Any]) -> None:
        self.numbers: _Values = np.sort(np.asarray(numbers, np.float64).reshape(-1))
        self._sums = np.concatenate([[0.0], np.cumsum(self.numbers)])
        self._squares = np.concatenate([[0.0], np.cumsum(np.square(self.numbers))])

    @property
    def power(self) -> float:
        """Sum of squares."""
        return float(self._squares[-1])

    @property
    def top(self) -> float:
        """The greatest number, 0 where there is none."""
        return float(self.numbers[-1]) if self.numbers.size else 0.0

    def error(self, values: _Values) -> float:
        """Sum of squared distances to the nearest of ascending ``values``."""
        inner = np.searchsorted(self.numbers, (values[1:] + values[:-1]) / 2)
        ends = np.concatenate([[0], inner, [self.numbers.size]])
        count, total, squares = (np.diff(item[ends]) for item in (np.arange(ends[-1] + 1), self._sums, self._squares))
        return max(float((squares - 2 * values * total + np.square(values) * count).sum()), 0.0)


def best_grids(numbers: NDArray[Any], bits: int) -> dict[str, Grid]:
    """The best grid of each family, by measured squared error.

    Args:
        numbers: What a tensor held on calibration samples, not negative: probabilities, or a Gelu plus its least value.
        bits: Bits of a code, 2 to 7.

    Raises:
        ValueError: Numbers below zero, or other widths.
    """
    if not 2 <= bits <= 7:
        raise ValueError(f"grids have 2 to 7 bits, not {bits}")
    ordered = Sorted(numbers)
    if ordered.numbers.size and ordered.numbers[0] < 0:
        raise ValueError(f"grids begin at zero: the least number is {ordered.numbers[0]:g}")
    if ordered.power == 0:
        raise ValueError("all numbers are zero: there is nothing to fit")
    found: dict[str, Grid] = {}
    for kind, values in _candidates(ordered.top, 1 << bits):
        error = ordered.error(values) / ordered.power
        if kind not in found or error < found[kind].error:
            found[kind] = Grid(kind, values, error)
    return found


def _candidates(top: float, levels: int) -> Iterator[tuple[str, _Values]]:
    """All grids that are tried."""
    index = np.arange(levels, dtype=np.float64)
    for clip in _CLIPS:
        yield "uniform", index * (top * clip / (levels - 1))
    for share in _TOPS:
        yield "log2", top * share * np.exp2(-index[::-1])
        for step in _STEPS:
            yield "searched-base", top * share * np.exp2(-step * index[::-1])
        for shift in top * _SHIFTS:
            ratio = (shift / (top * share + shift)) ** (1 / (levels - 1))
            # From below: r^i of the greatest value first, so that zero comes out as zero.
            values: _Values = (top * share + shift) * ratio ** index[::-1] - shift
            yield "shift-uniform-log2", np.maximum(values, 0.0)


def decoded_values(grid: Grid) -> tuple[NDArray[np.int16], np.float32]:
    """The grid for ``QLogDequantize``: int16 codes with zero point 0, and the scale that they share.

    Rounding: ``half_even``, once; the greatest value becomes 32767.
    """
    scale = np.float32(grid.values[-1] / 32767)
    codes = np.clip(np.rint(grid.values / np.float64(scale)), -32768, 32767)
    return codes.astype(np.int16), scale


def encode_thresholds(grid: Grid, params: QParams, dtype: type[np.int8] | type[np.int16]) -> NDArray[Any]:
    """The grid for ``QLogQuantize``: borders in codes of the tensor that is encoded, ties going upwards.

    Args:
        grid: The grid.
        params: Scale and zero point of the codes that are encoded, one per tensor.
        dtype: Their type.
    """
    limits = np.iinfo(dtype)
    codes = np.ceil(grid.borders() / float(params.scale) + int(params.zero_point))
    return np.clip(codes, limits.min, limits.max).astype(dtype)
