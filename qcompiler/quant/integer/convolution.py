"""Specification of the convolutions: QConv, QConvChannelsLast and QConvTranspose.

The arithmetic is that of :mod:`linear`. Padding is done with the code of zero, ``x_zero_point``, so that every output
sums over the whole kernel and the share of the zero point, ``-z_x sum q_w``, is the same constant everywhere: the
compiler folds it into the bias. ``acc = bias + conv(padded codes, weight codes)``; no zero point is subtracted.

A transposed convolution is the convolution of a stretched input: between neighbours along each axis lie
``stride - 1`` codes of zero, ``dilation * (kernel - 1) - pad`` more at both ends (negative: codes are cut away), and
the kernel is mirrored. So the zero point's share is the same constant again, borders included.

Channels-last is the same sum with other axes: ``[batch, spatial..., channels]`` in and out, weights as ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.quant.integer.linear import WIDE_DEPTH, checked_accumulator, checked_codes, exact_matmul

__all__ = [
    "conv_accumulator",
    "conv_channels_last_accumulator",
    "conv_size",
    "conv_transpose_accumulator",
    "conv_transpose_size",
]


def conv_size(size: int, kernel: int, stride: int, dilation: int, begin: int, end: int) -> int:
    """Length of a convolution's result along one axis."""
    return (size + begin + end - dilation * (kernel - 1) - 1) // stride + 1


def conv_transpose_size(size: int, kernel: int, stride: int, dilation: int, begin: int, end: int, more: int) -> int:
    """Length of a transposed convolution's result along one axis; ``more`` is its output padding."""
    return stride * (size - 1) + dilation * (kernel - 1) + 1 - begin - end + more


def conv_accumulator(
    x: NDArray[Any],
    w: NDArray[np.int8],
    bias: NDArray[Any],
    *,
    wide: bool,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    group: int,
    x_zero_point: int,
) -> NDArray[np.int64]:
    """``bias + conv(x padded with x_zero_point, w)``.

    Args:
        x: Codes ``[batch, channels, ...]``: int8, int16 where ``wide``.
        w: int8 ``[outputs, channels / group, kernel...]``.
        bias: int32, int64 where ``wide``; shape ``[outputs, 1, ...]``.
        wide: Whether activations have 16 bits.
        strides: Step per spatial axis.
        dilations: Distance of kernel elements per spatial axis.
        pads: Codes added at the begin of every spatial axis, then at the end of every one; not negative.
        group: Groups of channels.
        x_zero_point: Code of zero in ``x``.
    """
    products = _conv_products(x, w, wide, strides, dilations, pads, group, x_zero_point)
    return checked_accumulator(products, bias, wide=wide)


def conv_channels_last_accumulator(
    x: NDArray[Any],
    w: NDArray[np.int8],
    bias: NDArray[Any],
    *,
    wide: bool,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    group: int,
    x_zero_point: int,
) -> NDArray[np.int64]:
    """:func:`conv_accumulator` of codes whose channels lie last.

    Args:
        x: Codes ``[batch, spatial..., channels]``: int8, int16 where ``wide``.
        w: int8 ``[outputs, channels / group, kernel...]``, as for channels first.
        bias: int32, int64 where ``wide``; shape ``[outputs]``.
        wide: Whether activations have 16 bits.
        strides: Step per spatial axis.
        dilations: Distance of kernel elements per spatial axis.
        pads: Codes added at the begin of every spatial axis, then at the end of every one; not negative.
        group: Groups of channels.
        x_zero_point: Code of zero in ``x``.

    Returns:
        ``[batch, spatial..., outputs]``.
    """
    first = np.moveaxis(x, -1, 1) if x.ndim > 2 else x
    products = _conv_products(first, w, wide, strides, dilations, pads, group, x_zero_point)
    return checked_accumulator(np.moveaxis(products, 1, -1), bias, wide=wide)


def _conv_products(
    x: NDArray[Any],
    w: NDArray[np.int8],
    wide: bool,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    group: int,
    x_zero_point: int,
) -> NDArray[np.int64]:
    """The convolution before its bias, channels first."""
    _check(x, w, group, x.shape[1], wide=wide, x_zero_point=x_zero_point)
    rank = w.ndim - 2
    _check_lists(rank, strides, dilations, pads)
    if min(pads, default=0) < 0:
        raise ValueError(f"pads {list(pads)} are negative")
    return _convolve(_pad(x, pads[:rank], pads[rank:], x_zero_point), w, strides, dilations, group)


def conv_transpose_accumulator(
    x: NDArray[Any],
    w: NDArray[np.int8],
    bias: NDArray[Any],
    *,
    wide: bool,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    output_padding: Sequence[int],
    group: int,
    x_zero_point: int,
) -> NDArray[np.int64]:
    """``bias + transposed convolution``, as ONNX ConvTranspose on ``x - x_zero_point`` but for the constant share.

    Args:
        x: Codes ``[batch, channels, ...]``: int8, int16 where ``wide``.
        w: int8 ``[outputs, channels / group, kernel...]``: output channels first, kernel not mirrored.
        bias: int32, int64 where ``wide``; shape ``[outputs, 1, ...]``.
        wide: Whether activations have 16 bits.
        strides: Distance of inputs per spatial axis of the result.
        dilations: Distance of kernel elements per spatial axis.
        pads: Results cut away at the begin of every spatial axis, then at the end of every one; not negative.
        output_padding: Results added at the end of every spatial axis, fewer than the stride or the dilation.
        group: Groups of channels.
        x_zero_point: Code of zero in ``x``.
    """
    _check(x, w, group, x.shape[1], wide=wide, x_zero_point=x_zero_point)
    rank = w.ndim - 2
    _check_lists(rank, strides, dilations, pads)
    if len(output_padding) != rank or min(pads, default=0) < 0 or min(output_padding, default=0) < 0:
        raise ValueError(f"pads {list(pads)} and output padding {list(output_padding)} do not fit")
    reach = [dilation * (size - 1) for dilation, size in zip(dilations, w.shape[2:], strict=True)]
    begins = [item - pad for item, pad in zip(reach, pads[:rank], strict=True)]
    ends = [item - pad + more for item, pad, more in zip(reach, pads[rank:], output_padding, strict=True)]
    stretched = _pad(_stretch(x, strides, x_zero_point), begins, ends, x_zero_point)
    mirrored = np.flip(w, axis=tuple(range(2, w.ndim)))
    return checked_accumulator(_convolve(stretched, mirrored, [1] * rank, dilations, group), bias, wide=wide)


def _convolve(
    x: NDArray[Any], w: NDArray[np.int8], strides: Sequence[int], dilations: Sequence[int], group: int
) -> NDArray[np.int64]:
    """Exact convolution without padding: one matrix product per sample and group."""
    outputs, kernel = w.shape[0], w.shape[2:]
    spatial = [
        conv_size(size, length, stride, dilation, 0, 0)
        for size, length, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True)
    ]
    if min(spatial, default=1) < 1:
        raise ValueError(f"a kernel {kernel} does not fit into {x.shape[2:]}")
    weights = w.reshape(group, outputs // group, -1)
    result = np.empty((x.shape[0], group, outputs // group, int(np.prod(spatial))), np.int64)
    for index, sample in enumerate(x):
        columns = _windows(sample, kernel, spatial, strides, dilations)
        result[index] = exact_matmul(weights, columns.reshape(group, weights.shape[-1], -1))
    return result.reshape(x.shape[0], outputs, *spatial)


def _windows(
    sample: NDArray[Any],
    kernel: Sequence[int],
    spatial: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> NDArray[Any]:
    """Every input that every output sees: ``[channels, kernel..., spatial...]``, a view."""
    steps = sample.strides
    taps = [step * dilation for step, dilation in zip(steps[1:], dilations, strict=True)]
    moves = [step * stride for step, stride in zip(steps[1:], strides, strict=True)]
    return np.lib.stride_tricks.as_strided(
        sample, (sample.shape[0], *kernel, *spatial), (steps[0], *taps, *moves), writeable=False
    )


def _stretch(x: NDArray[Any], strides: Sequence[int], zero: int) -> NDArray[Any]:
    """Put ``stride - 1`` codes of zero between neighbours."""
    sizes = [stride * (size - 1) + 1 if size else 0 for size, stride in zip(x.shape[2:], strides, strict=True)]
    stretched = np.full((*x.shape[:2], *sizes), zero, x.dtype)
    stretched[(slice(None), slice(None), *(slice(None, None, stride) for stride in strides))] = x
    return stretched


def _pad(x: NDArray[Any], begins: Sequence[int], ends: Sequence[int], zero: int) -> NDArray[Any]:
    """Add (or, where negative, cut away) codes at the spatial borders."""
    sides = [(0, 0), (0, 0), *zip(begins, ends, strict=True)]
    padded = np.pad(x, [(max(begin, 0), max(end, 0)) for begin, end in sides], constant_values=zero)
    cut = [slice(max(-begin, 0), size - max(-end, 0)) for (begin, end), size in zip(sides, padded.shape, strict=True)]
    return padded[tuple(cut)]


def _check(x: NDArray[Any], w: NDArray[np.int8], group: int, channels: int, *, wide: bool, x_zero_point: int) -> None:
    checked_codes(x, wide=wide)
    if w.dtype != np.int8 or w.ndim != x.ndim or w.ndim < 3:
        raise ValueError(f"a weight of {w.dtype} {w.shape} for activations of shape {x.shape}")
    if group < 1 or w.shape[0] % group or w.shape[1] * group != channels:
        raise ValueError(f"{group} groups do not fit {channels} channels and a weight of shape {w.shape}")
    if not np.iinfo(x.dtype).min <= x_zero_point <= np.iinfo(x.dtype).max:
        raise ValueError(f"{x_zero_point} is no {x.dtype} zero point")
    depth = int(np.prod(w.shape[1:], dtype=np.int64))
    if wide and depth > WIDE_DEPTH:
        raise ValueError(f"a sum of {depth} products of 16-bit codes: at most {WIDE_DEPTH}")


def _check_lists(rank: int, strides: Sequence[int], dilations: Sequence[int], pads: Sequence[int]) -> None:
    if (len(strides), len(dilations), len(pads)) != (rank, rank, 2 * rank):
        raise ValueError(f"strides {strides}, dilations {dilations} and pads {pads} are not those of {rank} axes")
    if min([*strides, *dilations], default=1) < 1:
        raise ValueError(f"strides {strides} and dilations {dilations} are positive")
