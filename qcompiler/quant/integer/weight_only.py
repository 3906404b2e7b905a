"""Specification of QMatMulWeightOnly: a float activation times weights of 8, 4, 3 or 2 bits with scales per block.

Derivation. A row of the weight (one output channel, ``K`` codes) is cut into blocks of ``block`` codes; each block
has an integer multiplier of 11 bits and a zero point, each row one float32 scale::

    w[n, k] = scale[n] * m[n, b] * (code[n, k] - zero_point[n, b]),   b = k // block

So the scale of a block is a whole number of 2047ths of the greatest one in its row: what is summed over a row is a
sum of integers. Activations are made integers on the fly, row by row (``a`` is the greatest magnitude of a row)::

    q[k] = round_half_even(x[k] * (127 / a)),   x[k] ~ (a / 127) q[k]

and the product is exact but for the roundings at its ends::

    total[n] = sum_b m[n, b] * sum_{k in b} q[k] * (code[n, k] - zero_point[n, b])
    y[n] = float32(total[n]) * (s * scale[n]) + guard,   s = a / 127

Every sum is one of integers, so its order is free: an interpreter, a chain of standard operators and kernels with
any tiling agree bit for bit, although the result is a float. Each float operation is one IEEE float32 rounding (half
to even), in the order written: ``127 / a``; ``x * inverse``; ``round``; ``a / 127``; ``s * scale``; ``float32(total)``
(once, from the integer); their product; the guard, which changes no number. Nothing may be contracted to a fused
multiply-add, and subnormal numbers are not flushed.

``|q| <= 127`` needs no clip: ``127 / a`` is at most ``(127 / a)(1 + 2^-24)``, the product with ``x`` at most
``127 (1 + 2^-24)^2 < 127.5``.

Rows that are not finite. ``guard`` is ``sum(|x| * 0)``: +0, or NaN where the row holds a NaN or an infinity, and
NaN then reaches every result of the row (its sign and payload are not specified). Such rows, and rows with ``a <
2^-100``, where ``127 / a`` could overflow, have codes 0. A row of a single finite NaN-free number near the greatest
float32 is fine: ``127 / a`` stays a normal number. Where ``s * scale`` itself overflows, the result does (and ``0 *
inf`` is NaN), as float arithmetic has it.

Ranges. ``|code - zero_point| <= 2^bits - 1 <= 255``, so a block's sum is below ``127 * 255 * K`` and fits 32 bits up
to ``K = 65 793``, the greatest depth; ``m`` times it, summed, is below ``127 * 255 * 2047 * 65 793 < 2^43``: far below
``2^53``, so ``total`` may be held in 64-bit integers or exactly in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qcompiler.quant.integer.linear import WIDE_DEPTH, exact_matmul
from qcompiler.quant.packing import unpack

__all__ = [
    "ACTIVATION_LIMIT",
    "BITS",
    "GREATEST_MULTIPLIER",
    "LEAST_BLOCK",
    "LEAST_MAGNITUDE",
    "blocks",
    "check_parameters",
    "matmul_weight_only",
    "quantize_rows",
    "whole_weight",
]

BITS: Final = (2, 3, 4, 8)
"""Widths of weight codes."""

LEAST_BLOCK: Final = 16
"""Shortest block; longer ones are multiples of 8, so that blocks begin at whole bytes."""

GREATEST_MULTIPLIER: Final = 2047
"""Greatest multiplier of a block: 11 bits."""

LEAST_MAGNITUDE: Final = np.float32(2.0**-100)
"""Rows whose greatest magnitude is below have codes 0."""

ACTIVATION_LIMIT: Final = np.float32(127)
"""Greatest code of an activation."""

_Float = NDArray[np.float32]


def blocks(depth: int, block: int) -> int:
    """How many blocks a row of ``depth`` codes has; the last one may be shorter."""
    return -(-depth // block)


def matmul_weight_only(
    x: _Float,
    w: NDArray[np.uint8],
    block_multiplier: NDArray[np.uint16],
    scale: _Float,
    zero_point: NDArray[np.int8],
    *,
    bits: int,
    block: int,
    weight_shape: Sequence[int],
) -> _Float:
    """``x @ weight.T`` with quantized rows of ``x``; see the module.

    Args:
        x: float32 ``[..., K]``.
        w: uint8 ``[N, ceil(K / 8) * bits]``, packed rows (:mod:`qcompiler.quant.packing`).
        block_multiplier: uint16 ``[N, B]``, 1 to 2047, ``B = ceil(K / block)``.
        scale: float32 ``[N]``, positive normal numbers.
        zero_point: int8 ``[N, B]`` within the codes of ``bits``, or ``[1, 1]`` where it is the same for all blocks.
        bits: Bits of a code: 2, 3, 4 or 8.
        block: Codes that share a multiplier: a multiple of 8, at least 16; one block per row where it reaches ``K``.
        weight_shape: ``[N, K]``.

    Returns:
        float32 ``[..., N]``.

    Raises:
        ValueError: A type, shape or parameter is outside its range.
    """
    if x.dtype != np.float32 or x.ndim < 1 or x.shape[-1] != weight_shape[1]:
        raise ValueError(f"x is float32 [..., {weight_shape[1]}], not {x.dtype} {x.shape}")
    check_parameters(block_multiplier, scale, zero_point, bits=bits, block=block, weight_shape=weight_shape)
    weight = whole_weight(unpack(w, bits, tuple(weight_shape)), block_multiplier, zero_point, block)
    with np.errstate(all="ignore"):
        codes, row_scale, guard = quantize_rows(x)
        total = exact_matmul(codes, weight.T).astype(np.float32)
        result: _Float = total * (row_scale * scale) + guard
    return result


def quantize_rows(x: _Float) -> tuple[NDArray[np.int8], _Float, _Float]:
    """Integer codes of each row of ``x``.

    Returns:
        int8 codes ``[..., K]``, the scale of each row ``[..., 1]`` and its guard ``[..., 1]``: 0, or NaN.
    """
    magnitude = np.abs(x)
    guard = (magnitude * np.float32(0)).sum(axis=-1, keepdims=True, dtype=np.float32)
    greatest = magnitude.max(axis=-1, keepdims=True)
    usable = (greatest >= LEAST_MAGNITUDE) & (guard == 0)
    inverse = ACTIVATION_LIMIT / np.where(usable, greatest, np.float32(1))
    codes = np.where(usable, np.rint(np.where(usable, x, np.float32(0)) * inverse), np.float32(0))
    return codes.astype(np.int8), greatest / ACTIVATION_LIMIT, guard


def whole_weight(
    codes: NDArray[np.int8], block_multiplier: NDArray[np.uint16], zero_point: NDArray[np.int8], block: int
) -> NDArray[np.int32]:
    """``m * (code - zero_point)``, int32 ``[N, K]``: the weight without the scales of its rows."""
    block_of = np.arange(codes.shape[1]) // block
    zero = np.broadcast_to(zero_point.astype(np.int32), block_multiplier.shape)
    whole: NDArray[np.int32] = block_multiplier.astype(np.int32)[:, block_of] * (codes - zero[:, block_of])
    return whole


def check_parameters(
    block_multiplier: NDArray[Any],
    scale: NDArray[Any],
    zero_point: NDArray[Any],
    *,
    bits: int,
    block: int,
    weight_shape: Sequence[int],
) -> None:
    """Parameters have the types, shapes and ranges that :func:`matmul_weight_only` asks for.

    Raises:
        ValueError: One has not.
    """
    rows, depth = weight_shape
    if bits not in BITS:
        raise ValueError(f"weights have one of {BITS} bits, not {bits}")
    if not (rows >= 1 and 1 <= depth <= WIDE_DEPTH):
        raise ValueError(f"a weight {list(weight_shape)}: rows hold 1 to {WIDE_DEPTH} codes")
    if (block < depth and (block < LEAST_BLOCK or block % 8)) or block < 1:
        raise ValueError(f"a block of {block}: a multiple of 8, at least {LEAST_BLOCK}, or a whole row of {depth}")
    per_block = (rows, blocks(depth, block))
    _check_array("block_multiplier", block_multiplier, np.uint16, (per_block,), 1, GREATEST_MULTIPLIER)
    half = 1 << (bits - 1)
    _check_array("zero_point", zero_point, np.int8, (per_block, (1, 1)), -half, half - 1)
    limits = np.finfo(np.float32)
    _check_array("scale", scale, np.float32, ((rows,),), float(limits.tiny), float(limits.max))


def _check_array(
    name: str, array: NDArray[Any], dtype: Any, shapes: Sequence[tuple[int, ...]], low: float, high: float
) -> None:
    if array.dtype != dtype or array.shape not in shapes:
        wanted = " or ".join(str(list(shape)) for shape in shapes)
        raise ValueError(f"{name} is {np.dtype(dtype)} {wanted}, not {array.dtype} {list(array.shape)}")
    if not ((array >= low) & (array <= high)).all():
        raise ValueError(f"{name} lies in {low:g} to {high:g}")
