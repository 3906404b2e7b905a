"""Visit layer after layer with the inputs that each will get: real ones, and those with earlier layers rounded.

The float model and its simulation run side by side, piece by piece (``SegmentedRun``), and stop at the input of each
layer. There its statistics are taken; when its codes are chosen, the simulation computes on with them. So every node
runs once per sample in each model, and memory holds the samples' live tensors, one layer's statistics and nothing else.

In the simulation activations are quantized as they will be; weights of the layers to be rounded are float initializers,
which take the rounded values when they are known. Biases stay float: their 32 bits lose nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir.originals import restored
from qcompiler.ir.parts import SegmentedRun, live_bytes
from qcompiler.passes.round._layers import RoundLayer
from qcompiler.passes.round._simulation import with_float_weights
from qcompiler.pipeline.base import Context
from qcompiler.quant import state

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset
    from qcompiler.calibration.row_weights import FeedWeights

__all__ = ["Visit", "Walk", "as_many_as_fit"]

_MEMORY: Final = 512 << 20
"""Bytes of live tensors that samples may hold: fewer samples where they are large."""


@dataclass(frozen=True, slots=True)
class Visit:
    """A stop: layers that read one tensor.

    Attributes:
        layers: The layers.
        samples: Per sample the tensor in the float model and in the simulation.
        padding: Per sample which rows are padding; ``None`` where none is.
    """

    layers: list[RoundLayer]
    samples: list[tuple[NDArray[Any], NDArray[Any]]]
    padding: list[FeedWeights | None]

    def weights_of(self, sample: int, layer: RoundLayer) -> NDArray[Any] | None:
        """A weight per row of a matrix product's input; ``None`` where no row is padding."""
        padding, shape = self.padding[sample], self.samples[sample][0].shape
        if padding is None or layer.node.op_type == "Conv":
            return None
        found = padding.of(str(layer.data.name), shape)
        return None if found is None else np.broadcast_to(found, (*shape[:-1], 1)).reshape(-1)


@dataclass(slots=True)
class Walk:
    """Runs both models from layer to layer.

    Args:
        model: The model with formats and scales; read while the walk goes on, so it must not be changed before its end.
        layers: Layers to stop at; each weight is read by its layer alone.
        dataset: The samples; all are held in memory.
        ctx: Threads.
        quantized: Whether inputs come from the simulation; else from the float model, which then runs alone.
    """

    model: ir.Model
    layers: Sequence[RoundLayer]
    dataset: Dataset
    ctx: Context
    quantized: bool = True
    _candidate: SegmentedRun | None = field(init=False, default=None)

    def __iter__(self) -> Iterator[Visit]:
        """Go through the model once; ``settle`` must be called for every layer of a visit before the next."""
        from qcompiler.calibration import row_weights

        rows = row_weights.find(self.dataset.inputs, self.model.graph)
        samples = list(self.dataset)
        padding = [rows.of_feed(sample) if rows is not None else None for sample in samples]
        stops = self._stops()
        names = [name for name, _, _ in stops]
        reference = SegmentedRun.of(restored(self.model), samples, threads=self.ctx.jobs)
        runs = [(reference, names)]
        if self.quantized:
            simulation = with_float_weights(self.model, self.layers)
            read = {node.name: value.name for node in simulation.graph if node.inputs and (value := node.inputs[0])}
            candidate = SegmentedRun.of(simulation, samples, threads=self.ctx.jobs)
            self._candidate = candidate
            runs.append((candidate, [str(read[group[0].node.name]) for _, _, group in stops]))
        for (_, _, group), *found in zip(stops, *(_advance(run, stop) for run, stop in runs), strict=True):
            yield Visit(group, list(zip(found[0], found[-1], strict=True)), padding)

    def settle(self, layer: RoundLayer, matrices: NDArray[Any]) -> None:
        """Let the simulation go on with these weights, ``(groups, rows, columns)``."""
        if self._candidate is not None:
            self._candidate.replace(str(layer.weight.name), layer.tensor(np.asarray(matrices, np.float32)))

    def _stops(self) -> list[tuple[str, Any, list[RoundLayer]]]:
        """Tensors to stop at in the order in which they are made, what format they have, and who reads them so."""
        made = {value.name: index for index, node in enumerate(self.model.graph) for value in node.outputs}
        keyed = [(made.get(layer.data.name, -1), layer) for layer in self.layers]
        keyed.sort(key=lambda item: item[0])
        stops: list[tuple[str, Any, list[RoundLayer]]] = []
        for _, together in groupby(keyed, key=lambda item: item[1].data.name):
            own: list[tuple[str, Any, list[RoundLayer]]] = []
            for _, layer in together:
                quant = state.edge_quant(layer.node, 0)
                same = next((group for _, other, group in own if other == quant), None)
                if same is not None:
                    same.append(layer)
                else:
                    own.append((str(layer.data.name), quant, [layer]))
            stops += own
        return stops


def as_many_as_fit(dataset: Dataset, layers: Sequence[RoundLayer], most: int) -> Dataset:
    """At most so many samples, fewer where their tensors are large, evenly taken."""
    values = (value for layer in layers for value in (layer.data, *layer.node.outputs))
    return dataset.evenly(min(most, _MEMORY // max(1, live_bytes(values))))


def _advance(run: SegmentedRun, names: Sequence[str]) -> Iterator[list[NDArray[Any]]]:
    """Every named tensor of every sample in turn; graph inputs come first."""
    fed = {value.name for value in run.runner.proto.graph.input}
    first = [name for name in names if name in fed]
    for name in first:
        yield [sample[name] for sample in run.samples]
    for name in run.advance(list(names[len(first) :])):
        yield [sample[name] for sample in run.samples]
