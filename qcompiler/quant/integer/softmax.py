"""Softmax in integers: a table of powers of two, shifts and one reciprocal per row.

Derivation. With ``d = max(x) - x >= 0`` in codes of scale ``s_x``::

    softmax = 2^-t / sum(2^-t),    t = d * s_x * log2(e)

1. ``t`` is computed with 16 fractional bits by a dyadic rescale of ``d * 2^16`` (``half_up``), and saturates just
   below 32: ``2^-32`` is nothing beside the row's largest term, which is exactly 1. Masks of any depth end here.
2. ``2^-t = 2^-fraction >> whole``: a table of ``2^30 * 2^(-j/256)``, 257 entries (``half_even``), is interpolated
   linearly (8 bits of position, 8 bits between, ``half_up``), then shifted right (floor). So ``e`` has 30 fractional
   bits and the largest term is ``2^30`` exactly.
3. ``S = sum(e)`` is exact in 64 bits: ``2^30 <= S <= 2^46`` for rows of up to 65536 terms.
4. ``S = m * 2^(n-30)`` with ``2^30 <= m < 2^31`` (floor); ``n`` is found by comparing with the powers of two.
   ``R ≈ 2^60 / m`` starts as the line ``24/17 * 2^30 - 8/17 * m``, wrong by at most 1/17, and three Newton steps
   ``R <- R * (2 - m R)`` square that error each time, down to ``17^-8`` and the floors of their shifts, together less
   than ``2^-27`` of the value.
5. ``R' = R * 2^-24 / s_y`` by a dyadic rescale (``half_up``), then ``y = (e * R' + 2^(n+5)) >> (n+6)`` (``half_up``)
   plus zero point, clipped: multiplier and shift of this last rescale belong to the row.

Error, in codes of the result, against the real softmax; ``p / s_y <= 2^b`` for ``b`` bits of result:

* ``t`` is off by ``2^-17`` and by its multiplier's relative error; the table by ``ln(2)^2 / 8 * 2^-16`` and ``2^-29``:
  together every ``e`` is off by at most ``δ = 6.4e-6`` of itself, and a ratio ``e / S`` by at most ``2 δ p (1 - p)``.
  For 16 bits that is at most 0.84 where ``p`` is small and the scale fine, 0.21 at scale 1/65535; for 8 bits nothing.
* floors of ``e``: below ``2^-30`` for each term, so ``2^-12`` codes at 16 bits.
* ``R`` and ``R'``: ``2^-27`` of the value and ``2^-7`` codes.
* the last rounding: 1/2.

So ``y`` is less than 1.5 codes from the real softmax, and at most one code from it rounded once at the scales that
softmax has (1/255, 1/65535), two at any. A target's multiplier of 16 bits adds up to 0.4 codes at 16 bits; one of 8
bits adds as much at 8 bits and is no good for 16.

Sources: I-BERT (Kim et al. 2021) and gemmlowp's fixed-point ``exp_on_negative_values`` shift by whole powers of two as
well; Newton's start is the classical minimax line for ``1/x`` on ``[1, 2]``.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qcompiler.quant.integer.dyadic import Overflow, requantize, requantize_shift, round_shift, saturate

__all__ = [
    "EXPONENT_LIMIT",
    "LOG2E",
    "LONGEST_ROW",
    "POWERS",
    "SLOPE",
    "START",
    "softmax",
    "softmax_shift",
]

POWERS: Final = tuple(round(math.ldexp(2.0 ** (-index / 256), 30)) for index in range(257))
"""``2^30 * 2^(-index/256)``, int32."""

LOG2E: Final = 387270501
"""``log2(e) * 2^28``."""

EXPONENT_LIMIT: Final = (1 << 21) - 1
"""Greatest ``t`` with its 16 fractional bits: a shift by 31 leaves nothing of any term."""

START: Final = 1515870810
"""``24/17 * 2^30``."""

SLOPE: Final = 1010580540
"""``8/17 * 2^31``."""

LONGEST_ROW: Final = 1 << 16
"""Terms of a row: their sum stays within ``2^46``."""

_INT32: Final = {"to": 6, "low": 0, "x_zero_point": 0, "y_zero_point": 0}
_MOST: Final = (1 << 31) - 1


def softmax(
    x: NDArray[Any],
    x_multiplier: NDArray[Any],
    x_shift: NDArray[Any],
    multiplier: NDArray[Any],
    shift: NDArray[Any],
    *,
    axis: int,
    y_zero_point: int,
    to: int,
    low: int,
    high: int,
) -> NDArray[Any]:
    """Softmax along one axis.

    Args:
        x: int8 or int16 codes; their zero point does not matter.
        x_multiplier: int32 scalar; with ``x_shift`` the dyadic number for ``s_x * log2(e)``; below
            ``2^29`` for int16, so that the product fits.
        x_shift: uint8 scalar, 1 to 62.
        multiplier: int32 scalar; with ``shift`` the dyadic number for ``2^-24 / s_y``.
        shift: uint8 scalar, 1 to 62.
        axis: The axis that sums to one.
        y_zero_point: Code of zero in the result.
        to: ONNX element type of the result.
        low: Least code of the result.
        high: Greatest code of the result.

    Raises:
        Overflow: A row has more than 65536 terms, or a rescale leaves its range.
        ValueError: A parameter is outside its range.
    """
    distance = _distance(x, axis) << 16
    exponent = requantize(distance, x_multiplier, x_shift, high=EXPONENT_LIMIT, **_INT32)
    terms = powers(exponent.astype(np.int64))
    reciprocal, places = _reciprocal(terms, axis)
    _check_reciprocal(reciprocal * np.asarray(multiplier, np.int64), shift)
    factor = requantize(reciprocal, multiplier, shift, high=_MOST, **_INT32)
    return _normalised(terms, factor, places, y_zero_point=y_zero_point, to=to, low=low, high=high)


def softmax_shift(
    x: NDArray[Any],
    x_shift: NDArray[Any],
    shift: NDArray[Any],
    *,
    axis: int,
    y_zero_point: int,
    to: int,
    low: int,
    high: int,
) -> NDArray[Any]:
    """Softmax along one axis for scales that are powers of two: both rescales only shift.

    The change of base from ``e`` to 2 multiplies by the constant ``log2(e) * 2^28``.

    Args:
        x: As in :func:`softmax`.
        x_shift: uint8 scalar; ``2^(16-c)`` is ``s_x * 2^-12``.
        shift: uint8 scalar; ``2^(16-c)`` is ``2^-24 / s_y``.
        axis: As in :func:`softmax`, like the rest and the errors.
        y_zero_point: As there.
        to: As there.
        low: As there.
        high: As there.
    """
    distance = _distance(x, axis) * LOG2E
    exponent = requantize_shift(distance, x_shift, high=EXPONENT_LIMIT, **_INT32)
    terms = powers(exponent.astype(np.int64))
    reciprocal, places = _reciprocal(terms, axis)
    _check_reciprocal(reciprocal << 16, shift)
    factor = requantize_shift(reciprocal, shift, high=_MOST, **_INT32)
    return _normalised(terms, factor, places, y_zero_point=y_zero_point, to=to, low=low, high=high)


def powers(exponent: NDArray[np.int64]) -> NDArray[np.int64]:
    """``2^30 * 2^-t`` for ``t`` with 16 fractional bits: table, line (``half_up``), shift (floor)."""
    table = np.array(POWERS, np.int64)
    index, between = (exponent >> 8) & 255, exponent & 255
    left, right = table[index], table[index + 1]
    power: NDArray[np.int64] = (left - (((left - right) * between + 128) >> 8)) >> (exponent >> 16)
    return power


def _distance(x: NDArray[Any], axis: int) -> NDArray[np.int64]:
    if x.dtype not in (np.int8, np.int16):
        raise ValueError(f"softmax takes int8 or int16, not {x.dtype}")
    if x.shape[axis] > LONGEST_ROW:
        raise Overflow(f"a row of {x.shape[axis]} terms; their sum is bounded up to {LONGEST_ROW}")
    if not x.size:
        return np.zeros(x.shape, np.int64)
    wide = x.astype(np.int64)
    distance: NDArray[np.int64] = wide.max(axis=axis, keepdims=True) - wide
    return distance


def _reciprocal(terms: NDArray[np.int64], axis: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``2^60 / m`` and ``n`` of every row's sum ``m * 2^(n-30)``."""
    total = terms.sum(axis=axis, keepdims=True)
    leading = total >> 16
    places = sum(((leading >= 1 << power).astype(np.int64) for power in range(15, 31)), np.zeros_like(total))
    mantissa = total >> places
    reciprocal = START - ((mantissa * SLOPE) >> 31)
    for _ in range(3):
        correction = (1 << 61) - mantissa * reciprocal
        reciprocal = (reciprocal * (correction >> 30)) >> 30
    return reciprocal, places + 30


def _check_reciprocal(product: NDArray[np.int64], shift: NDArray[Any]) -> None:
    if product.size and (round_shift(product, shift) > _MOST).any():
        raise Overflow("the result's scale is below 2^-25: the reciprocal of a row leaves 31 bits")


def _normalised(
    terms: NDArray[np.int64],
    factor: NDArray[Any],
    places: NDArray[np.int64],
    *,
    y_zero_point: int,
    to: int,
    low: int,
    high: int,
) -> NDArray[Any]:
    product = terms * factor.astype(np.int64)  # below 2^61
    return saturate(round_shift(product, places + 6) + y_zero_point, to=to, low=low, high=high)
