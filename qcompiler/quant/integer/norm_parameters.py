"""The constants of LayerNorm and RMSNorm on codes, chosen when a model is compiled; see ``norms`` for their meaning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qcompiler.quant.integer import dyadic
from qcompiler.quant.integer.norms import CENTRED_BITS, NORMAL_BITS
from qcompiler.quant.integer.reciprocal_root import ROOT_BITS, leading_pairs

__all__ = ["Codes", "NormParameters", "layer_parameters", "rms_parameters"]

_MOMENT_BITS: Final = 61
"""Bits that ``v`` may use: one less than it could, for the rounding of epsilon."""

_GREATEST_LEFT: Final = 40
"""More binary places than this say nothing."""

_ROOT_ERROR: Final = 2.0**-25
_SLACK: Final = 2.0**-10
"""Part of a bit kept free in ``n`` for the error of the root."""


@dataclass(frozen=True, slots=True)
class Codes:
    """An activation: its scale, its zero point, the least and the greatest code of its type."""

    scale: float
    zero_point: int
    low: int
    high: int


@dataclass(frozen=True, slots=True, eq=False)
class NormParameters:
    """What an operator of ``norms`` is called with.

    Attributes:
        left: Bits by which the moment is shifted left.
        right: Bits by which it is then shifted right.
        epsilon: The constant under the root.
        root_shift: Shift behind the root.
        multiplier: int32 per element of gamma.
        bias: int64 of the same shape.
        shift: uint8 of the same shape.
        error: Bound of the error before the last rounding, in codes of the result, except for what narrow multipliers
            add.
    """

    left: int
    right: int
    epsilon: int
    root_shift: int
    multiplier: NDArray[np.int32]
    bias: NDArray[np.int64]
    shift: NDArray[np.uint8]
    error: float


@dataclass(frozen=True, slots=True)
class _Rows:
    """What a row can be, in integers.

    Attributes:
        centred: Greatest ``|c_i|``.
        least: Least moment ``w`` of a row in which not every ``c_i`` is 0.
        greatest: Greatest ``w``.
        crest: Greatest ``|c_i| / sqrt(w)``.
    """

    centred: int
    least: int
    greatest: int
    crest: float


def layer_parameters(
    x: Codes,
    y: Codes,
    gamma: NDArray[Any],
    beta: NDArray[Any],
    *,
    size: int,
    epsilon: float,
    bits: int = 31,
) -> NormParameters:
    """Constants of :func:`~qcompiler.quant.integer.norms.layer_normalization`.

    Args:
        x: The activation.
        y: The result.
        gamma: Real factors, any shape that broadcasts against ``x``.
        beta: Real shifts, likewise.
        size: Codes in a row.
        epsilon: What is added to the variance.
        bits: Bits of a multiplier.

    Raises:
        ValueError: The integers would leave 64 bits, or the error would reach a code; a sentence about "it".
    """
    width = x.high - x.low
    if size**2 * max(abs(x.low), abs(x.high)) ** 2 >= 1 << dyadic.PRODUCT_BITS:
        raise ValueError(f"the squares of its rows of {size} codes leave 64 bits")
    # the variance of numbers in an interval is at most that of halves at its ends
    rows = _Rows((size - 1) * width, max(size - 1, 1), (size * width) ** 2 // 4, math.sqrt(max(size - 1, 1)))
    gain, offset = np.asarray(gamma, np.float64) / y.scale, np.asarray(beta, np.float64)
    return _parameters(rows, epsilon * (size / x.scale) ** 2, gain, offset, y, bits)


def rms_parameters(
    x: Codes, y: Codes, gamma: NDArray[Any], *, size: int, epsilon: float, bits: int = 31
) -> NormParameters:
    """Constants of :func:`~qcompiler.quant.integer.norms.rms_normalization`; as :func:`layer_parameters`."""
    furthest = max(x.high - x.zero_point, x.zero_point - x.low)
    if size * furthest**2 >= 1 << dyadic.PRODUCT_BITS:
        raise ValueError(f"the squares of its rows of {size} codes leave 64 bits")
    rows = _Rows(furthest, 1, size * furthest**2, 1.0)
    gain = np.asarray(gamma, np.float64) * (math.sqrt(size) / y.scale)
    return _parameters(rows, epsilon * size / x.scale**2, gain, np.zeros(()), y, bits)


def _parameters(
    rows: _Rows, constant: float, gain: NDArray[np.float64], beta: NDArray[np.float64], y: Codes, bits: int
) -> NormParameters:
    """Constants for ``gain c / sqrt(w + constant) + beta``, ``gain`` in codes of the result."""
    if not (np.isfinite(gain).all() and np.isfinite(beta).all() and math.isfinite(constant) and constant >= 0):
        raise ValueError("its epsilon, factor or shift is not finite, or epsilon is negative")
    if rows.centred >= 1 << CENTRED_BITS:
        raise ValueError("its rows are too long for 64 bits")
    places = min(_MOMENT_BITS - math.frexp(rows.greatest + constant)[1], _GREATEST_LEFT)
    if places < -dyadic.PRODUCT_BITS:
        raise ValueError("its epsilon is so large that the codes vanish beside it")
    epsilon = max(round(math.ldexp(constant, places)), 1)
    least = max(int(math.ldexp(rows.least, places)), 0) + epsilon
    steepest = min(rows.crest * 2.0 ** (-places / 2), rows.centred / math.sqrt(epsilon))
    fraction = _fraction(steepest, least)
    # the mean of one number is that number: nothing is left of it for gamma to act on
    unit = (gain if steepest else np.zeros_like(gain)) * 2.0 ** (places / 2 - fraction)
    multiplier, bias, shift = _per_element(unit, beta / y.scale, bits)
    lost = abs(epsilon - math.ldexp(constant, places)) + (places < 0)
    reach = np.minimum(
        np.abs(unit) * math.ldexp(steepest, fraction),
        max(y.high - y.zero_point, y.zero_point - y.low) + np.abs(beta / y.scale),
    )
    relative = lost / (2 * least) + _ROOT_ERROR
    # an element whose shift the bias limits has fewer bits: half a unit of its multiplier counts 2^30 times
    coarse = np.where(
        np.abs(multiplier) < 1 << min(bits, NORMAL_BITS) - 1, np.ldexp(0.5, NORMAL_BITS - shift.astype(np.int64)), 0.0
    )
    error = float(np.max(reach * relative + np.abs(unit) / 2 + coarse * (unit != 0), initial=0.0))
    if error >= 1:
        raise ValueError(f"its result would be off by {error:.3g} codes: the output scale is too fine for its input")
    return NormParameters(
        max(places, 0), max(-places, 0), epsilon, ROOT_BITS - fraction, multiplier, bias, shift, error
    )


def _fraction(steepest: float, least: int) -> int:
    """Binary places of ``n``: as many as keep it within 30 bits and every shift positive."""
    room = ROOT_BITS - 1 - int(leading_pairs(np.array(least)))
    if steepest == 0:
        return min(room, NORMAL_BITS)
    return min(room, math.floor(NORMAL_BITS - _SLACK - math.log2(steepest)))


def _per_element(
    unit: NDArray[np.float64], beta: NDArray[np.float64], bits: int
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.uint8]]:
    """Multipliers, biases and shifts for ``n * unit + beta``, codes of the result."""
    unit, beta = np.broadcast_arrays(unit, beta)
    factor = np.where(unit == 0, 1.0, np.abs(unit))
    chosen = dyadic.choose(factor, bits, 1 << NORMAL_BITS)
    # |beta| 2^h stays below 2^60; so does |n g|
    most = dyadic.PRODUCT_BITS - 2 - np.frexp(np.abs(beta))[1].clip(0)
    shift = np.minimum(chosen.shift.astype(np.int64), most)
    if (shift < 1).any():
        raise ValueError("its shift is too large for its output scale")
    # an unchanged shift gives the chosen multiplier again; a smaller one a shorter multiplier
    multiplier = np.rint(np.ldexp(factor, shift)) * np.sign(unit)
    bias = np.rint(np.ldexp(beta, shift)).astype(np.int64)
    return multiplier.astype(np.int32), bias, shift.astype(np.uint8)
