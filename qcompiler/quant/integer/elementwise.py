"""Sums, products and concatenations of two tensors of codes.

Sums. ``a`` at scale ``s_a`` plus ``b`` at scale ``s_b`` shall become codes at ``s_y``. With ``M_a = s_a / s_y`` and
``M_b = s_b / s_y`` the real result is ``(a - z_a) M_a + (b - z_b) M_b + z_y``. Both factors get one common shift,
``M_a ≈ b_a 2^-c`` and ``M_b ≈ b_b 2^-c``, so that the terms are added before anything is rounded::

    q = clip((((a - z_a) * b_a + (b - z_b) * b_b + 2^(c-1)) >> c) + z_y, low, high)

Roundings: ``half_up`` in the shift, once; then one saturation. Each multiplier is off by at most 1/2 when the model is
compiled, so before the rounding the sum is off by at most ``e = D 2^-(c+1)`` with ``D = |a - z_a| + |b - z_b|``. The
greater multiplier has ``m`` bits, ``2^-c <= max(M_a, M_b) 2^-(m-1)``, hence ``e <= D max(M_a, M_b) 2^-m``. The exact
sum rounded once and this one are both within 1/2 of their arguments and both are integers: they differ by at most one
code wherever ``e < 1``. Codes of 16 bits are less than ``2^16`` from their zero point; with 31 bits ``e < 1`` as long
as the operands' steps are less than ``2^14`` steps of the result, and where the steps of the result are the greatest
(``M <= 1``) ``e < 2^-14``: apart from ties less than one code in ten thousand differs, by one. With ``m`` bits and
8-bit operands ``e < 2^(9-m)`` there.

Without multipliers the factors are powers of two: each term is shifted left until the common shift to the right is
what both need, ``M_a = 2^(l_a - c)``. Nothing but the one rounding is lost: at most 1/2 code.

Products. ``(a - z_a)(b - z_b)`` has less than ``2^32`` and no error; its rescale by ``s_a s_b / s_y`` is that of
:mod:`qcompiler.quant.integer.dyadic`, which leaves the multiplier 28 bits at least.

Concatenations rescale each operand to the result's scale on its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qcompiler.quant.integer import dyadic

__all__ = [
    "LEFT_LIMIT",
    "add",
    "add_shift",
    "choose_left",
    "concat",
    "concat_shift",
    "multiply",
    "multiply_shift",
    "subtract",
    "subtract_shift",
]

LEFT_LIMIT: Final = 40
"""Greatest shift to the left: two terms of 17 bits then stay below ``2^62``."""


def choose_left(factors: Sequence[float]) -> tuple[NDArray[np.uint8], int]:
    """Shifts to the left for factors that are powers of two, and the common shift to the right behind the sum.

    Args:
        factors: Positive powers of two.

    Returns:
        uint8 shifts ``l`` from 0 to 40 and ``c >= 1`` with ``factor = 2^(l - c)``.

    Raises:
        ValueError: A factor is no power of two, or they are too far apart.
    """
    fractions, exponents = np.frexp(np.asarray(factors, np.float64))
    if not (fractions == 0.5).all():
        raise ValueError(f"a rescale by {factors[int(np.argmax(fractions != 0.5))]:g} is no power of two")
    powers = exponents.astype(np.int64) - 1
    shift = max(1, -int(powers.min()))
    left = powers + shift
    if int(left.max()) > LEFT_LIMIT or shift > dyadic.SHIFT_LIMITS[1] - 1:
        raise ValueError(f"rescales by {', '.join(f'{item:g}' for item in factors)} are too far apart to be added")
    return left.astype(np.uint8), shift


def add(
    a: NDArray[Any],
    b: NDArray[Any],
    a_multiplier: NDArray[Any],
    b_multiplier: NDArray[Any],
    shift: NDArray[Any],
    *,
    a_zero_point: int,
    b_zero_point: int,
    y_zero_point: int,
    to: int,
    low: int,
    high: int,
) -> NDArray[Any]:
    """``clip((((a - za) * ba + (b - zb) * bb + 2^(c-1)) >> c) + zy, low, high)``.

    Args:
        a: int8 or int16.
        b: int8 or int16; broadcasts against ``a``.
        a_multiplier: int32 scalar ``ba``, ``0 <= ba < 2^31``.
        b_multiplier: int32 scalar ``bb``.
        shift: uint8 scalar ``c``, 1 to 62.
        a_zero_point: Code of zero in ``a``.
        b_zero_point: Code of zero in ``b``.
        y_zero_point: Code of zero in the result.
        to: ONNX element type of the result.
        low: Least code of the result.
        high: Greatest code of the result.

    Raises:
        Overflow: A sum leaves 62 bits.
        ValueError: A parameter is outside its range.
    """
    total = _centred(a, a_zero_point) * _factor(a_multiplier) + _centred(b, b_zero_point) * _factor(b_multiplier)
    return _rounded(total, shift, y_zero_point, to, low, high)


def subtract(
    a: NDArray[Any],
    b: NDArray[Any],
    a_multiplier: NDArray[Any],
    b_multiplier: NDArray[Any],
    shift: NDArray[Any],
    *,
    a_zero_point: int,
    b_zero_point: int,
    y_zero_point: int,
    to: int,
    low: int,
    high: int,
) -> NDArray[Any]:
    """``clip((((a - za) * ba - (b - zb) * bb + 2^(c-1)) >> c) + zy, low, high)``; see :func:`add`."""
    total = _centred(a, a_zero_point) * _factor(a_multiplier) - _centred(b, b_zero_point) * _factor(b_multiplier)
    return _rounded(total, shift, y_zero_point, to, low, high)


def add_shift(
    a: NDArray[Any],
    b: NDArray[Any],
    a_left: NDArray[Any],
    b_left: NDArray[Any],
    shift: NDArray[Any],
    *,
    a_zero_point: int,
    b_zero_point: int,
    y_zero_point: int,
    to: int,
    low: int,
    high: int,
) -> NDArray[Any]:
    """``clip(((((a - za) << la) + ((b - zb) << lb) + 2^(c-1)) >> c) + zy, low, high)``.

    ``a_left`` and ``b_left`` are uint8 scalars from 0 to 40; everything else is as in :func:`add`.
    """
    total = (_centred(a, a_zero_point) << _left(a_left)) + (_centred(b, b_zero_point) << _left(b_left))
    return _rounded(total, shift, y_zero_point, to, low, high)


def subtract_shift(
    a: NDArray[Any],
    b: NDArray[Any],
    a_left: NDArray[Any],
    b_left: NDArray[Any],
    shift: NDArray[Any],
    *,
    a_zero_point: int,
    b_zero_point: int,
    y_zero_point: int,
    to: int,
    low: int,
    high: int,
) -> NDArray[Any]:
    """``clip(((((a - za) << la) - ((b - zb) << lb) + 2^(c-1)) >> c) + zy, low, high)``; see :func:`add_shift`."""
    total = (_centred(a, a_zero_point) << _left(a_left)) - (_centred(b, b_zero_point) << _left(b_left))
    return _rounded(total, shift, y_zero_point, to, low, high)


def multiply(
    a: NDArray[Any],
    b: NDArray[Any],
    multiplier: NDArray[Any],
    shift: NDArray[Any],
    *,
    a_zero_point: int,
    b_zero_point: int,
    y_zero_point: int,
    to: int,
    low: int,
    high: int,
) -> NDArray[Any]:
    """``requantize((a - za) * (b - zb))``: int8 or int16 operands that broadcast, scalar multiplier and shift.

    Raises:
        Overflow: A product leaves 62 bits.
        ValueError: A parameter is outside its range.
    """
    _factor(multiplier)
    product = _centred(a, a_zero_point) * _centred(b, b_zero_point)
    return dyadic.requantize(
        product, multiplier, shift, x_zero_point=0, y_zero_point=y_zero_point, to=to, low=low, high=high
    )


def multiply_shift(
    a: NDArray[Any],
    b: NDArray[Any],
    shift: NDArray[Any],
    *,
    a_zero_point: int,
    b_zero_point: int,
    y_zero_point: int,
    to: int,
    low: int,
    high: int,
) -> NDArray[Any]:
    """``requantize_shift((a - za) * (b - zb))``; see :func:`multiply`. The rescale multiplies nothing."""
    product = _centred(a, a_zero_point) * _centred(b, b_zero_point)
    return dyadic.requantize_shift(product, shift, x_zero_point=0, y_zero_point=y_zero_point, to=to, low=low, high=high)


def concat(
    a: NDArray[Any],
    b: NDArray[Any],
    a_multiplier: NDArray[Any],
    a_shift: NDArray[Any],
    b_multiplier: NDArray[Any],
    b_shift: NDArray[Any],
    *,
    axis: int,
    a_zero_point: int,
    b_zero_point: int,
    y_zero_point: int,
    to: int,
    low: int,
    high: int,
) -> NDArray[Any]:
    """Both operands requantized, then joined along ``axis``.

    Raises:
        Overflow: A product leaves 62 bits.
        ValueError: A parameter is outside its range.
    """
    _factor(a_multiplier), _factor(b_multiplier)
    result = {"y_zero_point": y_zero_point, "to": to, "low": low, "high": high}
    first = dyadic.requantize(a, a_multiplier, a_shift, x_zero_point=a_zero_point, **result)
    second = dyadic.requantize(b, b_multiplier, b_shift, x_zero_point=b_zero_point, **result)
    return np.concatenate([first, second], axis=axis)


def concat_shift(
    a: NDArray[Any],
    b: NDArray[Any],
    a_shift: NDArray[Any],
    b_shift: NDArray[Any],
    *,
    axis: int,
    a_zero_point: int,
    b_zero_point: int,
    y_zero_point: int,
    to: int,
    low: int,
    high: int,
) -> NDArray[Any]:
    """Both operands rescaled by powers of two, then joined along ``axis``; see :func:`concat`."""
    result = {"y_zero_point": y_zero_point, "to": to, "low": low, "high": high}
    first = dyadic.requantize_shift(a, a_shift, x_zero_point=a_zero_point, **result)
    second = dyadic.requantize_shift(b, b_shift, x_zero_point=b_zero_point, **result)
    return np.concatenate([first, second], axis=axis)


def _centred(codes: NDArray[Any], zero_point: int) -> NDArray[np.int64]:
    """Codes minus their zero point, less than ``2^16`` from zero."""
    if codes.dtype not in (np.int8, np.int16):
        raise ValueError(f"operands are int8 or int16, not {codes.dtype}")
    limits = np.iinfo(codes.dtype)
    if not limits.min <= zero_point <= limits.max:
        raise ValueError(f"the zero point {zero_point} is no {codes.dtype}")
    return codes.astype(np.int64) - zero_point


def _factor(multiplier: NDArray[Any]) -> int:
    found = _scalar(multiplier, "a multiplier")
    if not 0 <= found < 1 << 31:
        raise ValueError(f"a multiplier lies in 0 to 2^31 - 1, not {found}")
    return found


def _left(shift: NDArray[Any]) -> int:
    found = _scalar(shift, "a shift to the left")
    if not 0 <= found <= LEFT_LIMIT:
        raise ValueError(f"a shift to the left lies in 0 to {LEFT_LIMIT}, not {found}")
    return found


def _scalar(array: NDArray[Any], what: str) -> int:
    if math.prod(np.shape(array)) != 1 or np.ndim(array) != 0:
        raise ValueError(f"{what} is one number here, not of shape {np.shape(array)}")
    return int(array)


def _rounded(
    total: NDArray[np.int64], shift: NDArray[Any], y_zero_point: int, to: int, low: int, high: int
) -> NDArray[Any]:
    rounded = dyadic.round_shift(total, _scalar(shift, "a shift"))
    return dyadic.saturate(rounded + y_zero_point, to=to, low=low, high=high)
