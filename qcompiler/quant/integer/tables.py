"""Functions of one number as tables of codes.

A function ``f`` of an 8-bit code has only 256 results. They are computed when the model is compiled, in float64, and
rounded once::

    table[q + 128] = clip(rint(f(s_x * (q - z_x)) / s_y) + z_y, low, high)          half_even, as QuantizeLinear

so that looking one up is exact: no code differs from the float function rounded once.

A 16-bit code has 65536. The table keeps every 128th, 513 entries, and lines or parabolas join them. With
``u = x + 32768``, ``i = u >> 7``, ``f = u & 127`` and second differences ``c[i] = t[i-1] - 2 t[i] + t[i+1]`` (the first
and last stand for the missing ones beyond them)::

    line = 128 * t[i] + (t[i + 1] - t[i]) * f
    bend = (f * (128 - f) * (c[i] + c[i + 1]) + 2^8) >> 9           0 for ``curved = 0``
    y = clip((line - bend + 2^12) >> 13, low, high)

``bend`` is the parabola whose second derivative is the mean of those at both ends: ``u (1 - u) / 2 * (c + c') / 2``
in steps, in the units of ``line``. Entries are int32: codes with six more bits, and they may lie beyond the result's
codes, where the curve goes on while the result saturates. Roundings: one per entry (compile time, 2^-7 codes),
``half_up`` in both shifts, of which the first is worth 2^-14 codes; then one saturation.

The error, with ``h = 128 s_x``, in codes: lines are off by at most ``h^2 / 8 * max|D2 f| / s_y`` through the function
and by half of that at best, parabolas by about ``h^3 / 124 * max|D3 f| / s_y``; entries and the first shift add less
than 2^-6, the last shift 1/2. Parabolas hold one code for every smooth function at scales that fit it; lines are better
around kinks, and good enough where the result has 8 bits. The designer of a table measures both over all 65536 codes
(:mod:`qcompiler.quant.integer.table_design`).

Everything fits 32 bits: ``|t| <= 2^22`` and, under parabolas, ``|c[i] + c[i + 1]| < 2^18`` are checked, so
``|line| <= 2^29``, its second term stays below 2^30, and ``f * (128 - f) <= 2^12`` times the differences too.

Source: TensorFlow Lite's 16-bit tables (``generic_table_lookup``) have the same entries and positions, and lines.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qcompiler.quant.integer.dyadic import Overflow, saturate

__all__ = [
    "ENTRIES",
    "INTERPOLATED_ENTRIES",
    "STEP",
    "STEP_BITS",
    "interpolate",
    "lookup",
    "lookup_interpolated",
]

ENTRIES: Final = 256
"""Entries of a table over 8-bit codes."""

STEP_BITS: Final = 7
STEP: Final = 1 << STEP_BITS
"""Positions of an interpolated table are two to this power apart."""

INTERPOLATED_ENTRIES: Final = 513
"""Entries of an interpolated table over 16-bit codes: both ends included."""

ENTRY_BITS: Final = 6
"""Bits that the entries of an interpolated table have beyond those of a code."""

GREATEST_ENTRY: Final = 1 << 22
GREATEST_BEND: Final = (1 << 18) - 1
"""Greatest ``|t|``, and greatest ``|c[i] + c[i + 1]|`` under parabolas."""

_SHIFT: Final = STEP_BITS + ENTRY_BITS


def lookup(x: NDArray[Any], table: NDArray[Any]) -> NDArray[Any]:
    """``table[x + 128]``.

    Args:
        x: int8 of any shape.
        table: 256 entries, int8 or int16, for the codes -128 to 127.

    Returns:
        The entries, in the type of the table. Exact: no rounding, no saturation.

    Raises:
        ValueError: Wrong types or size.
    """
    if x.dtype != np.int8:
        raise ValueError(f"a table of {ENTRIES} entries is for int8, not {x.dtype}")
    if table.shape != (ENTRIES,) or table.dtype not in (np.int8, np.int16):
        raise ValueError(f"a table has {ENTRIES} entries of int8 or int16, not {table.shape} of {table.dtype}")
    found: NDArray[Any] = table[x.astype(np.int64) + ENTRIES // 2]
    return found


def lookup_interpolated(
    x: NDArray[Any], table: NDArray[Any], *, curved: int, to: int, low: int, high: int
) -> NDArray[Any]:
    """Between the entries around each code; the formula is above.

    Args:
        x: int16 of any shape.
        table: 513 entries, int32, at the codes -32768, -32640, ... 32640, 32768 (the last is never reached).
        curved: 0 for lines, 1 for parabolas.
        to: ONNX element type of the result, INT8 or INT16.
        low: Least code of the result.
        high: Greatest code of the result.

    Returns:
        Codes, in the type ``to``.

    Raises:
        Overflow: An entry, or a second difference under parabolas, is too large for 32 bits.
        ValueError: Wrong types or size, or a parameter outside its range.
    """
    if x.dtype != np.int16:
        raise ValueError(f"an interpolated table is for int16, not {x.dtype}")
    if table.shape != (INTERPOLATED_ENTRIES,) or table.dtype != np.int32:
        raise ValueError(f"an interpolated table has {INTERPOLATED_ENTRIES} entries of int32, not {table.shape}")
    if curved not in (0, 1):
        raise ValueError(f"curved is 0 or 1, not {curved}")
    found = interpolate(x.astype(np.int64) - np.iinfo(np.int16).min, table, curved=bool(curved))
    return saturate(found, to=to, low=low, high=high)


def interpolate(position: NDArray[np.int64], table: NDArray[Any], *, curved: bool) -> NDArray[np.int64]:
    """The code on the line or parabola at ``position`` (0 to 65535), rounded ``half_up``, not saturated.

    Raises:
        Overflow: As in :func:`lookup_interpolated`.
    """
    entries = table.astype(np.int64)
    if np.abs(entries).max() > GREATEST_ENTRY:
        raise Overflow(f"an entry of a table reaches {np.abs(entries).max()}, the greatest is {GREATEST_ENTRY}")
    index, fraction = position >> STEP_BITS, position & (STEP - 1)
    value = (entries[index] << STEP_BITS) + (entries[index + 1] - entries[index]) * fraction
    if curved:
        both = bends(entries)[index]
        value = value - ((fraction * (STEP - fraction) * both + 256) >> 9)
    code: NDArray[np.int64] = (value + (1 << (_SHIFT - 1))) >> _SHIFT
    return code


def bends(entries: NDArray[np.int64]) -> NDArray[np.int64]:
    """``c[i] + c[i + 1]`` of the 512 steps between entries.

    Raises:
        Overflow: One is too large for 32 bits.
    """
    second = entries[:-2] - 2 * entries[1:-1] + entries[2:]
    whole = np.concatenate([second[:1], second, second[-1:]])
    both: NDArray[np.int64] = whole[:-1] + whole[1:]
    if np.abs(both).max() > GREATEST_BEND:
        raise Overflow("a table bends too much for parabolas in 32 bits")
    return both
