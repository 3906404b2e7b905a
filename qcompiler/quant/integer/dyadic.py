"""Dyadic rescaling: multiplication by a real factor, done with one integer multiplication and one shift.

Derivation. An accumulator ``a`` at scale ``s_a`` shall become a code ``q`` at scale ``s_y`` and zero point ``z``. With
``M = s_a / s_y`` the real result is ``a * M + z``. Take ``M ≈ b * 2^-c`` with integers ``b`` and ``c``. Then
``a * b * 2^-c`` rounded to the nearest integer is ``floor((a * b + 2^(c-1)) / 2^c)``, and the floor of a division by a
power of two is an arithmetic shift::

    q = clip(((a * b + 2^(c-1)) >> c) + z, low, high)

Roundings: ``half_up`` in the shift (a tie goes to the greater integer), once; then one saturation. ``b`` is rounded
once when the model is compiled (``half_even``); with ``m`` bits its relative error is at most ``2^-m``, so ``q``
differs from the exact product rounded once by less than ``|a| * M * 2^-m``, plus one where that crosses a tie: at
most one code inside the range of 8 bits once ``m >= 8``, and of 16 bits once ``m >= 16``.

Everything happens in 64 bits. ``|a * b| + 2^(c-1) < 2^62`` is required, checked here and proven by the compiler when
it chooses ``b``. The margin lets a runtime without arithmetic shift add ``2^62`` before an unsigned shift and take
``2^(62-c)`` away behind it: both are exact, because ``c <= 62`` divides them.

Without a multiplier (hardware with power-of-two scales) ``M`` is ``2^k`` itself. So that ``k`` may be positive, the
accumulator is first shifted left by 16, which multiplies by ``2^16`` exactly: ``((a << 16) + 2^(c-1)) >> c``, and
``M = 2^(16-c)``.

Source: HAWQ-V3 (Yao et al. 2021), section 3; Jacob et al. 2018, section 2.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "LEFT",
    "PRODUCT_BITS",
    "SHIFT_LIMITS",
    "Dyadic",
    "Overflow",
    "choose",
    "choose_common",
    "choose_shift",
    "requantize",
    "requantize_shift",
    "round_shift",
]

PRODUCT_BITS: Final = 62
"""``|a * b| + 2^(c-1)`` stays below two to this power."""

SHIFT_LIMITS: Final = (1, 62)
"""Least and greatest shift."""

LEFT: Final = 16
"""Bits by which an accumulator is shifted left before the right shift where there is no multiplier."""


class Overflow(ArithmeticError):  # noqa: N818 - the word of the field, as in OverflowError
    """An integer left the range that the specification gives it."""


@dataclass(frozen=True, slots=True, eq=False)
class Dyadic:
    """Factors ``multiplier * 2^-shift``, or ``2^(16 - shift)`` where there is no multiplier.

    Attributes:
        multiplier: int32, shape of the factors; ``None`` where the hardware only shifts.
        shift: uint8, shape of the factors.
    """

    multiplier: NDArray[np.int32] | None
    shift: NDArray[np.uint8]

    def value(self) -> NDArray[np.float64]:
        """The factors as float64 (exact: ``b`` has 31 bits)."""
        if self.multiplier is None:
            return np.ldexp(1.0, LEFT - self.shift.astype(np.int64))
        return np.ldexp(self.multiplier.astype(np.float64), -self.shift.astype(np.int64))


def choose(factor: float | NDArray[np.float64], bits: int, bound: int) -> Dyadic:
    """Best dyadic numbers for positive factors.

    Args:
        factor: Positive real factors, any shape.
        bits: Bits of a multiplier, 2 to 31: ``b < 2^bits``. As many as the product allows are used.
        bound: Greatest magnitude of the accumulator.

    Returns:
        ``b`` in ``[2^(bits-1), 2^bits)`` (fewer bits only where ``c`` would exceed 62) and ``c`` in ``[1, 62]``.

    Raises:
        ValueError: A factor is not positive and finite or at least ``2^(bits-1)``, or the accumulator is too wide.
    """
    real = np.asarray(factor, np.float64)
    if not (np.isfinite(real).all() and (real > 0).all()):
        raise ValueError(f"a rescale factor must be positive and finite, not {real.min() if real.size else real}")
    room = min(bits, PRODUCT_BITS - 1 - int(bound).bit_length())
    if room < 2:
        raise ValueError(f"an accumulator of {int(bound).bit_length()} bits leaves no room for a multiplier")
    fraction, exponent = np.frexp(real)
    shift = np.minimum(room - exponent.astype(np.int64), SHIFT_LIMITS[1])
    # half_even; the multiplier of a factor just below a power of two may round up to 2^room
    multiplier = np.rint(np.ldexp(fraction, exponent + shift)).astype(np.int64)
    carried = multiplier >> room != 0
    multiplier, shift = np.where(carried, multiplier >> 1, multiplier), shift - carried
    if (shift < SHIFT_LIMITS[0]).any():
        raise ValueError(f"a rescale factor of {real.max():g} is too large for a multiplier of {room} bits")
    return Dyadic(np.maximum(multiplier, 1).astype(np.int32), shift.astype(np.uint8))


def choose_common(factors: Sequence[float], bits: int, bound: int) -> tuple[NDArray[np.int32], int]:
    """Multipliers with one common shift, for terms that are added before they are rounded.

    The greatest factor gets all the bits; the others have the same absolute error.

    Args:
        factors: Positive real factors.
        bits: Bits of a multiplier.
        bound: Greatest magnitude of the *sum of the magnitudes* of all terms' integers.

    Returns:
        int32 multipliers (0 for a factor that vanishes beside the greatest) and the shift.

    Raises:
        ValueError: As in :func:`choose`.
    """
    greatest = choose(max(factors), bits, bound)
    shift = int(greatest.shift)
    multipliers = np.rint(np.ldexp(np.asarray(factors, np.float64), shift)).astype(np.int64)
    limit = (1 << min(bits, PRODUCT_BITS - 1 - int(bound).bit_length())) - 1
    return np.minimum(multipliers, limit).astype(np.int32), shift


def choose_shift(factor: float | NDArray[np.float64]) -> Dyadic:
    """Shifts for factors that are powers of two.

    Raises:
        ValueError: A factor is no power of two, or outside ``2^-46`` to ``2^15``.
    """
    real = np.asarray(factor, np.float64)
    fraction, exponent = np.frexp(real)
    if not (fraction == 0.5).all():
        wrong = float(real.reshape(-1)[np.argmax(fraction.reshape(-1) != 0.5)])
        raise ValueError(f"a rescale by {wrong:g} is no power of two")
    shift = LEFT - (exponent.astype(np.int64) - 1)
    if (shift < SHIFT_LIMITS[0]).any() or (shift > SHIFT_LIMITS[1]).any():
        raise ValueError("a rescale by a power of two outside 2^-46 to 2^15")
    return Dyadic(None, shift.astype(np.uint8))


def round_shift(value: NDArray[Any], shift: NDArray[Any] | int) -> NDArray[np.int64]:
    """``value * 2^-shift`` rounded ``half_up``: ``(value + 2^(shift-1)) >> shift``, ``shift`` from 1 to 62.

    Raises:
        Overflow: ``|value| + 2^(shift-1)`` reaches ``2^62``.
    """
    wide = np.asarray(value, np.int64)
    amount = np.asarray(shift, np.int64)
    if amount.size and (amount.min() < SHIFT_LIMITS[0] or amount.max() > SHIFT_LIMITS[1]):
        raise ValueError(f"shifts lie in {SHIFT_LIMITS}, not {amount.min()} to {amount.max()}")
    half = np.int64(1) << (amount - 1)
    if wide.size and (np.abs(wide) >= (1 << PRODUCT_BITS) - half).any():
        raise Overflow(f"a product reaches 2^{PRODUCT_BITS}")
    shifted: NDArray[np.int64] = (wide + half) >> amount
    return shifted


def requantize(
    x: NDArray[Any],
    multiplier: NDArray[Any],
    shift: NDArray[Any],
    *,
    x_zero_point: int,
    y_zero_point: int,
    to: int,
    low: int,
    high: int,
) -> NDArray[Any]:
    """``clip((((x - x_zero_point) * b + 2^(c-1)) >> c) + y_zero_point, low, high)``.

    Args:
        x: int8, int16, int32 or int64 of any shape.
        multiplier: int32 ``b``, ``0 <= b < 2^31``; broadcasts against ``x``.
        shift: uint8 ``c``, 1 to 62; broadcasts against ``x``.
        x_zero_point: Code of zero in ``x``.
        y_zero_point: Code of zero in the result.
        to: ONNX element type of the result.
        low: Least code of the result.
        high: Greatest code of the result.

    Raises:
        Overflow: A product leaves 62 bits.
        ValueError: A parameter is outside its range.
    """
    factor = np.asarray(multiplier, np.int64)
    if factor.size and factor.min() < 0:
        raise ValueError("a multiplier is negative")
    centred = np.asarray(x, np.int64) - x_zero_point
    _check_product(centred, factor)
    return saturate(round_shift(centred * factor, shift) + y_zero_point, to=to, low=low, high=high)


def requantize_shift(
    x: NDArray[Any], shift: NDArray[Any], *, x_zero_point: int, y_zero_point: int, to: int, low: int, high: int
) -> NDArray[Any]:
    """``clip(((((x - x_zero_point) << 16) + 2^(c-1)) >> c) + y_zero_point, low, high)``: no multiplication.

    Arguments and errors are those of :func:`requantize`.
    """
    centred = np.asarray(x, np.int64) - x_zero_point
    if centred.size and np.abs(centred).max() >= 1 << (PRODUCT_BITS - 1 - LEFT):
        raise Overflow(f"an accumulator reaches 2^{PRODUCT_BITS - 1 - LEFT}")
    return saturate(round_shift(centred << LEFT, shift) + y_zero_point, to=to, low=low, high=high)


def saturate(value: NDArray[np.int64], *, to: int, low: int, high: int) -> NDArray[Any]:
    """Clip to ``[low, high]`` and store as ONNX element type ``to``.

    Raises:
        ValueError: The type does not hold the bounds, or they are in the wrong order.
    """
    dtype = _INTEGERS.get(to)
    if dtype is None:
        raise ValueError(f"element type {to} is no signed integer")
    limits = np.iinfo(dtype)
    if not limits.min <= low <= high <= limits.max:
        raise ValueError(f"bounds {low} and {high} do not fit {np.dtype(dtype).name}")
    stored: NDArray[Any] = np.clip(value, low, high).astype(dtype)
    return stored


_INTEGERS: Final[dict[int, Any]] = {3: np.int8, 5: np.int16, 6: np.int32}
"""NumPy types by ONNX element type (TensorProto.DataType)."""


def _check_product(centred: NDArray[np.int64], factor: NDArray[np.int64]) -> None:
    """The product fits 62 bits: decided on magnitudes, before anything can wrap."""
    if not centred.size or not factor.size:
        return
    largest = int(np.abs(centred).max()), int(factor.max())
    if math.prod(largest) < 1 << PRODUCT_BITS:
        return
    exact = np.abs(centred).astype(np.float64) * factor  # relative error 2^-52: the border itself is refused
    if (exact >= (1 << PRODUCT_BITS) * (1 - 2.0**-50)).any():
        raise Overflow(f"a product of an accumulator and its multiplier reaches 2^{PRODUCT_BITS}")
