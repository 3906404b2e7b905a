"""Entries of tables: a float64 function becomes codes.

Every code of an 8-bit tensor gets the function's value rounded once. For 16-bit codes, lines or parabolas join 513
entries (:mod:`qcompiler.quant.integer.tables`). Under parabolas the entries are samples. Under lines they are chosen:
a line through two points of a bent function lies on one side of it, and shifting the line halves its greatest error.
Starting from samples, each entry moves by the middle of the errors on both sides of it, a few times.

Lines are kept where they are within one code, as everywhere in 8 bits, or no worse than parabolas, as around kinks.
Where the function has no value (a logarithm of a negative number) the result is the code of zero; where it is infinite
the nearest code that the result has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qcompiler.quant.integer.dyadic import Overflow
from qcompiler.quant.integer.tables import (
    ENTRIES,
    ENTRY_BITS,
    GREATEST_ENTRY,
    INTERPOLATED_ENTRIES,
    STEP,
    interpolate,
)

__all__ = ["Affine", "Function", "InterpolatedTable", "design_interpolated", "design_table"]

Function: TypeAlias = "Callable[[NDArray[np.float64]], NDArray[np.float64]]"

_CODES: Final = 1 << 16
_SWEEPS: Final = 12
_FAR: Final = 2.0**60
_DTYPES: Final[dict[int, Any]] = {3: np.int8, 5: np.int16}


@dataclass(frozen=True, slots=True)
class Affine:
    """Codes with a scale and zero point, and the range that they keep to.

    Attributes:
        scale: ``real = scale * (code - zero_point)``.
        zero_point: Code of zero.
        low: Least code.
        high: Greatest code.
    """

    scale: float
    zero_point: int
    low: int
    high: int


@dataclass(frozen=True, slots=True, eq=False)
class InterpolatedTable:
    """An interpolated table and how good it is.

    Attributes:
        entries: 513 of int32.
        to: ONNX element type of the results.
        curved: Whether parabolas join the entries, not lines.
        distance: Greatest distance from the function rounded once, in codes, over the codes that the input has.
        error: Greatest distance from the real function, in codes.
    """

    entries: NDArray[np.int32]
    to: int
    curved: bool
    distance: int
    error: float


def design_table(function: Function, source: Affine, result: Affine, to: int) -> NDArray[Any]:
    """The table of a function over 8-bit codes.

    Args:
        function: float64 in, float64 out.
        source: Meaning of the input's codes (its range is not used: every code gets an entry).
        result: Meaning and range of the result's codes.
        to: ONNX element type of the result, INT8 or INT16.

    Returns:
        256 entries. Rounding: ``half_even`` of ``f / scale``, once, then the zero point and saturation.
    """
    codes = np.arange(ENTRIES) - ENTRIES // 2
    entries: NDArray[Any] = _rounded(_wanted(function, codes, source, result), result).astype(_DTYPES[to])
    return entries


def design_interpolated(function: Function, source: Affine, result: Affine, to: int) -> InterpolatedTable:
    """The table of a function over 16-bit codes, measured at every code that the input can have.

    Args:
        function: float64 in, float64 out.
        source: Meaning and range of the input's codes.
        result: Meaning and range of the result's codes.
        to: ONNX element type of the result, INT8 or INT16.
    """
    codes = np.arange(_CODES + STEP) - _CODES // 2  # the last line's far end lies beyond the codes
    quotient = _continued(_wanted(function, codes, source, result), codes, source)
    used = (codes >= source.low) & (codes <= source.high)
    real = np.clip(quotient + result.zero_point, result.low, result.high)
    best = _measured(_middle(real, used), quotient, used, result, to, curved=False)
    if best.distance <= 1:
        return best
    # Samples beyond the result's range keep a parabola in its course; what it gives there saturates.
    samples = (quotient[::STEP] + result.zero_point)[:INTERPOLATED_ENTRIES]
    try:
        parabolas = _measured(samples, quotient, used, result, to, curved=True)
    except Overflow:  # too steep for entries of a parabola; the error of the lines is measured and told all the same
        return best
    return parabolas if parabolas.error < best.error else best


def _measured(
    entries: NDArray[np.float64],
    quotient: NDArray[np.float64],
    used: NDArray[np.bool_],
    result: Affine,
    to: int,
    *,
    curved: bool,
) -> InterpolatedTable:
    """Round entries (in codes) to integers, half_even, and look up every code.

    Raises:
        Overflow: The entries bend too much.
    """
    units = np.rint(np.ldexp(entries, ENTRY_BITS))
    stored = np.clip(units, -GREATEST_ENTRY, GREATEST_ENTRY).astype(np.int32)
    held = used[:_CODES]
    found = np.clip(interpolate(np.arange(_CODES), stored, curved=curved), result.low, result.high)[held]
    distance = np.abs(found - _rounded(quotient, result)[:_CODES][held])
    real = np.clip(quotient + result.zero_point, result.low, result.high)[:_CODES][held]
    error = float(np.abs(found - real).max(initial=0))
    return InterpolatedTable(stored, to, curved, int(distance.max(initial=0)), error)


def _wanted(function: Function, codes: NDArray[Any], source: Affine, result: Affine) -> NDArray[np.float64]:
    """``f / scale`` at every code, finite: no value is zero, and infinite is just beyond the codes."""
    with np.errstate(all="ignore"):
        # DequantizeLinear gives float32: around a jump its rounding decides.
        real = np.float32(source.scale) * (codes - source.zero_point).astype(np.float32)
        value = function(real.astype(np.float64)) / result.scale
    bound = 2.0**20
    return np.clip(np.nan_to_num(value, nan=0.0, posinf=bound, neginf=-bound), -bound, bound)


def _continued(quotient: NDArray[np.float64], codes: NDArray[np.int64], source: Affine) -> NDArray[np.float64]:
    """Straight on beyond the codes that the input has: a step that is used in part follows its used part."""
    least, most = source.low - int(codes[0]), min(source.high, _CODES // 2 - 1) - int(codes[0])
    if most == least:
        return quotient
    continued = quotient.copy()
    continued[:least] = quotient[least] + (quotient[least + 1] - quotient[least]) * np.arange(-least, 0)
    if most < _CODES - 1:
        beyond = np.arange(1, continued.size - most)
        continued[most + 1 :] = quotient[most] + (quotient[most] - quotient[most - 1]) * beyond
    return continued


def _rounded(quotient: NDArray[np.float64], result: Affine) -> NDArray[np.int64]:
    """QuantizeLinear of the quotient: ``half_even``, then zero point and saturation."""
    return np.clip(np.rint(quotient).astype(np.int64) + result.zero_point, result.low, result.high)


def _middle(wanted: NDArray[np.float64], used: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Real entries whose lines err equally to both sides.

    Args:
        wanted: The function in codes at every position, one step beyond the last code.
        used: Which positions matter.
    """
    entries = wanted[::STEP][:INTERPOLATED_ENTRIES].copy()
    target = wanted[:_CODES].reshape(-1, STEP)
    matters = used[:_CODES].reshape(-1, STEP)
    any_used = matters.any(1, keepdims=True)
    fraction = np.arange(STEP) / STEP
    for _ in range(_SWEEPS):
        line = entries[:-1, None] + (entries[1:] - entries[:-1])[:, None] * fraction
        error = target - line
        most = np.where(matters, error, np.where(any_used, -_FAR, 0.0)).max(1)
        least = np.where(matters, error, np.where(any_used, _FAR, 0.0)).min(1)
        middle = (most + least) / 2
        beside = np.concatenate([middle[:1], (middle[:-1] + middle[1:]) / 2, middle[-1:]])
        entries = entries + beside
    return entries
