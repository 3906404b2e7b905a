"""Intervals through weighted sums: Conv, ConvTranspose, Gemm, MatMul, BatchNormalization.

For one output channel with weights ``w`` and inputs ``x[c] in [l[c], h[c]]`` the sum of ``w x`` lies in
``[sum(w⁺ l + w⁻ h), sum(w⁺ h + w⁻ l)]`` with ``w⁺ = max(w, 0)``, ``w⁻ = min(w, 0)``, and both ends are attained:
nothing is lost by treating channels apart. Padding is not treated as "each tap may be zero" but by windows: near a
border whole rows or columns of taps read zero together, and the bound is the worst over those windows.

Rounding: a sum of ``n`` terms in any order, with or without fused multiply-add, equals ``sum(t (1 + d))`` with
``|d| <= n u`` to first order, so the upper end of each term grows by ``n u |end|`` and the lower end falls likewise.
A sum whose terms are all zero is exact, a sum of terms that are never positive is never above its bias.

Weights are read in blocks, so memory stays small whatever their size.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.analysis.interval import Bounds, Float64, Interval, epsilon, unbounded, underflow
from qcompiler.ir import constants, patterns

__all__ = ["batch_normalization", "conv", "conv_transpose", "linear_bounds", "matmul_constant", "tap_bounds"]

_BLOCK = 1 << 15
"""Weights handled at a time: they fit a cache, and BLAS does not start threads for so few (ten times slower here)."""

Taps = tuple[Float64, Float64, Float64, Float64]
"""What each tap contributes to each output channel: lower and upper bounds, and the sums of the absolute values of
the terms of those two bounds; ``[M, taps]`` each."""


def tap_bounds(weight: NDArray[Any], low: Float64, high: Float64, groups: int = 1) -> Taps:
    """Bounds of the contribution of each kernel position, summed over the input channels.

    Args:
        weight: ``[M, C / groups, taps]``.
        low: Lower bounds of the input, ``[C]``.
        high: Upper bounds of the input, ``[C]``.
        groups: Groups of the convolution; output channels are ordered by group.
    """
    outputs, depth, taps = weight.shape
    columns = _columns(low, high).reshape(6, groups, depth)
    crossed = columns[[1, 0, 3, 2, 5, 4]]  # a negative weight swaps the roles of the two ends
    sums = np.empty((6, outputs, taps))
    step = max(1, _BLOCK // max(1, depth * taps))
    for start in range(0, outputs, step):
        block = np.asarray(weight[start : start + step], np.float64)
        positive, negative = np.maximum(block, 0.0), np.minimum(block, 0.0)
        if groups == 1:
            part = np.tensordot(columns[:, 0], positive, (1, 1))
            part += _signed(np.tensordot(crossed[:, 0], negative, (1, 1)))
        else:
            group = np.arange(start, start + len(block)) // (outputs // groups)
            part = np.einsum("kmc,mct->kmt", columns[:, group], positive)
            part += _signed(np.einsum("kmc,mct->kmt", crossed[:, group], negative))
        sums[:, start : start + step] = part
    return np.where(sums[2] > 0, -np.inf, sums[0]), np.where(sums[3] > 0, np.inf, sums[1]), sums[4], sums[5]


def _columns(low: Float64, high: Float64) -> Float64:
    """Finite low, finite high, "low is -inf", "high is inf", |low|, |high|: one row each, ``[6, C]``."""
    endless_low, endless_high = np.isinf(low), np.isinf(high)
    finite_low, finite_high = np.where(endless_low, 0.0, low), np.where(endless_high, 0.0, high)
    flags = (endless_low * 1.0, endless_high * 1.0)
    return np.stack([finite_low, finite_high, *flags, np.abs(finite_low), np.abs(finite_high)])


def _signed(part: Float64) -> Float64:
    """What negative weights gave: bounds keep their sign, flags and magnitudes count positively."""
    part[2:] *= -1.0
    return part


def linear_bounds(taps: Taps, windows: Float64, bias: Bounds, roundings: int, value: ir.Value) -> Bounds:
    """Bounds of the sums over windows of taps plus a bias.

    Args:
        taps: From ``tap_bounds``.
        windows: ``[taps, W]`` of zeros and ones: which taps read data together.
        bias: Bounds of the bias, ``[M]`` each.
        roundings: Products in one sum.
        value: The result, for its element type.
    """
    low, high, low_terms, high_terms = (_times(part, windows) for part in taps)
    unit, least = epsilon(value) * (roundings + 2), underflow(value) * (roundings + 2)
    slack_low = np.where(low_terms > 0, unit * (low_terms + np.abs(bias[0])[:, None]) + least, 0.0)
    slack_high = np.where(high_terms > 0, unit * (high_terms + np.abs(bias[1])[:, None]) + least, 0.0)
    with np.errstate(invalid="ignore"):
        low, high = (low - slack_low).min(1) + bias[0], (high + slack_high).max(1) + bias[1]
    return np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)


def _times(part: Float64, windows: Float64) -> Float64:
    """``part @ windows`` where infinite entries count only in windows that hold them."""
    if windows.shape == (1, 1):
        return part
    endless = np.isinf(part)
    if not endless.any():
        return part @ windows
    sign = np.where(part > 0, 1.0, -1.0) * endless
    finite = np.where(endless, 0.0, part) @ windows
    reach = sign @ windows
    return np.where(reach == 0, finite, np.copysign(np.inf, reach))


# -- operators --------------------------------------------------------------------------------------------------


def conv(node: ir.Node, data: Interval, bias: Interval | None) -> Interval:
    """Conv with a constant weight ``[M, C / g, *kernel]``; grouped, depthwise, padded, dilated."""
    weight = constants.array(node.inputs[1])
    if weight is None or weight.ndim < 3:
        return unbounded()
    outputs, kernel = weight.shape[0], weight.shape[2:]
    groups = patterns.integer(node, "group", 1)
    low, high = data.along(1, weight.shape[1] * groups)
    taps = tap_bounds(weight.reshape(outputs, weight.shape[1], -1), low, high, groups)
    windows = _windows(node, kernel)
    products = int(np.prod(weight.shape[1:]))
    bounds = linear_bounds(taps, windows, _bias(bias, outputs), products, node.outputs[0])
    return Interval(*bounds, axis=1)


def conv_transpose(node: ir.Node, data: Interval, bias: Interval | None) -> Interval:
    """ConvTranspose with a constant weight ``[C, M / g, *kernel]``.

    An output element receives only taps of one residue of ``position * dilation`` modulo the stride, and near a
    border any part of them.
    """
    weight = constants.array(node.inputs[1])
    if weight is None or weight.ndim < 3:
        return unbounded()
    groups = patterns.integer(node, "group", 1)
    depth, per_group, kernel = weight.shape[0] // groups, weight.shape[1], weight.shape[2:]
    rows = weight.reshape(groups, depth, per_group, -1).transpose(0, 2, 1, 3).reshape(groups * per_group, depth, -1)
    low, high, *terms = tap_bounds(rows, *data.along(1, weight.shape[0]), groups)
    taps = (np.minimum(low, 0.0), np.maximum(high, 0.0), terms[0], terms[1])
    strides = patterns.integers(node, "strides") or (1,) * len(kernel)
    dilations = patterns.integers(node, "dilations") or (1,) * len(kernel)
    residues = [
        [[float(tap * dilation % stride == residue) for tap in range(size)] for residue in range(stride)]
        for size, stride, dilation in zip(kernel, strides, dilations, strict=True)
    ]
    products = depth * int(np.prod(kernel))
    bounds = linear_bounds(taps, _outer(residues), _bias(bias, len(rows)), products, node.outputs[0])
    return Interval(*bounds, axis=1)


def matmul_constant(
    weight: NDArray[Any], data: Interval, axis: int, bias: Interval | None, value: ir.Value, alpha: float = 1.0
) -> Interval:
    """``data @ weight + bias`` with a constant ``weight [K, N]``; channels of both sides lie along the last axis.

    Args:
        weight: ``[K, N]``.
        data: Interval of the left operand.
        axis: The last axis of the left operand and of the result.
        bias: Interval of what is added, along ``axis`` or per tensor.
        value: The result, for its element type.
        alpha: Factor of the product.
    """
    depth, outputs = weight.shape
    low, high = data.along(axis, depth)
    taps = tap_bounds(weight.T[:, :, None], low, high)
    if alpha != 1.0:
        ends = [part * abs(alpha) for part in taps] if alpha > 0 else [taps[i] * alpha for i in (1, 0, 3, 2)]
        taps = (ends[0], ends[1], np.abs(ends[2]), np.abs(ends[3]))
    bounds = linear_bounds(taps, np.ones((1, 1)), _bias(bias, outputs, axis), depth + 1, value)
    return Interval(*bounds, axis=axis)


def batch_normalization(node: ir.Node, data: Interval) -> Interval:
    """``(x - mean) / sqrt(variance + epsilon) * scale + shift`` per channel, statistics constant."""
    parts = [constants.array(value) for value in node.inputs[1:5]]
    if len(parts) != 4 or patterns.integer(node, "training_mode", 0):
        return unbounded()
    if any(part is None for part in parts):
        return unbounded()
    scale, shift, mean, variance = (np.asarray(part, np.float64) for part in parts)
    factor = scale / np.sqrt(variance + patterns.number(node, "epsilon", 1e-5))
    low, high = data.along(1, len(factor))
    ends = np.where(factor == 0, 0.0, np.stack([low * factor, high * factor]))
    ends.sort(axis=0)
    offset = shift - mean * factor
    slack = 6 * epsilon(node.outputs[0]) * (np.abs(ends) + np.abs(shift) + np.abs(mean * factor))
    slack = np.where(factor == 0, 0.0, slack)
    return Interval(ends[0] + offset - slack[0], ends[1] + offset + slack[1], axis=1)


# -- helpers ----------------------------------------------------------------------------------------------------


def _bias(bias: Interval | None, count: int, axis: int | None = 0) -> Bounds:
    if bias is None:
        return np.zeros(count), np.zeros(count)
    return bias.along(axis, count)


def _windows(node: ir.Node, kernel: Sequence[int]) -> Float64:
    """Which taps read data together: ``[taps, W]``, one column per way a border can cut the kernel."""
    rank = len(kernel)
    pads = patterns.integers(node, "pads") or (0,) * (2 * rank)
    dilations = patterns.integers(node, "dilations") or (1,) * rank
    automatic = node.attributes.get("auto_pad")
    if automatic is not None and automatic.as_string() in ("SAME_UPPER", "SAME_LOWER"):
        pads = tuple((size - 1) * dilation for size, dilation in zip(kernel, dilations, strict=True)) * 2
    if not any(pads):
        return np.ones((math.prod(kernel), 1))
    sizes = patterns.static_shape(node.inputs[0])
    axes = []
    for axis, (size, dilation) in enumerate(zip(kernel, dilations, strict=True)):
        before, after = (min(size, -(-pad // dilation)) for pad in (pads[axis], pads[axis + rank]))
        length = sizes[axis + 2] if sizes is not None and len(sizes) == rank + 2 else None
        both = length is None or length < (size - 1) * dilation + 1
        axes.append(
            [
                [float(cut <= tap < size - tail) for tap in range(size)]
                for cut in range(before + 1)
                for tail in range(after + 1)
                if both or not (cut and tail)
            ]
        )
    return _outer(axes)


def _outer(axes: Sequence[Sequence[Sequence[float]]]) -> Float64:
    """Combine masks per axis into masks of the whole kernel, flattened row by row: ``[taps, W]``."""
    columns = []
    for choice in itertools.product(*axes):
        mask = np.ones(1)
        for part in choice:
            mask = np.outer(mask, part).ravel()
        columns.append(mask)
    return np.stack(columns, 1)
