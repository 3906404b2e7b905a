"""Worst-case ranges of integer accumulators: what a sum of products can reach, exactly.

Derivation. An accumulator is ``a = bias + sum_i x_i * w_i`` with constant codes ``w_i`` and activation codes ``x_i``
that vary independently in ``[low, high]``. Each term is monotone in its own ``x_i``, so the sum is greatest where
every positive weight sees ``high`` and every negative one sees ``low``. With ``P`` the sum of the positive weights and
``N`` that of the negative ones::

    greatest = bias + high * P + low * N          least = bias + low * P + high * N

Both are attained, so no narrower range is true. Hardware adds the terms one by one in an order of its own. A partial
sum holds some of the terms and perhaps not yet the bias, as if the others were zero: the same formulas with ``low``
replaced by ``min(low, 0)``, ``high`` by ``max(high, 0)`` and the bias by its negative or positive part.
:func:`order_free_bounds` therefore holds for saturating accumulators and for any tiling. It also covers sums with
terms left out, as at the borders of a transposed convolution.

Everything is integer arithmetic in 64 bits; sums that 64 bits do not hold are refused, not wrapped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.quant.integer.dyadic import Overflow

__all__ = ["linear_bounds", "order_free_bounds", "product_bounds", "sum_bounds", "width"]


def linear_bounds(
    weight: NDArray[Any], bias: NDArray[Any] | None, low: int, high: int, *, channel_axis: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Least and greatest ``bias + sum(x * w)`` per output channel over all ``x`` in ``[low, high]``; both attained.

    Args:
        weight: Integer codes of any shape; everything but ``channel_axis`` is summed over.
        bias: One integer per channel (any shape of that size, or one for all), or ``None``.
        low: Least activation code.
        high: Greatest activation code.
        channel_axis: Axis of ``weight`` that holds the output channels.

    Returns:
        Two arrays of shape ``(channels,)``.

    Raises:
        ValueError: ``low`` is greater than ``high``.
        Overflow: A bound does not fit 64 bits.
    """
    positive, negative = _signed_sums(weight, low, high, channel_axis)
    offset = _per_channel(bias, positive.size)
    _check_magnitude(positive, negative, offset, low, high)
    return offset + low * positive + high * negative, offset + high * positive + low * negative


def order_free_bounds(
    weight: NDArray[Any], bias: NDArray[Any] | None, low: int, high: int, *, channel_axis: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Least and greatest partial sum per output channel, in any order, with the bias first, last or between.

    Arguments, result and errors are those of :func:`linear_bounds`.
    """
    positive, negative = _signed_sums(weight, low, high, channel_axis)
    offset = _per_channel(bias, positive.size)
    _check_magnitude(positive, negative, offset, low, high)
    least, most = min(low, 0), max(high, 0)
    return (
        np.minimum(offset, 0) + least * positive + most * negative,
        np.maximum(offset, 0) + most * positive + least * negative,
    )


def product_bounds(depth: int, a_low: int, a_high: int, b_low: int, b_high: int) -> tuple[int, int]:
    """Least and greatest partial sum of up to ``depth`` products of two activations.

    Args:
        depth: Number of products.
        a_low: Least value of the first factor, its zero point already subtracted where the sum is of centred codes.
        a_high: Greatest value of the first factor.
        b_low: Least value of the second factor.
        b_high: Greatest value of the second factor.

    Raises:
        ValueError: A range is empty.
    """
    _check_range(a_low, a_high)
    _check_range(b_low, b_high)
    products = (a_low * b_low, a_low * b_high, a_high * b_low, a_high * b_high)
    return sum_bounds(depth, min(products), max(products))


def sum_bounds(depth: int, low: int, high: int) -> tuple[int, int]:
    """Least and greatest partial sum of up to ``depth`` terms in ``[low, high]`` (pooling, means).

    Raises:
        ValueError: The range is empty or the depth negative.
    """
    _check_range(low, high)
    if depth < 0:
        raise ValueError(f"a sum of {depth} terms")
    return depth * min(low, 0), depth * max(high, 0)


def width(low: int, high: int) -> int:
    """Bits of the narrowest two's complement that holds ``[low, high]``, sign included; at least 1.

    Raises:
        ValueError: The range is empty.
    """
    _check_range(low, high)
    return max((value if value >= 0 else ~value).bit_length() for value in (int(low), int(high))) + 1


def _signed_sums(
    weight: NDArray[Any], low: int, high: int, channel_axis: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Per channel the sum of the positive weights and that of the negative ones."""
    _check_range(low, high)
    codes = np.moveaxis(np.asarray(weight), channel_axis, 0)
    rows = codes.reshape(codes.shape[0], -1)
    total: NDArray[np.int64] = rows.sum(axis=1, dtype=np.int64)
    positive: NDArray[np.int64] = np.maximum(rows, 0).sum(axis=1, dtype=np.int64)
    return positive, total - positive


def _per_channel(bias: NDArray[Any] | None, channels: int) -> NDArray[np.int64]:
    if bias is None:
        return np.zeros(channels, np.int64)
    flat = np.asarray(bias, np.int64).reshape(-1)
    return np.array(np.broadcast_to(flat, (channels,)))


def _check_magnitude(
    positive: NDArray[np.int64], negative: NDArray[np.int64], offset: NDArray[np.int64], low: int, high: int
) -> None:
    largest = max(abs(low), abs(high))
    for weights, bias in zip((positive - negative).tolist(), offset.tolist(), strict=True):
        if weights * largest + abs(bias) >= 1 << 63:
            raise Overflow("the worst case of an accumulator does not fit 64 bits")


def _check_range(low: int, high: int) -> None:
    if low > high:
        raise ValueError(f"the range {low} to {high} is empty")
