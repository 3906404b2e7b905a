"""Rescaling by any factor without a multiplier: a signed sum of shifts.

Derivation. Hardware without rescale multipliers divides the sum of a window by a count that need not be a power of
two, say by 9. Write the factor as ``M ≈ B * 2^-s`` with an integer ``B``, and ``B`` in canonical signed digits:
``B = sum_i (±2^(e_i))``, no two of them adjacent, hence at most half of the bits of ``B`` plus one. Then::

    a * M ≈ (sum_i ±(a << e_i)) * 2^-s

Every term is exact; one shift to the right by ``s`` rounds ``half_up``, once. ``B`` is rounded once when the model is
compiled, so that ``|a| * |M - B * 2^-s| <= 2^-6`` codes wherever 45 bits allow it, and never more than a quarter: the
result differs from the exact product rounded once by at most one code, and only where that lies within ``2^-6`` of
a tie.

Tensors of factors (a window at a border counts fewer elements) share ``s``. Their digits are split
(``2^e = 2^(e-1) + 2^(e-1)``) until all have the same number.

Source: Avizienis 1961 (signed-digit numbers); canonical form after Reitwiesner 1960.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qcompiler.quant.integer.dyadic import LEFT, PRODUCT_BITS, SHIFT_LIMITS, Overflow

__all__ = ["Digits", "choose_digits", "signed_sum"]

SUM_BITS: Final = PRODUCT_BITS - 1 - LEFT
"""The signed sum stays below two to this power: what a rescale without multiplier takes."""

_TOLERANCE: Final = 2.0**-6
_WORST: Final = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class Digits:
    """Factors ``sum(±2^left) * 2^(16 - shift)``, the sum over the last axis.

    Attributes:
        left: uint8, shape of the factors and an axis of digits: exponents.
        negative: bool of the same shape: whether a digit is subtracted.
        shift: uint8 without axes: the shift to the right behind a shift to the left by 16.
    """

    left: NDArray[np.uint8]
    negative: NDArray[np.bool_]
    shift: NDArray[np.uint8]

    def value(self) -> NDArray[np.float64]:
        """The factors as float64."""
        terms = np.where(self.negative, -1.0, 1.0) * np.ldexp(1.0, self.left.astype(np.int64))
        return np.asarray(np.ldexp(terms.sum(axis=-1), LEFT - int(self.shift)))


def choose_digits(factor: float | NDArray[np.float64], bound: int) -> Digits:
    """The fewest signed digits that are close enough.

    Args:
        factor: Positive real factors, any shape.
        bound: Greatest magnitude of the accumulator.

    Raises:
        ValueError: A factor is not positive and finite, or 45 bits do not hold accumulator and precision.
    """
    real = np.asarray(factor, np.float64)
    if not (np.isfinite(real).all() and (real > 0).all()):
        raise ValueError(f"a rescale factor must be positive and finite, not {real.min() if real.size else real}")
    limit = SHIFT_LIMITS[1] - LEFT
    fitting = [s for s in range(limit + 1) if _fits(real, s, bound)]
    if not fitting:
        raise ValueError(f"a sum of shifts by {real.max():g} leaves {SUM_BITS} bits")
    precise = [s for s in fitting if _error(real, s, bound) <= _TOLERANCE]
    places = precise[0] if precise else fitting[-1]
    if _error(real, places, bound) > _WORST:
        raise ValueError(f"an accumulator of {int(bound).bit_length()} bits leaves too few for a sum of shifts")
    digits = [_canonical(int(item)) for item in np.rint(np.ldexp(real, places)).reshape(-1)]
    most = max(len(item) for item in digits)
    if any(1 << item[0][0] < most for item in digits):
        places, digits = places + 8, [[(exponent + 8, sign) for exponent, sign in item] for item in digits]
        if places not in fitting:
            raise ValueError("the factors of one tensor differ too much for sums of shifts")
    rows = np.array([_split(item, most) for item in digits], np.int64).reshape(*real.shape, most, 2)
    return Digits(rows[..., 0].astype(np.uint8), rows[..., 1] < 0, np.array(places + LEFT, np.uint8))


def signed_sum(x: NDArray[Any], left: NDArray[Any], negative: NDArray[Any]) -> NDArray[np.int64]:
    """``sum_i ±(x << left_i)`` over the last axis of the digits.

    Args:
        x: Integers of any shape.
        left: uint8, 0 to 45; without its last axis it broadcasts against ``x``.
        negative: bool, the shape of ``left``.

    Raises:
        Overflow: The magnitudes of the terms add up to ``2^45`` or more.
        ValueError: The digits are malformed.
    """
    exponents = np.asarray(left, np.int64)
    if exponents.shape != np.shape(negative) or not exponents.ndim or not exponents.shape[-1]:
        raise ValueError(f"digits of shapes {exponents.shape} and {np.shape(negative)}")
    if exponents.size and exponents.max() > SUM_BITS:
        raise ValueError(f"a digit is at most 2^{SUM_BITS}, not 2^{exponents.max()}")
    wide = np.asarray(x, np.int64)[..., None]
    magnitudes = np.abs(wide).astype(np.float64) * np.ldexp(1.0, exponents)
    if magnitudes.size and magnitudes.sum(axis=-1).max() >= 2.0**SUM_BITS:
        raise Overflow(f"a sum of shifts reaches 2^{SUM_BITS}")
    terms = wide << exponents
    return np.asarray(np.where(negative, -terms, terms).sum(axis=-1), np.int64)


def _error(real: NDArray[np.float64], places: int, bound: int) -> float:
    scaled = np.ldexp(real, places)
    return float((np.abs(scaled - np.maximum(np.rint(scaled), 1)) * bound).max() * 2.0**-places)


def _fits(real: NDArray[np.float64], places: int, bound: int) -> bool:
    # twice: the magnitudes of signed digits add up to less than twice the number, and splitting keeps that sum
    return 2 * (float(np.ldexp(real.max(), places)) + 1) * (bound + 1) < 2.0**SUM_BITS


def _canonical(number: int) -> list[tuple[int, int]]:
    """The non-adjacent form of a positive number: exponents and signs, greatest first."""
    found: list[tuple[int, int]] = []
    rest, exponent = max(number, 1), 0
    while rest:
        if rest & 1:
            sign = 2 - (rest & 3)
            found.append((exponent, sign))
            rest -= sign
        rest >>= 1
        exponent += 1
    return found[::-1]


def _split(digits: list[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """The same number with ``count`` digits."""
    found = list(digits)
    while len(found) < count:
        place = max(range(len(found)), key=lambda index: found[index][0])
        exponent, sign = found[place]
        found[place : place + 1] = [(exponent - 1, sign), (exponent - 1, sign)]
    return sorted(found, reverse=True)
