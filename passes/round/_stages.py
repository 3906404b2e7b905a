"""Both models, side by side, from unit to unit: what a unit gets, quantized as it will be, and what it should give.

The float model runs ahead to the unit's output, its simulation waits where the unit starts. When the unit's weights are
found, the simulation goes on with them, so every unit sees the errors that earlier ones really make.

In the simulation activations are quantized, while weights and biases of the layers are float constants of their own:
values that can be supplied and replaced.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir import constants, originals
from qcompiler.ir.edit import Edit
from qcompiler.ir.execute import session_options
from qcompiler.ir.parts import SegmentedRun
from qcompiler.passes.round._layers import RoundLayer
from qcompiler.passes.round._simulation import with_float_weights
from qcompiler.passes.round._units import Unit
from qcompiler.pipeline.base import Context
from qcompiler.quant.operators import WEIGHT_INPUT

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset

__all__ = ["Bias", "Stage", "Stages"]


@dataclass(frozen=True, slots=True, eq=False)
class Bias:
    """Where a layer's bias is.

    Attributes:
        node: The layer itself, or the Add behind a matrix product.
        index: Which of its inputs.
    """

    node: ir.Node
    index: int


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """A unit, ready to be fitted.

    Attributes:
        unit: The unit, in the model.
        output: Its output in the simulation.
        activation: An activation behind it that the simulation leaves to the saturation of codes; ``None`` without.
        free: Values of the simulation that exist before the unit.
        samples: Per sample what exists before the unit, by name.
        targets: Per sample the float output.
    """

    unit: Unit
    output: ir.Value
    activation: ir.Node | None
    free: list[ir.Value]
    samples: list[dict[str, NDArray[Any]]]
    targets: list[NDArray[Any]]


@dataclass(slots=True)
class Stages:
    """Goes from unit to unit.

    Args:
        model: The model with formats and scales; it must not change before the end.
        units: Its units.
        biases: Biases that are to be values of their own.
        dataset: The samples; all are held in memory.
        ctx: Threads.
    """

    model: ir.Model
    units: Sequence[Unit]
    biases: Sequence[Bias]
    dataset: Dataset
    ctx: Context
    simulation: ir.Model = field(init=False)
    _nodes: dict[str, ir.Node] = field(init=False)
    _candidate: SegmentedRun = field(init=False)

    def __post_init__(self) -> None:
        layers = [layer for unit in self.units for layer in unit.layers]
        self.simulation = _simulation(self.model, layers, self.biases)
        self._nodes = {str(node.name): node for node in self.simulation.graph}
        self._candidate = SegmentedRun.of(self.simulation, list(self.dataset), threads=self.ctx.jobs)
        # ONNX Runtime moves quantization across a Reshape at the border of a piece and then refuses the types.
        self._candidate.runner.options = functools.partial(session_options, threads=self.ctx.jobs, optimize=False)

    def weight(self, layer: RoundLayer) -> ir.Value:
        """The layer's weight in the simulation: a constant of float numbers."""
        return _given(self._nodes[str(layer.node.name)], WEIGHT_INPUT)

    def bias(self, bias: Bias) -> ir.Value:
        """A bias in the simulation: a constant of float numbers."""
        return _given(self._nodes[str(bias.node.name)], bias.index)

    def scale(self, node: ir.Node) -> ir.Value:
        """The scale of the codes that a node reads at its first input, a constant of the simulation.

        Raises:
            ValueError: It reads no codes there.
        """
        source = _given(self._nodes[str(node.name)], 0).producer()
        if source is None or source.op_type != "DequantizeLinear":
            raise ValueError(f"{node.name} reads no codes")
        return _given(source, 1)

    def settle(self, value: ir.Value, array: NDArray[Any]) -> None:
        """Let the simulation go on with another constant."""
        self._candidate.replace(str(value.name), np.asarray(array, np.float32))

    def __iter__(self) -> Iterator[Stage]:
        """Every unit in turn; ``settle`` its constants before the next."""
        graph = self.simulation.graph
        position = {value: index for index, node in enumerate(graph) for value in node.outputs}
        starts = [self._simulated(unit.start)[0] if unit.start is not None else None for unit in self.units]
        reached = -1
        stops = []
        for start in starts:
            place = -1 if start is None else position.get(start, -1)
            if place > reached and start is not None:
                stops.append(str(start.name))
                reached = place
        advance = self._candidate.advance(stops)
        reference = SegmentedRun.of(originals.restored(self.model), list(self.dataset), threads=self.ctx.jobs)
        reached = -1
        wanted = reference.advance([str(unit.output.name) for unit in self.units])
        for unit, start, target in zip(self.units, starts, wanted, strict=True):
            if start is not None and position.get(start, -1) > reached:
                next(advance)
                reached = position[start]
            output, activation = self._simulated(unit.output)
            free = [*graph.inputs, *(value for value, index in position.items() if index <= reached)]
            targets = [sample[target] for sample in reference.samples]
            yield Stage(unit, output, activation, free, [dict(sample) for sample in self._candidate.samples], targets)

    def _simulated(self, value: ir.Value) -> tuple[ir.Value, ir.Node | None]:
        """A value's counterpart, and the activation that is not computed in it."""
        producer = value.producer()
        if producer is None:
            return next(item for item in self.simulation.graph.inputs if item.name == value.name), None
        node = self._nodes.get(str(producer.name))
        if node is not None:
            return node.outputs[producer.outputs.index(value)], None
        found = (item for node in self.simulation.graph for item in node.outputs if item.name == value.name)
        return next(found), producer


def _given(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    if value is None:
        raise ValueError(f"{node.name} has no input {index}")
    return value


def _simulation(model: ir.Model, layers: Sequence[RoundLayer], biases: Sequence[Bias]) -> ir.Model:
    """The materialized model, in which layers read float weights and biases."""
    simulation = with_float_weights(model, layers)
    edit = Edit(simulation)
    nodes = {str(node.name): node for node in simulation.graph}
    for bias in biases:
        content = constants.array(bias.node.inputs[bias.index])
        if content is not None:
            edit.set_input(nodes[str(bias.node.name)], bias.index, edit.constant(f"{bias.node.name}_fitted", content))
    return simulation
