"""Specification of QGather and QGatherWeightOnly: rows of a table of few bits, looked up by their number.

Derivation. A table ``[V, D]`` (an embedding) has one scale per row and no zero points, ``t[r, d] = scale[r] *
code[r, d]``. Rows are as different as words are rare, so a scale of their own is what lets 8, 4, 3 or 2 bits hold
them. Gather along the first axis picks rows; nothing is added up.

Integer result. At scale ``s_y`` and zero point ``z`` the real code is ``code[r, d] * M[r] + z`` with ``M[r] =
scale[r] / s_y``. Each row has a dyadic number of its own, ``M[r] ≈ b[r] * 2^-c[r]``
(:mod:`qcompiler.quant.integer.dyadic`)::

    y[..., d] = clip(((code[r, d] * b[r] + 2^(c[r]-1)) >> c[r]) + z, low, high),   r = indices[...]

Rounding: ``half_up``, once; then one saturation. ``|code| <= 128`` leaves the multiplier all its 31 bits: with ``m`` of
them the product is off by at most ``128 M 2^-m``, so the result differs by at most one code from the real one rounded
once, and only where that is nearly a tie. ``128 * 2^31 + 2^61 < 2^62``: no product overflows, whatever the constants.

Float result. ``y[..., d] = float32(code[r, d]) * scale[r]``, one IEEE float32 multiplication: bit for bit what Gather
of the dequantized table gives, because DequantizeLinear does the same with every entry. Scales are normal numbers, so
no product is subnormal.

Indices are those of ONNX's Gather: ``-V <= index < V``, negative ones count from the end; any shape, the empty ones
included. Rows are picked packed (:mod:`qcompiler.quant.packing`), and only those are unpacked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qcompiler.quant.format import BYTE
from qcompiler.quant.integer.dyadic import requantize
from qcompiler.quant.packing import BITS, packed_width, unpack

__all__ = ["CODE_LIMIT", "WIDTHS", "check_scales", "check_table", "gather", "gather_weight_only"]

WIDTHS: Final = (*BITS, BYTE)
"""Bits that codes of a table may have."""

CODE_LIMIT: Final = 1 << (BYTE - 1)
"""Greatest magnitude of a code."""

_Indices = NDArray[np.int32] | NDArray[np.int64]


def gather(
    indices: _Indices,
    w: NDArray[np.uint8],
    multiplier: NDArray[np.int32],
    shift: NDArray[np.uint8],
    *,
    bits: int,
    weight_shape: Sequence[int],
    y_zero_point: int,
    to: int,
    low: int,
    high: int,
) -> NDArray[Any]:
    """Rows of the table as codes of the result; the formula is above.

    Args:
        indices: int32 or int64 of any shape, ``-V`` to ``V - 1``.
        w: uint8 ``[V, ceil(D / 8) * bits]``, packed rows.
        multiplier: int32 ``[V]``, not negative.
        shift: uint8 ``[V]``, 1 to 62.
        bits: Bits of a code: 2, 3, 4 or 8.
        weight_shape: ``[V, D]``.
        y_zero_point: Code of zero in the result.
        to: ONNX element type of the result.
        low: Least code of the result.
        high: Greatest code of the result.

    Returns:
        Codes ``[*indices.shape, D]``, in the type ``to``.

    Raises:
        ValueError: An input or parameter is outside its range.
    """
    check_table(w.shape, bits=bits, weight_shape=weight_shape)
    for name, array, dtype in (("multiplier", multiplier, np.int32), ("shift", shift, np.uint8)):
        _check_rows(name, array, dtype, weight_shape[0])
    codes, rows = _codes(indices, w, bits, weight_shape)
    clamp = {"y_zero_point": y_zero_point, "to": to, "low": low, "high": high}
    return requantize(codes, multiplier[rows][..., None], shift[rows][..., None], x_zero_point=0, **clamp)


def gather_weight_only(
    indices: _Indices,
    w: NDArray[np.uint8],
    scale: NDArray[np.float32],
    *,
    bits: int,
    weight_shape: Sequence[int],
) -> NDArray[np.float32]:
    """Rows of the table as real numbers; arguments as in :func:`gather`, and ``scale`` float32 ``[V]``, positive.

    Returns:
        float32 ``[*indices.shape, D]``.

    Raises:
        ValueError: An input or parameter is outside its range.
    """
    check_table(w.shape, bits=bits, weight_shape=weight_shape)
    check_scales(scale, weight_shape[0])
    codes, rows = _codes(indices, w, bits, weight_shape)
    with np.errstate(over="ignore"):  # an infinity then, as in DequantizeLinear
        real: NDArray[np.float32] = codes.astype(np.float32) * scale[rows][..., None]
    return real


def check_table(packed: Sequence[int], *, bits: int, weight_shape: Sequence[int]) -> None:
    """The shape of a packed table is what its attributes say.

    Raises:
        ValueError: It is not.
    """
    if bits not in WIDTHS:
        raise ValueError(f"a table has codes of one of {WIDTHS} bits, not {bits}")
    if len(weight_shape) != 2 or min(weight_shape) < 1:
        raise ValueError(f"a table is [rows, depth], not {list(weight_shape)}")
    rows, depth = weight_shape
    if tuple(packed) != (rows, packed_width(depth, bits)):
        raise ValueError(f"{list(packed)} is not a table {[rows, depth]} packed in {bits} bits")


def check_scales(scale: NDArray[Any], rows: int) -> None:
    """Each row has a scale: a positive normal float32.

    Raises:
        ValueError: There are others.
    """
    _check_rows("scale", scale, np.float32, rows)
    limits = np.finfo(np.float32)
    if not ((scale >= limits.tiny) & (scale <= limits.max)).all():
        raise ValueError(f"scale lies in {limits.tiny:g} to {limits.max:g}")


def _check_rows(name: str, array: NDArray[Any], dtype: Any, rows: int) -> None:
    if array.dtype != dtype or array.shape != (rows,):
        raise ValueError(f"{name} is {np.dtype(dtype)} {[rows]}, not {array.dtype} {list(array.shape)}")


def _codes(
    indices: _Indices, w: NDArray[np.uint8], bits: int, weight_shape: Sequence[int]
) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """Codes ``[*indices.shape, D]`` of the rows that were asked for, and the numbers of these from 0 on."""
    count, depth = weight_shape
    if indices.dtype not in (np.int32, np.int64):
        raise ValueError(f"indices are int32 or int64, not {indices.dtype}")
    wide = indices.astype(np.int64)
    if wide.size and not (-count <= wide.min() and wide.max() < count):
        raise ValueError(f"indices of a table of {count} rows lie in {-count} to {count - 1}")
    rows = np.where(wide < 0, wide + count, wide)
    codes = unpack(w[rows.reshape(-1)], bits, (rows.size, depth))
    return codes.reshape(*rows.shape, depth), rows
