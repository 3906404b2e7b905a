"""Resizing along one axis as a sum over a few taps with integer weights.

Derivation. Every mode of Resize gives each output position ``m`` of an axis a weighted sum of a few input elements:
one (nearest), two (linear), four (cubic), or more with antialiasing; axes are independent. With weights rounded to
``w[m, t] = rint(weight * 2^k)``, corrected so that their sum stays exact, and centred codes::

    acc[m] = sum_t w[m, t] * (x[index[m, t]] - zx)          real = s_x * 2^-k * acc

followed by one rescale (one rounding ``half_up``, one saturation). Several axes are a chain: all but the last
operator write int32 with some fraction bits below the code, the last one writes codes.

Error. Linear: a weight is off by at most ``2^-(k+1)``, and its neighbour by the opposite, so that an axis adds at most
``2^-(k+1) * |x1 - x0|`` input codes; an intermediate result with ``f`` fraction bits adds ``2^-(f+1)``. With ``k = 12,
f = 10`` for 8 bits (int32 accumulators) two axes are off by less than ``1/14`` input code, with ``k = 20, f = 12`` for
16 bits (int64) likewise: less than one output code after rounding wherever ``s_x <= 4 s_y``. Factors of a power of two
up to ``2^11`` are exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.quant.integer import dyadic

__all__ = ["quantized_taps", "resize", "resize_shift"]


def resize(
    x: NDArray[Any],
    index: NDArray[Any],
    weight: NDArray[Any],
    multiplier: NDArray[Any],
    shift: NDArray[Any],
    *,
    axis: int,
    x_zero_point: int,
    **output: int,
) -> NDArray[Any]:
    """Weighted sum of taps along ``axis``, rescaled.

    Args:
        x: int8, int16 or int32 of any shape.
        index: int64 ``[M, T]``: element of tap ``t`` of output position ``m``.
        weight: int32 ``[M, T]`` and an axis of size 1 for every axis of ``x`` behind ``axis``.
        multiplier: int32 scalar.
        shift: uint8 scalar.
        axis: The axis, not negative.
        x_zero_point: Code of zero.
        output: ``y_zero_point``, ``to``, ``low`` and ``high`` of the rescale.

    Raises:
        Overflow: A sum leaves 62 bits, or 32 where codes have 8, or the rescale overflows.
        ValueError: An index lies outside the axis, or shapes do not fit.
    """
    sums = _sums(x, index, weight, axis, x_zero_point)
    return dyadic.requantize(sums, multiplier, shift, x_zero_point=0, **output)


def resize_shift(
    x: NDArray[Any],
    index: NDArray[Any],
    weight: NDArray[Any],
    shift: NDArray[Any],
    *,
    axis: int,
    x_zero_point: int,
    **output: int,
) -> NDArray[Any]:
    """:func:`resize` whose rescale has no multiplier; the weights of the taps remain factors."""
    sums = _sums(x, index, weight, axis, x_zero_point)
    return dyadic.requantize_shift(sums, shift, x_zero_point=0, **output)


def quantized_taps(weight: NDArray[np.float64], bits: int) -> NDArray[np.int32]:
    """Weights ``[M, T]`` times ``2^bits``, rounded so that every row keeps its sum (1, or 0 where nothing is read).

    Rounding ``half_even``; the greatest weight of a row takes what is left of its sum.
    """
    scaled = np.ldexp(np.asarray(weight, np.float64), bits)
    rounded = np.rint(scaled).astype(np.int64)
    wanted = np.rint(scaled.sum(axis=1)).astype(np.int64)
    rows = np.arange(len(rounded))
    rounded[rows, np.abs(scaled).argmax(axis=1)] += wanted - rounded.sum(axis=1)
    return rounded.astype(np.int32)


def _sums(x: NDArray[Any], index: NDArray[Any], weight: NDArray[Any], axis: int, zero: int) -> NDArray[np.int64]:
    if x.dtype not in (np.int8, np.int16, np.int32):
        raise ValueError(f"codes are int8, int16 or int32, not {x.dtype}")
    if not 0 <= axis < x.ndim or index.ndim != 2:
        raise ValueError(f"axis {axis} of a tensor of rank {x.ndim}, taps of shape {index.shape}")
    if weight.shape != (*index.shape, *(1 for _ in range(x.ndim - axis - 1))):
        raise ValueError(f"weights of shape {weight.shape} for taps of shape {index.shape} along axis {axis}")
    if index.size and not 0 <= index.min() <= index.max() < x.shape[axis]:
        raise ValueError(f"taps from {index.min()} to {index.max()} of {x.shape[axis]} elements")
    taps = np.take(x, index, axis=axis).astype(np.int64) - zero
    reach = np.abs(weight.astype(np.int64)).sum(axis=1).max(initial=0)
    limit = 31 if x.dtype == np.int8 else dyadic.PRODUCT_BITS
    if taps.size and int(np.abs(taps).max()) * int(reach) >= 1 << limit:
        raise dyadic.Overflow(f"a weighted sum leaves {limit} bits")
    return np.asarray((taps * weight).sum(axis=axis + 1), np.int64)
