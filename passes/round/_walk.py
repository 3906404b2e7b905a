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
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir.originals import restored
from qcompiler.ir.parts import SegmentedRun, live_bytes
from qcompiler.ir.patterns import integer
from qcompiler.passes.round._layers import RoundLayer
from qcompiler.passes.round._patches import row_count
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
    """Layers that read one tensor in one format.

    Attributes:
        layers: The layers.
        samples: Per sample the tensor in the float model and in the simulation.
        rows: Per sample how much its rows count; ``None`` where all count alike.
    """

    layers: list[RoundLayer]
    samples: list[tuple[NDArray[Any], NDArray[Any]]]
    rows: list[FeedWeights | None]

    def weights_of(self, sample: int, layer: RoundLayer) -> NDArray[Any] | None:
        """A weight per row of the layer's input (``_patches``); ``None`` where all count alike.

        A row of a Conv holds several positions: weights of these do not reach it, and ``Walk`` says so.
        """
        rows, shape = self.rows[sample], self.samples[sample][0].shape
        if rows is None:
            return None
        if layer.node.op_type == "Conv":
            found = rows.of_samples(shape)
            each = row_count(layer, shape) // shape[0]
            return None if found is None else np.repeat(np.broadcast_to(found.reshape(-1), shape[:1]), each)
        if layer.node.op_type == "Gemm" and integer(layer.node, "transA", 0):
            shape = shape[::-1]
        found = rows.of(str(layer.data.name), shape)
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

        convolutions = sum(layer.node.op_type == "Conv" for layer in self.layers)
        if convolutions and (text := row_weights.unheard(self.dataset, f"{convolutions} Conv layers")) is not None:
            self.ctx.note(text)
        rows = row_weights.of(self.dataset, self.model.graph)
        samples = list(self.dataset)
        weights = [None if rows is None else rows.of_feed(sample, number) for number, sample in enumerate(samples)]
        places = self._places()
        reference = SegmentedRun.of(restored(self.model), samples, threads=self.ctx.jobs)
        real = [[str(group[0].data.name) for group in place] for place in places]
        read, runs = real, [_advance(reference, real)]
        if self.quantized:
            simulation = with_float_weights(self.model, self.layers)
            own = {node.name: str(value.name) for node in simulation.graph if node.inputs and (value := node.inputs[0])}
            read = [[own[group[0].node.name] for group in place] for place in places]
            self._candidate = SegmentedRun.of(simulation, samples, threads=self.ctx.jobs)
            runs.append(_advance(self._candidate, read))
        for place, reals, reads, *found in zip(places, real, read, *runs, strict=True):
            for group, exact, simulated in zip(place, reals, reads, strict=True):
                pairs = zip(found[0], found[-1], strict=True)
                yield Visit(group, [(a[exact], b[simulated]) for a, b in pairs], weights)
        row_weights.tell(rows, self.ctx)

    def settle(self, layer: RoundLayer, matrices: NDArray[Any]) -> None:
        """Let the simulation go on with these weights, ``(groups, rows, columns)``."""
        if self._candidate is not None:
            self._candidate.replace(str(layer.weight.name), layer.tensor(np.asarray(matrices, np.float32)))

    def _places(self) -> list[list[list[RoundLayer]]]:
        """Where to stop, in graph order, and for each tensor and format there the layers that read it.

        All that one node makes is one place, and so are the graph's inputs: a tensor that is read in several formats
        has its Q/DQ pairs side by side behind its producer, in an order of their own.
        """
        made = {value: index for index, node in enumerate(self.model.graph) for value in node.outputs}
        places: dict[int, list[list[RoundLayer]]] = {}
        for layer in sorted(self.layers, key=lambda layer: made.get(layer.data, -1)):
            groups = places.setdefault(made.get(layer.data, -1), [])
            same = next((group for group in groups if _reads_alike(group[0], layer)), None)
            if same is None:
                groups.append([layer])
            else:
                same.append(layer)
        return list(places.values())


def _reads_alike(one: RoundLayer, other: RoundLayer) -> bool:
    return one.data is other.data and state.edge_quant(one.node, 0) == state.edge_quant(other.node, 0)


def as_many_as_fit(dataset: Dataset, layers: Sequence[RoundLayer], most: int) -> Dataset:
    """At most so many samples, fewer where their tensors are large, evenly taken."""
    values = (value for layer in layers for value in (layer.data, *layer.node.outputs))
    return dataset.evenly(min(most, _MEMORY // max(1, live_bytes(values))))


def _advance(run: SegmentedRun, places: Sequence[Sequence[str]]) -> Iterator[list[dict[str, NDArray[Any]]]]:
    """Run on until all tensors of a place exist, place after place: the samples.

    What was made before the last of them is still there, because the layer that reads it comes later.
    """
    position = {name: index for index, node in enumerate(run.runner.proto.graph.node) for name in node.output}
    ends = [max(names, key=lambda name: position.get(name, -1)) for names in places]
    steps = run.advance([end for end in ends if end in position])  # the others are inputs of the graph
    for end in ends:
        if end in position:
            next(steps)
        yield run.samples
