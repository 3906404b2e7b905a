"""The float model and its quantized simulation, run side by side from layer to layer.

At every layer's output (its bias included) both stop. What is found there is written into the simulation's tensors, so
that it goes on with the layer corrected; every node runs once per sample in each model (``SegmentedRun``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir.originals import restored
from qcompiler.ir.parts import SegmentedRun, live_bytes
from qcompiler.passes.calibrate.linear import Layer
from qcompiler.passes.place.simulate import materialized
from qcompiler.pipeline.base import Context
from qcompiler.quant.operators import output_channel_axis

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset
    from qcompiler.calibration.row_weights import FeedWeights

__all__ = ["Stop", "as_many_as_fit", "at_outputs"]

_MEMORY: Final = 192 << 20
"""Bytes of live tensors that samples may hold: fewer samples where they are large."""


@dataclass(frozen=True, slots=True, eq=False)
class Stop:
    """The output of one layer, for all samples.

    Attributes:
        layer: The layer.
        axis: The axis of its output channels.
        wanted: Outputs of the float model.
        found: Those of the simulation, everything before already corrected.
        rows: Weights of rows, ``None`` where all count alike.
    """

    layer: Layer
    axis: int
    wanted: list[NDArray[Any]]
    found: list[NDArray[Any]]
    rows: list[FeedWeights | None]
    _name: str
    _samples: list[dict[str, NDArray[Any]]]

    def weights(self, sample: int) -> NDArray[Any] | None:
        """The weight of each row of one sample's output; ``None`` where all count alike."""
        rows = self.rows[sample]
        name = str(self.layer.bias_node.outputs[0].name)
        return None if rows is None else rows.of(name, self.wanted[sample].shape)

    def correct(self, scale: NDArray[np.float64] | float, shift: NDArray[np.float64]) -> None:
        """Let the simulation go on with ``output · scale + shift``, both per channel."""
        for sample, output in zip(self._samples, self.found, strict=True):
            shape = [-1 if index == self.axis else 1 for index in range(output.ndim)]
            factor = scale if isinstance(scale, float) else scale.reshape(shape)
            sample[self._name] = (output * factor + shift.reshape(shape)).astype(np.float32)


def at_outputs(model: ir.Model, layers: Sequence[Layer], dataset: Dataset, ctx: Context, stage: str) -> Iterator[Stop]:
    """Stop at every layer in graph order; ``correct`` may be called before the next."""
    from qcompiler.calibration import row_weights

    found = row_weights.of(dataset)
    samples = list(dataset)
    rows = [None if found is None else found.of_feed(sample, number) for number, sample in enumerate(samples)]
    simulation = materialized(model)
    by_name = {node.name: node for node in simulation.graph}
    reference = SegmentedRun.of(restored(model), samples, threads=ctx.jobs)
    candidate = SegmentedRun.of(simulation, samples, threads=ctx.jobs)
    real = [str(layer.bias_node.outputs[0].name) for layer in layers]
    quantized = [str(by_name[layer.bias_node.name].outputs[0].name) for layer in layers]
    steps = zip(layers, reference.advance(real), candidate.advance(quantized), strict=True)
    for number, (layer, expected, got) in enumerate(steps):
        ctx.progress(stage, number + 1, len(layers))
        wanted = [sample[expected] for sample in reference.samples]
        have = [sample[got] for sample in candidate.samples]
        axis = output_channel_axis(layer.node, have[0].ndim)
        yield Stop(layer, axis, wanted, have, rows, got, candidate.samples)
    row_weights.tell(found, ctx)


def as_many_as_fit(dataset: Dataset, layers: Sequence[Layer], most: int) -> Dataset:
    """At most so many samples, fewer where their tensors are large, evenly taken."""
    values = (value for layer in layers for value in (*layer.node.inputs[:1], *layer.bias_node.outputs))
    return dataset.evenly(min(most, _MEMORY // max(1, live_bytes(values))))
