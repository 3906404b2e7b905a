"""The mean output error of rounded weights, from mean inputs.

A linear layer computes ``y = W x + b``; with rounded weights ``Ŵ`` the output is off by ``(W - Ŵ) x``, whose mean over
the calibration samples is ``(W - Ŵ) E[x]`` because the layer is linear: the layer applied to the *mean input map* with
the weight error as its weight. For a convolution the map keeps its spatial extent, so that zero padding at the border
counts as it does at run time. One float run per sample serves all layers; the error of activations is not seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.errors import PassError
from qcompiler.ir.originals import restored
from qcompiler.passes.calibrate.linear import Layer, response, weight_error
from qcompiler.pipeline.base import Context
from qcompiler.quant.operators import WEIGHT_INPUT, output_channel_axis

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset

__all__ = ["error_of", "mean_errors"]


def mean_errors(model: ir.Model, layers: list[Layer], dataset: Dataset, ctx: Context) -> list[NDArray[np.float64]]:
    """What each layer's bias lacks, shape ``(output channels,)`` per layer, in the order of ``layers``."""
    from qcompiler.calibration import row_weights
    from qcompiler.calibration.engine import collect
    from qcompiler.calibration.observers import MeanObserver

    observers = {str(_data(layer).name): MeanObserver(_mean_axis(layer)) for layer in layers}
    collect(restored(model), dataset, observers, ctx=ctx, row_weights=row_weights.of(dataset))
    return [error_of(layer, observers[str(_data(layer).name)].mean()) for layer in layers]


def error_of(layer: Layer, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a layer's bias lacks, shape ``(output channels,)``, from its mean input: a map, or one per channel."""
    error = response(layer.node, _as_map(layer, mean), weight_error(layer))
    axis = output_channel_axis(layer.node, error.ndim)
    shift: NDArray[np.float64] = error.mean(axis=tuple(i for i in range(error.ndim) if i != axis), dtype=np.float64)
    return shift


def _data(layer: Layer) -> ir.Value:
    value = layer.node.inputs[0]
    if value is None:
        raise PassError("the node has no data input", where=layer.node.name)
    return value


def _mean_axis(layer: Layer) -> int | None:
    """The axis whose means suffice: channels, except where a convolution's border sees padding.

    A convolution over maps of changing size has no mean map; its border then counts like its interior.
    """
    if layer.node.op_type in ("MatMul", "Gemm"):
        return -1
    shape = _data(layer).shape
    return None if shape is not None and all(isinstance(size, int) for size in shape[1:]) else 1


def _as_map(layer: Layer, mean: NDArray[np.float64]) -> NDArray[np.float32]:
    """Means as the data operand of the layer; per-channel means of a convolution fill a few kernel windows."""
    data = mean.astype(np.float32)
    if layer.node.op_type in ("MatMul", "Gemm"):
        return data.reshape(1, -1)
    if data.ndim > 1:
        return data
    weight = layer.node.inputs[WEIGHT_INPUT]
    shape = () if weight is None or weight.shape is None else weight.shape
    window = tuple(3 * size for size in shape[2:] if isinstance(size, int))
    return np.broadcast_to(data.reshape(1, -1, *[1] * len(window)), (1, data.size, *window)).copy()
