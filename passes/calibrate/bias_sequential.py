"""The mean output error of each layer, measured with everything before it already corrected.

Layers are visited in graph order. At each one the quantized model's output, computed from quantized inputs and with
all earlier biases corrected, is compared with the float model's: their mean difference per channel is what the bias
lacks. This sees rounded weights, rounded activations and saturation alike. Both models run piece by piece
(``SegmentedRun``), so every node runs once per sample; a correction is added to the layer's output before the run
goes on. (Empirical bias correction: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", 2019, section 4.2.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir.parts import SegmentedRun
from qcompiler.passes.calibrate.linear import Layer
from qcompiler.passes.place.simulate import materialized
from qcompiler.pipeline.base import Context
from qcompiler.quant.operators import output_channel_axis

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset
    from qcompiler.calibration.row_weights import RowWeights

__all__ = ["mean_errors"]


def mean_errors(model: ir.Model, layers: list[Layer], dataset: Dataset, ctx: Context) -> list[NDArray[np.float64]]:
    """What each layer's bias lacks, shape ``(output channels,)`` per layer, in the order of ``layers``."""
    from qcompiler.calibration import row_weights

    rows = row_weights.find(dataset.inputs)
    samples = list(dataset)
    simulation = materialized(model)
    by_name = {node.name: node for node in simulation.graph}
    reference, candidate = SegmentedRun.of(model, samples), SegmentedRun.of(simulation, samples)
    real = [str(layer.bias_node.outputs[0].name) for layer in layers]
    quantized = [str(by_name[layer.bias_node.name].outputs[0].name) for layer in layers]
    errors = []
    steps = zip(layers, reference.advance(real), candidate.advance(quantized), strict=True)
    for number, (layer, expected, got) in enumerate(steps):
        ctx.progress("correct biases", number + 1, len(layers))
        axis = output_channel_axis(layer.node, candidate.samples[0][got].ndim)
        pairs = zip(samples, reference.samples, candidate.samples, strict=True)
        differences = [(feed, a[expected].astype(np.float64) - b[got]) for feed, a, b in pairs]
        error = _channel_means(differences, axis, rows)
        shape = [-1 if i == axis else 1 for i in range(differences[0][1].ndim)]
        for sample in candidate.samples:
            sample[got] = (sample[got] + error.reshape(shape)).astype(np.float32)
        errors.append(error)
    return errors


def _channel_means(
    tensors: list[tuple[dict[str, NDArray[Any]], NDArray[np.float64]]], axis: int, rows: RowWeights | None
) -> NDArray[np.float64]:
    """Mean per channel over samples and positions; padding rows weigh nothing."""
    total: NDArray[np.float64] | float = 0.0
    weight: NDArray[np.float64] | float = 0.0
    for feed, tensor in tensors:
        found = rows.of_feed(feed) if rows is not None else None
        counted = found.of("", tensor.shape) if found is not None else None
        others = tuple(i for i in range(tensor.ndim) if i != axis)
        weights = np.broadcast_to(1.0 if counted is None else counted, tensor.shape)
        total = total + (tensor * weights).sum(axis=others)
        weight = weight + weights.sum(axis=others, dtype=np.float64)
    return np.asarray(total / np.maximum(weight, 1e-12))
