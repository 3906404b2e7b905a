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

from qcompiler.passes.calibrate.linear import Layer
from qcompiler.passes.calibrate.side_by_side import at_outputs
from qcompiler.pipeline.base import Context

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset

__all__ = ["mean_errors"]


def mean_errors(model: ir.Model, layers: list[Layer], dataset: Dataset, ctx: Context) -> list[NDArray[np.float64]]:
    """What each layer's bias lacks, shape ``(output channels,)`` per layer, in the order of ``layers``."""
    errors = []
    for stop in at_outputs(model, layers, dataset, ctx, "correct biases"):
        mean = _ChannelMean(stop.axis)
        for index, (wanted, found) in enumerate(zip(stop.wanted, stop.found, strict=True)):
            mean.add(wanted, found, stop.weights(index))
        errors.append(mean.value())
        stop.correct(1.0, errors[-1])
    return errors


class _ChannelMean:
    """Mean per channel of differences, over samples and positions; padding rows weigh nothing."""

    def __init__(self, axis: int) -> None:
        self._axis = axis
        self._total: NDArray[np.float64] | float = 0.0
        self._weight: NDArray[np.float64] | float = 0.0

    def add(self, wanted: NDArray[Any], found: NDArray[Any], counted: NDArray[Any] | None) -> None:
        """Count ``wanted - found`` of one sample, each row with its weight."""
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
