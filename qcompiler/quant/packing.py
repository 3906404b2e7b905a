"""Packed weights: how codes of 2, 3 and 4 bits lie in bytes, and those of 8 beside them.

Layout. A packed weight is a uint8 matrix ``[rows, ceil(depth / 8) * bits]``: one row per output channel, because a
kernel reads a row from end to end. A row is cut into groups of 8 codes; a group fills exactly ``bits`` bytes, so no
code lies across the border of two groups, and a row is filled up with zeros to whole groups (at most 7 codes).

Within a group everything is little endian: the bytes form one integer, least significant byte first, and code ``i``
of the group is its bits ``i * bits`` to ``i * bits + bits - 1`` in two's complement::

    word = byte[0] | byte[1] << 8 | ... | byte[bits - 1] << 8 * (bits - 1)
    u = (word >> i * bits) & (2^bits - 1)          code = (u xor 2^(bits-1)) - 2^(bits-1)

With 4 bits and whole groups this is ONNX's INT4, with 2 bits its INT2; the layout of 3 bits follows the same rule.
Codes of 8 bits are bytes in two's complement, by the same rule and filled up to whole groups as well.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qcompiler.quant.format import BYTE

__all__ = ["BITS", "GROUP", "least_bits", "pack", "packed_width", "unpack"]

BITS: Final = (2, 3, 4)
"""Widths below a byte that have a packed form; a byte (8) has one as well."""


GROUP: Final = 8
"""Codes that share ``bits`` bytes."""


def least_bits(codes: NDArray[Any]) -> int | None:
    """The narrowest packed width that holds all codes; ``None`` where they need more than 4 bits."""
    low, high = (int(codes.min()), int(codes.max())) if codes.size else (0, 0)
    return next((bits for bits in BITS if -(1 << (bits - 1)) <= low and high < 1 << (bits - 1)), None)


def packed_width(depth: int, bits: int) -> int:
    """Bytes of a row of ``depth`` codes."""
    return -(-depth // GROUP) * bits


def pack(codes: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Pack codes row by row.

    Args:
        codes: Integer codes ``[rows, ...]``; everything behind the first axis is one row.
        bits: 2, 3, 4 or 8.

    Returns:
        uint8 ``[rows, ceil(depth / 8) * bits]``.

    Raises:
        ValueError: There is no such width, or a code does not fit it.
    """
    _check_bits(bits)
    limit = 1 << (bits - 1)
    if codes.size and not (-limit <= codes.min() and codes.max() < limit):
        raise ValueError(f"codes from {codes.min()} to {codes.max()} do not fit {bits} bits")
    depth = int(np.prod(codes.shape[1:], dtype=np.int64))
    rows = codes.reshape(codes.shape[0], depth).astype(np.int8).view(np.uint8) & np.uint8((1 << bits) - 1)
    filled = np.pad(rows, ((0, 0), (0, -rows.shape[1] % GROUP)))
    if bits == BYTE:
        return filled
    groups = filled.reshape(rows.shape[0], filled.shape[1] // GROUP, GROUP)
    word = np.zeros(groups.shape[:2], np.uint32)
    for index in range(GROUP):
        word |= groups[..., index].astype(np.uint32) << np.uint32(index * bits)
    octets = word.astype("<u4")[..., None].view(np.uint8)[..., :bits]
    return np.ascontiguousarray(octets).reshape(rows.shape[0], packed_width(depth, bits))


def unpack(packed: NDArray[np.uint8], bits: int, shape: tuple[int, ...]) -> NDArray[np.int8]:
    """The codes of a packed weight.

    Args:
        packed: uint8 ``[rows, ceil(depth / 8) * bits]``.
        bits: 2, 3, 4 or 8.
        shape: Shape of the codes, ``[rows, ...]``.

    Raises:
        ValueError: There is no such width, or the bytes are not those of such codes.
    """
    _check_bits(bits)
    depth = int(np.prod(shape[1:], dtype=np.int64))
    if packed.dtype != np.uint8 or packed.shape != (shape[0], packed_width(depth, bits)):
        raise ValueError(f"{packed.dtype} {packed.shape} is not the packed form of {bits}-bit codes {tuple(shape)}")
    if bits == BYTE:
        return np.ascontiguousarray(packed.view(np.int8)[:, :depth]).reshape(shape)
    groups = packed.reshape(shape[0], packed_width(depth, bits) // bits, bits).astype(np.uint32)
    word = np.zeros(groups.shape[:2], np.uint32)
    for index in range(bits):
        word |= groups[..., index] << np.uint32(8 * index)
    unsigned = (word[..., None] >> (np.arange(GROUP, dtype=np.uint32) * np.uint32(bits))) & np.uint32((1 << bits) - 1)
    sign = 1 << (bits - 1)
    codes = (unsigned.astype(np.int8) ^ np.int8(sign)) - np.int8(sign)
    return np.ascontiguousarray(codes.reshape(shape[0], packed_width(depth, bits) // bits * GROUP)[:, :depth]).reshape(
        shape
    )


def _check_bits(bits: int) -> None:
    if bits not in (*BITS, BYTE):
        raise ValueError(f"there is no packed form of {bits} bits, only of {(*BITS, BYTE)}")
