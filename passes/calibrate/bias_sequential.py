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

from qcompiler.ir.originals import restored
from qcompiler.ir.parts import SegmentedRun
from qcompiler.passes.calibrate.linear import Layer
from qcompiler.passes.place.simulate import materialized
from qcompiler.pipeline.base import Context
from qcompiler.quant.operators import output_channel_axis

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset
    from qcompiler.calibration.row_weights import FeedWeights

__all__ = ["mean_errors"]


def mean_errors(model: ir.Model, layers: list[Layer], dataset: Dataset, ctx: Context) -> list[NDArray[np.float64]]:
    """What each layer's bias lacks, shape ``(output channels,)`` per layer, in the order of ``layers``."""
    from qcompiler.calibration import row_weights

    rows = row_weights.find(dataset.inputs)
    samples = list(dataset)
    row_weights_of = [rows.of_feed(sample) if rows is not None else None for sample in samples]
    simulation = materialized(model)
    by_name = {node.name: node for node in simulation.graph}
    reference = SegmentedRun.of(restored(model), samples, threads=ctx.jobs)
    candidate = SegmentedRun.of(simulation, samples, threads=ctx.jobs)
    real = [str(layer.bias_node.outputs[0].name) for layer in layers]
    quantized = [str(by_name[layer.bias_node.name].outputs[0].name) for layer in layers]
    errors = []
    steps = zip(layers, reference.advance(real), candidate.advance(quantized), strict=True)
    for number, (layer, expected, got) in enumerate(steps):
        ctx.progress("correct biases", number + 1, len(layers))
        axis = output_channel_axis(layer.node, candidate.samples[0][got].ndim)
        mean = _ChannelMean(axis)
        for weights, wanted, found in zip(row_weights_of, reference.samples, candidate.samples, strict=True):
            mean.add(wanted[expected], found[got], weights)
        error = mean.value()
        for sample in candidate.samples:
            shape = [-1 if i == axis else 1 for i in range(sample[got].ndim)]
            sample[got] = (sample[got] + error.reshape(shape)).astype(np.float32)
        errors.append(error)
    return errors


class _ChannelMean:
    """Mean per channel of differences, over samples and positions; padding rows weigh nothing."""

    def __init__(self, axis: int) -> None:
        self._axis = axis
        self._total: NDArray[np.float64] | float = 0.0
        self._weight: NDArray[np.float64] | float = 0.0

    def add(self, wanted: NDArray[Any], found: NDArray[Any], rows: FeedWeights | None) -> None:
        """Count ``wanted - found`` of one sample."""
        counted = rows.of("", wanted.shape) if rows is not None else None
        others = tuple(i for i in range(wanted.ndim) if i != self._axis)
        difference = np.subtract(wanted, found, dtype=np.float32)
        if counted is None:
            self._total = self._total + difference.sum(axis=others, dtype=np.float64)
            self._weight = self._weight + difference.size / difference.shape[self._axis]
            return
        weights = np.broadcast_to(counted, difference.shape)
        self._total = self._total + (difference * weights).sum(axis=others, dtype=np.float64)
        self._weight = self._weight + weights.sum(axis=others, dtype=np.float64)

    def value(self) -> NDArray[np.float64]:
        """The mean; 0 where nothing was counted."""
        return np.asarray(self._total / np.maximum(self._weight, 1e-12))
