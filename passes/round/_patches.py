"""Inputs of a layer as rows of a matrix: what one output is the sum of, times the weights.

``Y_g[p] = X_g[p] W_g^T`` holds for every output position ``p``: of a matrix product all leading axes of its data, of a
convolution every place of its window in every image (im2col, zeros where the window hangs over the border).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from qcompiler.ir.patterns import integer
from qcompiler.passes.round._layers import RoundLayer

__all__ = ["chosen_rows", "input_rows", "row_count"]


def row_count(layer: RoundLayer, shape: tuple[int, ...]) -> int:
    """Output positions of the layer for data of that shape."""
    if layer.node.op_type == "Conv":
        return shape[0] * math.prod(_extent(layer, shape))
    if layer.node.op_type == "Gemm":
        return shape[1] if integer(layer.node, "transA", 0) else shape[0]
    return math.prod(shape[:-1])


def chosen_rows(count: int, limit: int, seed: int, weights: NDArray[Any] | None = None) -> NDArray[np.int64]:
    """Positions to look at: at most ``limit``, drawn evenly among those that do not weigh 0, ascending.

    Args:
        count: Positions there are.
        limit: Most positions wanted; 0 means all.
        seed: Which draw.
        weights: A weight per position; ``None`` where all count alike.
    """
    positions = np.arange(count) if weights is None else np.flatnonzero(weights)
    if limit and positions.size > limit:
        positions = np.sort(np.random.default_rng(seed).choice(positions, limit, replace=False))
    return positions


def input_rows(layer: RoundLayer, data: NDArray[Any], positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """The inputs of the sums at some positions, ``(groups, positions, columns)`` in float32."""
    data = np.asarray(data, np.float32)
    if layer.node.op_type == "Conv":
        return _patches(layer, data, positions)
    if layer.node.op_type == "Gemm" and integer(layer.node, "transA", 0):
        data = data.T
    return data.reshape(-1, data.shape[-1])[positions][None]


def _patches(layer: RoundLayer, data: NDArray[np.float32], positions: NDArray[np.int64]) -> NDArray[np.float32]:
    kernel, strides, dilations, pads = _geometry(layer)
    rank = len(kernel)
    axes = tuple(range(2, 2 + rank))
    padded = np.pad(data, [(0, 0), (0, 0), *pads]) if any(map(any, pads)) else data
    spread = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    windows = sliding_window_view(padded, spread, axis=axes)
    steps = [slice(None, None, step) for step in strides]
    taps = [slice(None, None, step) for step in dilations]
    windows = windows[(slice(None), slice(None), *steps, *taps)]
    image, *place = np.unravel_index(positions, (data.shape[0], *windows.shape[2 : 2 + rank]))
    picked = np.moveaxis(windows, 1, 1 + rank)[(image, *place)]  # (positions, channels, taps…)
    split = picked.reshape(positions.size, layer.groups, layer.columns)
    return np.ascontiguousarray(split.transpose(1, 0, 2))


def _extent(layer: RoundLayer, shape: tuple[int, ...]) -> list[int]:
    """Spatial size of the output of a convolution."""
    kernel, strides, dilations, pads = _geometry(layer)
    return [
        (size + sum(pad) - (width - 1) * dilation - 1) // stride + 1
        for size, width, stride, dilation, pad in zip(shape[2:], kernel, strides, dilations, pads, strict=True)
    ]


def _geometry(layer: RoundLayer) -> tuple[list[int], list[int], list[int], list[tuple[int, int]]]:
    """Kernel, strides, dilations and pads (before, after) of a convolution."""
    kernel = list(layer.shape[2:])
    rank = len(kernel)
    strides, dilations = _integers(layer.node, "strides", rank), _integers(layer.node, "dilations", rank)
    flat = [int(item) for item in layer.node.attributes.get_ints("pads", [0] * 2 * rank)]
    return kernel, strides, dilations, list(zip(flat[:rank], flat[rank:], strict=True))


def _integers(node: ir.Node, name: str, rank: int) -> list[int]:
    return [int(item) for item in node.attributes.get_ints(name, [1] * rank)]
