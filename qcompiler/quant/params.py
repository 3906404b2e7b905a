"""Scales and zero points, and how a range becomes them.

Affine quantization has two demands (gemmlowp, *doc/quantization.md*): ``real = scale * (q - zero_point)``, and
real zero must be a code exactly, because padding and Relu produce exact zeros. So a range is first widened to
hold zero; the scale is the range over the number of steps; the zero point is the code nearest to where zero
falls (rounding: ``half_even``). After the zero point is rounded an end of the range may move by up to half a step.

A scale that must be a power of two is the least one that covers the range. It covers more than the range, and of the
zero points at which nothing is cut the one nearest to where zero falls is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcompiler.quant.format import QFormat
from qcompiler.quant.log_grids import Grid

__all__ = ["QParams", "params_from_range", "params_of_grid", "power_of_two_above"]

MINIMUM_SCALE = 2.0**-100
"""Below this a float32 product of two scales underflows to a subnormal number."""


@dataclass(frozen=True, slots=True, eq=False)
class QParams:
    """Scale and zero point of one tensor.

    Attributes:
        scale: float32, shape ``()`` per tensor, ``(C,)`` per axis, or the tensor's shape with the axis divided by
            the block per block. Always positive and finite.
        zero_point: int32, the same shape.
        grid: Of a ``log`` format: what its codes stand for. Scale and zero point are those of the integers that codes
            are decoded to (:func:`params_of_grid`), so whoever multiplies those needs to know nothing else.
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int32]
    grid: Grid | None = None

    def __post_init__(self) -> None:
        if self.scale.shape != self.zero_point.shape:
            raise ValueError(f"scale {self.scale.shape} and zero point {self.zero_point.shape} differ in shape")
        if not (np.isfinite(self.scale).all() and (self.scale > 0).all()):
            raise ValueError("scales must be positive and finite")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QParams):
            return NotImplemented
        same = np.array_equal(self.scale, other.scale) and np.array_equal(self.zero_point, other.zero_point)
        return same and self.grid == other.grid

    def __hash__(self) -> int:
        return hash((self.scale.tobytes(), self.zero_point.tobytes(), self.grid))


def params_of_grid(grid: Grid) -> QParams:
    """Parameters of a tensor whose codes count along a grid."""
    return QParams(np.asarray(grid.scale, np.float32), np.asarray(0, np.int32), grid)


def params_from_range(
    minimum: ArrayLike, maximum: ArrayLike, form: QFormat, *, scale_floor: float = MINIMUM_SCALE
) -> QParams:
    """Scale and zero point that make ``form`` cover ``[minimum, maximum]``.

    Args:
        minimum: Least real value, any shape (one entry per scale).
        maximum: Greatest real value, the same shape.
        form: The storage format.
        scale_floor: Least scale; a dead channel or constant zero gets this scale times a power that keeps it sane.

    Returns:
        Parameters of the same shape as the range.
    """
    low = np.minimum(np.asarray(minimum, np.float64), 0.0)
    high = np.maximum(np.asarray(maximum, np.float64), 0.0)
    if form.symmetric:
        bound = np.maximum(-low, high)
        positive = form.maximum if form.signed else form.maximum - (form.maximum + 1) // 2
        scale = bound / positive
        middle = 0 if form.signed else (form.maximum + 1) // 2
        zero = np.full(scale.shape, middle, np.int32)
    else:
        scale = (high - low) / (form.maximum - form.minimum)
        safe = np.where(scale > 0, scale, 1.0)
        zero = np.clip(np.rint(form.minimum - low / safe), form.minimum, form.maximum).astype(np.int32)
    if form.power_of_two:
        scale = power_of_two_above(np.where(scale > 0, scale, 1.0))
        zero = zero if form.symmetric else _covering_zero(low, high, scale, form)
        scale_floor = float(power_of_two_above(np.float64(scale_floor)))
    floor = max(scale_floor, MINIMUM_SCALE)
    # An all-zero tensor is represented exactly by any scale: 1 keeps later products of scales far from underflow.
    scale = np.where(scale == 0, 1.0, np.maximum(scale, floor))
    return QParams(scale.astype(np.float32), zero)


def power_of_two_above(scale: ArrayLike) -> NDArray[np.float64]:
    """The least power of two that is not below each positive ``scale``, except by float32 rounding."""
    # A scale may be a power of two plus the rounding of a division: as float32 it is that power.
    mantissa, exponent = np.frexp(np.asarray(scale, np.float64).astype(np.float32))
    return np.asarray(np.ldexp(1.0, np.where(mantissa == 0.5, exponent - 1, exponent)), np.float64)


def _covering_zero(
    low: NDArray[np.float64], high: NDArray[np.float64], scale: NDArray[np.float64], form: QFormat
) -> NDArray[np.int32]:
    """The zero point nearest to where ``low`` makes it fall; where possible, one at which both ends have codes."""
    least, greatest = np.ceil(form.minimum - low / scale), np.floor(form.maximum - high / scale)
    zero = np.rint(form.minimum - low / scale)
    zero = np.where(least <= greatest, np.clip(zero, least, np.maximum(least, greatest)), zero)
    return np.asarray(np.clip(zero, form.minimum, form.maximum).astype(np.int32))
