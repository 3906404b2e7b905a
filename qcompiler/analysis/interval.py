"""The interval of one tensor: bounds per channel in float64, and the arithmetic that keeps them sound.

A bound speaks about the float tensor a runtime computes, not about the real number the operator means, so every
rule widens its result by what rounding may have added: ``eps = 2 u`` of the element type, twice the unit roundoff,
per rounding, relative to the magnitudes that were added. Only results without any rounding stay exact: a product
with zero weights is zero, a clipped value is the clip's bound. All statements assume finite inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

__all__ = ["Bounds", "Float64", "Interval", "epsilon", "product", "rounded", "settled", "unbounded", "underflow"]

_LIMITS: dict[ir.DataType, tuple[float, float]] = {
    ir.DataType.FLOAT: (2.0**-23, float(np.finfo(np.float32).max)),
    ir.DataType.DOUBLE: (2.0**-52, float(np.finfo(np.float64).max)),
    ir.DataType.FLOAT16: (2.0**-10, 65504.0),
    ir.DataType.BFLOAT16: (2.0**-7, 3.38e38),
}
"""Element type → (twice the unit roundoff, largest finite number)."""

_UNDERFLOW: dict[ir.DataType, float] = {
    ir.DataType.FLOAT: 2.0**-126,
    ir.DataType.DOUBLE: 2.0**-1022,
    ir.DataType.FLOAT16: 2.0**-24,
    ir.DataType.BFLOAT16: 2.0**-126,
}
"""What one result may lose near zero, where rounding is absolute: subnormal numbers may be flushed."""

_WORST = (2.0**-7, 65504.0)
"""For an unknown element type: the coarsest rounding and the smallest range of those above."""

Float64 = NDArray[np.float64]
Bounds = tuple[Float64, Float64]


@dataclass(frozen=True, eq=False, slots=True)
class Interval:
    """Closed bounds of every element of a tensor.

    Attributes:
        low: Lower bounds, one per channel; ``-inf`` where unknown.
        high: Upper bounds, same length.
        axis: The axis the channels lie along (never negative); ``None`` when one bound holds for the whole tensor,
            and ``low`` then has length 1.
    """

    low: Float64
    high: Float64
    axis: int | None = None

    @property
    def hull(self) -> tuple[float, float]:
        """One bound for the whole tensor."""
        if self.low.size == 0:
            return 0.0, 0.0
        return float(self.low.min()), float(self.high.max())

    @property
    def bounded(self) -> bool:
        """Whether every bound is finite."""
        return bool(np.isfinite(self.low).all() and np.isfinite(self.high).all())

    def along(self, axis: int | None, count: int) -> Bounds:
        """Bounds for each of ``count`` channels along ``axis``; the hull repeated when channels are not known."""
        if axis is not None and self.axis == axis and self.low.size == count:
            return self.low, self.high
        low, high = self.hull
        return np.full(count, low), np.full(count, high)

    def constant(self) -> NDArray[np.bool_]:
        """Which channels can hold one number only."""
        return np.asarray(self.low == self.high)


def unbounded() -> Interval:
    """The interval of a tensor about which nothing is known."""
    return Interval(np.array([-np.inf]), np.array([np.inf]))


def epsilon(value: ir.Value | None) -> float:
    """Twice the unit roundoff of the value's element type; the coarsest of all where the type is unknown."""
    dtype = None if value is None else value.dtype
    if dtype is None:
        return _WORST[0]
    return _LIMITS.get(dtype, (0.0, 0.0))[0]


def underflow(value: ir.Value | None) -> float:
    """What one non-zero result of the value's element type may lose near zero; the coarsest where it is unknown."""
    dtype = None if value is None else value.dtype
    return _UNDERFLOW[ir.DataType.FLOAT16] if dtype is None else _UNDERFLOW.get(dtype, 0.0)


def settled(interval: Interval, value: ir.Value) -> Interval:
    """The interval as the value can hold it: a channel that might overflow its type is unbounded."""
    dtype = value.dtype
    if dtype is None:
        limit = _WORST[1]
    elif dtype.is_integer():
        limit = float(2 ** min(dtype.bitwidth - 1, 53))
    else:
        limit = _LIMITS.get(dtype, (0.0, np.inf))[1]
    largest = np.abs(interval.low).max(initial=0.0), np.abs(interval.high).max(initial=0.0)
    real = dtype is None or not dtype.is_integer()
    if real and largest[0] <= limit and largest[1] <= limit:  # not so where there is a NaN
        return interval
    wild = (interval.low > limit) | (interval.high < -limit) | np.isnan(interval.low) | np.isnan(interval.high)
    if dtype is not None and dtype.is_integer() and not dtype.is_signed():
        wild |= interval.low < 0
    low = np.where(wild | (interval.low < -limit), -np.inf, interval.low)
    high = np.where(wild | (interval.high > limit), np.inf, interval.high)
    return Interval(low, high, interval.axis)


def rounded(low: Float64, high: Float64, value: ir.Value, roundings: int = 1) -> Bounds:
    """Widen bounds of a result by ``roundings`` roundings relative to itself; a single number is rounded instead."""
    eps, least = epsilon(value) * roundings, underflow(value) * roundings
    wide_low = low - eps * np.abs(low) - np.where(low == 0, 0.0, least)
    wide_high = high + eps * np.abs(high) + np.where(high == 0, 0.0, least)
    if roundings != 1 or value.dtype != ir.DataType.FLOAT:
        return wide_low, wide_high
    size = np.abs(low)
    point = (low == high) & (size < _LIMITS[ir.DataType.FLOAT][1]) & ((size == 0) | (size > 2 * least))
    nearest = np.where(point, low, 0.0).astype(np.float32).astype(np.float64)
    return np.where(point, nearest, wide_low), np.where(point, nearest, wide_high)


def product(first: Bounds, second: Bounds) -> Bounds:
    """Bounds of an element-wise product; zero times anything finite is zero."""
    with np.errstate(invalid="ignore"):
        corners = np.stack([a * b for a in first for b in second])
    corners = np.where(np.isnan(corners), 0.0, corners)
    return corners.min(0), corners.max(0)
