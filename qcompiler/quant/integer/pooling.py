"""Sums and maxima over windows, areas and axes.

Derivation. A mean over ``n`` codes is ``s_x * sum(x - zx) / n``. The division belongs to the rescale: with
``M = s_x / (s_y * n)`` chosen by the compiler, every operator here is a sum of centred codes, exact in its
accumulator, followed by one rescale (one rounding ``half_up``, one saturation). Where windows at a border count
fewer elements, ``M`` is a constant tensor over the output positions. A sum over axes is the same with ``n = 1``.

Padding holds the code of zero, ``zx``, so that it adds nothing.

Accumulators: int32 for 8-bit codes, int64 for 16-bit codes; both are checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qcompiler.quant.integer import dyadic
from qcompiler.quant.integer.digits import signed_sum

__all__ = [
    "average_pool",
    "average_pool_channels_last",
    "average_pool_channels_last_shift",
    "average_pool_shift",
    "global_average_pool",
    "global_average_pool_shift",
    "max_pool",
    "reduce_mean",
    "reduce_mean_shift",
    "window_shape",
]

_WIDTHS: Final = {1: 32, 2: 64}
"""Bits of the accumulator by bytes of a code."""


def average_pool(
    x: NDArray[Any],
    multiplier: NDArray[Any],
    shift: NDArray[Any],
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    x_zero_point: int,
    **output: int,
) -> NDArray[Any]:
    """Sum of each window, rescaled.

    Args:
        x: int8 or int16 ``[N, C, spatial...]``.
        multiplier: int32, scalar or over the output positions ``[spatial...]``.
        shift: uint8, likewise.
        kernel_shape: Size of the window per spatial axis.
        strides: Step of the window.
        dilations: Distance of its elements.
        pads: Codes of zero put before and behind: all begins, then all ends.
        x_zero_point: Code of zero.
        output: ``y_zero_point``, ``to``, ``low`` and ``high`` of the rescale.

    Raises:
        Overflow: A sum leaves its accumulator or a product leaves 62 bits.
        ValueError: A parameter is outside its range.
    """
    sums = _window_sums(x, kernel_shape, strides, dilations, pads, x_zero_point)
    return dyadic.requantize(sums, multiplier, shift, x_zero_point=0, **output)


def average_pool_shift(
    x: NDArray[Any],
    left: NDArray[Any],
    negative: NDArray[Any],
    shift: NDArray[Any],
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    x_zero_point: int,
    **output: int,
) -> NDArray[Any]:
    """:func:`average_pool` with a signed sum of shifts instead of a multiplier.

    ``left`` uint8 and ``negative`` bool are digits ``[D]`` or ``[spatial..., D]``; see :mod:`.digits`.
    """
    sums = _window_sums(x, kernel_shape, strides, dilations, pads, x_zero_point)
    return dyadic.requantize_shift(signed_sum(sums, left, negative), shift, x_zero_point=0, **output)


def average_pool_channels_last(
    x: NDArray[Any],
    multiplier: NDArray[Any],
    shift: NDArray[Any],
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    x_zero_point: int,
    **output: int,
) -> NDArray[Any]:
    """:func:`average_pool` of ``[N, spatial..., C]``; factors are scalars or ``[spatial..., 1]``."""
    sums = _last_window_sums(x, kernel_shape, strides, dilations, pads, x_zero_point)
    return dyadic.requantize(sums, multiplier, shift, x_zero_point=0, **output)


def average_pool_channels_last_shift(
    x: NDArray[Any],
    left: NDArray[Any],
    negative: NDArray[Any],
    shift: NDArray[Any],
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    x_zero_point: int,
    **output: int,
) -> NDArray[Any]:
    """:func:`average_pool_shift` of ``[N, spatial..., C]``; digits are ``[D]`` or ``[spatial..., 1, D]``."""
    sums = _last_window_sums(x, kernel_shape, strides, dilations, pads, x_zero_point)
    return dyadic.requantize_shift(signed_sum(sums, left, negative), shift, x_zero_point=0, **output)


def global_average_pool(
    x: NDArray[Any], multiplier: NDArray[Any], shift: NDArray[Any], *, x_zero_point: int, **output: int
) -> NDArray[Any]:
    """Sum over all spatial axes of ``[N, C, spatial...]``, rescaled; they stay with size 1."""
    sums = _sum(x, tuple(range(2, x.ndim)), x_zero_point, keep=True)
    return dyadic.requantize(sums, multiplier, shift, x_zero_point=0, **output)


def global_average_pool_shift(
    x: NDArray[Any],
    left: NDArray[Any],
    negative: NDArray[Any],
    shift: NDArray[Any],
    *,
    x_zero_point: int,
    **output: int,
) -> NDArray[Any]:
    """:func:`global_average_pool` with a signed sum of shifts ``[D]`` instead of a multiplier."""
    sums = _sum(x, tuple(range(2, x.ndim)), x_zero_point, keep=True)
    return dyadic.requantize_shift(signed_sum(sums, left, negative), shift, x_zero_point=0, **output)


def reduce_mean(
    x: NDArray[Any],
    multiplier: NDArray[Any],
    shift: NDArray[Any],
    *,
    axes: Sequence[int],
    keepdims: int,
    x_zero_point: int,
    **output: int,
) -> NDArray[Any]:
    """Sum over ``axes`` (at least one, not negative), rescaled; the factor may hold a division by the count."""
    sums = _sum(x, _axes(axes, x.ndim), x_zero_point, keep=bool(keepdims))
    return dyadic.requantize(sums, multiplier, shift, x_zero_point=0, **output)


def reduce_mean_shift(
    x: NDArray[Any],
    left: NDArray[Any],
    negative: NDArray[Any],
    shift: NDArray[Any],
    *,
    axes: Sequence[int],
    keepdims: int,
    x_zero_point: int,
    **output: int,
) -> NDArray[Any]:
    """:func:`reduce_mean` with a signed sum of shifts ``[D]`` instead of a multiplier."""
    sums = _sum(x, _axes(axes, x.ndim), x_zero_point, keep=bool(keepdims))
    return dyadic.requantize_shift(signed_sum(sums, left, negative), shift, x_zero_point=0, **output)


def max_pool(
    x: NDArray[Any], *, axis: int, kernel: int, stride: int, dilation: int, begin: int, end: int, to: int
) -> NDArray[Any]:
    """Greatest code of each window along one axis; padding holds the least code of the type and never wins.

    Args:
        x: int8 or int16 of any shape; ``to`` is its element type.
        axis: The axis, not negative.
        kernel: Size of the window.
        stride: Its step.
        dilation: Distance of its elements.
        begin: Padding before the first element.
        end: Padding behind the last.
        to: Element type of the result: that of ``x``.
    """
    if not 0 <= axis < x.ndim:
        raise ValueError(f"axis {axis} of a tensor of rank {x.ndim}")
    least = np.iinfo(x.dtype).min
    if dyadic.saturate(np.zeros((), np.int64), to=to, low=0, high=0).dtype != x.dtype:
        raise ValueError(f"codes stay {x.dtype}")
    return _windows(x, axis, (kernel, stride, dilation, begin, end), least, np.maximum)


def window_shape(
    sizes: Sequence[int],
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
) -> tuple[int, ...]:
    """Number of windows per spatial axis.

    Raises:
        ValueError: The lists have different lengths, a number is out of range, or a window exceeds the padded input.
    """
    rank = len(sizes)
    if not len(kernel_shape) == len(strides) == len(dilations) == rank or len(pads) != 2 * rank:
        raise ValueError(f"{rank} spatial axes need as many kernel sizes, strides and dilations, and twice the pads")
    if min((*kernel_shape, *strides, *dilations), default=1) < 1 or min(pads, default=0) < 0:
        raise ValueError("kernel sizes, strides and dilations start at 1, pads at 0")
    reach = [(kernel - 1) * dilation + 1 for kernel, dilation in zip(kernel_shape, dilations, strict=True)]
    rooms = [size + begin + end for size, begin, end in zip(sizes, pads[:rank], pads[rank:], strict=True)]
    if any(room < extent for room, extent in zip(rooms, reach, strict=True)):
        raise ValueError(f"a window over {reach} exceeds the padded input {rooms}")
    return tuple((room - extent) // step + 1 for room, extent, step in zip(rooms, reach, strides, strict=True))


def _window_sums(
    x: NDArray[Any],
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    zero: int,
) -> NDArray[np.int64]:
    rank = x.ndim - 2
    window_shape(x.shape[2:], kernel_shape, strides, dilations, pads)
    sums = x.astype(np.int64) - _checked_zero(x, zero)
    for index in range(rank):
        step = (kernel_shape[index], strides[index], dilations[index], pads[index], pads[rank + index])
        sums = _windows(sums, 2 + index, step, 0, np.add)
    return _checked(sums, x)


def _last_window_sums(
    x: NDArray[Any],
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    zero: int,
) -> NDArray[np.int64]:
    sums = _window_sums(np.moveaxis(x, -1, 1), kernel_shape, strides, dilations, pads, zero)
    return np.moveaxis(sums, 1, -1)


def _windows(
    x: NDArray[Any],
    axis: int,
    step: tuple[int, int, int, int, int],
    fill: int,
    combine: Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]],
) -> NDArray[Any]:
    """Windows along one axis, reduced by ``combine``; ``step``: kernel, stride, dilation, begin, end."""
    kernel, stride, dilation, begin, end = step
    (count,) = window_shape([x.shape[axis]], [kernel], [stride], [dilation], [begin, end])
    widths = [(begin, end) if index == axis else (0, 0) for index in range(x.ndim)]
    padded = np.moveaxis(np.pad(x, widths, constant_values=fill), axis, 0)
    rows = [
        padded[start : start + (count - 1) * stride + 1 : stride] for start in range(0, kernel * dilation, dilation)
    ]
    result = rows[0]
    for row in rows[1:]:
        result = combine(result, row)
    return np.moveaxis(result, 0, axis)


def _sum(x: NDArray[Any], axes: tuple[int, ...], zero: int, *, keep: bool) -> NDArray[np.int64]:
    centred = x.astype(np.int64) - _checked_zero(x, zero)
    return _checked(centred.sum(axis=axes, keepdims=keep), x)


def _axes(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    found = tuple(int(axis) for axis in axes)
    if not found or len(set(found)) != len(found) or not all(0 <= axis < rank for axis in found):
        raise ValueError(f"axes {list(axes)} of a tensor of rank {rank}")
    return found


def _checked_zero(x: NDArray[Any], zero: int) -> int:
    if x.dtype not in (np.int8, np.int16):
        raise ValueError(f"codes are int8 or int16, not {x.dtype}")
    limits = np.iinfo(x.dtype)
    if not limits.min <= zero <= limits.max:
        raise ValueError(f"zero point {zero} is no code of {x.dtype}")
    return int(zero)


def _checked(sums: NDArray[np.int64], x: NDArray[Any]) -> NDArray[np.int64]:
    bits = _WIDTHS[x.dtype.itemsize]
    if sums.size and not -(1 << (bits - 1)) <= int(sums.min()) <= int(sums.max()) < 1 << (bits - 1):
        raise dyadic.Overflow(f"a sum of codes leaves {bits} bits")
    return sums
