"""Parts of a model that are reconstructed together: a layer, a block, or everything.

BRECQ (Li et al., 2021, section 3.2) reconstructs residual blocks: inside a block the errors of layers depend on each
other, between blocks less so. A block is found on the dataflow graph and not by name: where one single tensor carries
everything that any layer has computed so far, the graph is cut. In a residual network that is behind every Add, in a
transformer behind both Adds of a layer, in a chain behind every node. So a block ends where the next linear layer
begins, except that a depthwise convolution, which mixes no channels, belongs to the layer behind it.

A unit ends with what follows its last layer and holds no layer: activations, normalizations, pooling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import onnx_ir as ir

from qcompiler.ir.constants import is_constant
from qcompiler.ir.patterns import has_type, only_consumer, other_operand
from qcompiler.passes.round._layers import RoundLayer

__all__ = ["Kind", "Unit", "units"]

Kind: TypeAlias = Literal["layer", "block", "model"]

_TAIL: Final = ("Relu", "Clip", "LeakyRelu", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh", "Gelu")
"""Activations that belong to the layer before them."""


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """A part of the model.

    Attributes:
        layers: Its layers in the order of the graph.
        start: What it begins at: all that it reads besides is made before; ``None`` where that is the graph's inputs.
        output: What it computes.
    """

    layers: tuple[RoundLayer, ...]
    start: ir.Value | None
    output: ir.Value

    @property
    def name(self) -> str:
        """Its layers' names."""
        names = [str(layer.node.name) for layer in self.layers]
        return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"


def units(graph: ir.Graph, layers: Sequence[RoundLayer], kind: Kind) -> list[Unit]:
    """The units of a sorted graph, each layer in one of them, in an order in which none reads a later one's result."""
    position = {node: index for index, node in enumerate(graph)}
    if kind == "layer":
        return _single(layers, position)
    pieces = _pieces(layers, _cuts(graph, layers), position)
    found: list[Unit] = []
    start: ir.Value | None = None
    waiting: tuple[RoundLayer, ...] = ()
    for number, (own, end) in enumerate(pieces):
        waiting += own
        last = number == len(pieces) - 1
        if not waiting:
            start = end
        elif last or (kind == "block" and not _joins_next(waiting, pieces[number + 1])):
            found.append(Unit(waiting, start, end))
            start, waiting = end, ()
    rest = [layer for layer in layers if all(layer not in unit.layers for unit in found)]
    return found + _single(rest, position)  # behind the last cut: there are several outputs


def _joins_next(own: Sequence[RoundLayer], following: tuple[tuple[RoundLayer, ...], ir.Value]) -> bool:
    """Whether layers are no block of their own: they mix no channels, or what follows is their activation."""
    layers, end = following
    if not layers:
        return has_type(end.producer(), *_TAIL)
    return len(own) == 1 and own[0].groups > 1 and own[0].rows == 1


def _pieces(
    layers: Sequence[RoundLayer], cuts: Sequence[ir.Value], position: Mapping[ir.Node, int]
) -> list[tuple[tuple[RoundLayer, ...], ir.Value]]:
    """Between every two cuts the layers there and the tensor at the end; a Softmax that ends the model is left out."""
    found = []
    waiting = list(layers)
    for cut in cuts:
        producer = cut.producer()
        if producer is None or (cut.is_graph_output() and has_type(producer, "Softmax", "LogSoftmax")):
            continue
        own = [layer for layer in waiting if position[layer.node] <= position[producer]]
        waiting = waiting[len(own) :]
        found.append((tuple(own), cut))
    return found


def _cuts(graph: ir.Graph, layers: Sequence[RoundLayer]) -> list[ir.Value]:
    """Tensors that alone carry all that layers have computed before them, in graph order."""
    own = {layer.node for layer in layers}
    behind: set[ir.Value] = set()
    alive: dict[ir.Value, int] = {}
    found = []
    for node in graph:
        inputs = [value for value in node.inputs if value is not None]
        carries = node in own or (node.op_type not in ("Shape", "Size") and any(value in behind for value in inputs))
        for value in inputs:
            if value in alive:
                alive[value] -= 1
                if not alive[value]:
                    del alive[value]
        if not carries:
            continue
        behind.update(node.outputs)
        alive.update((value, _readers(value)) for value in node.outputs if _readers(value))
        if len(alive) == 1 and node.outputs[0] in alive:
            found.append(node.outputs[0])
    return found


def _readers(value: ir.Value) -> int:
    return len(list(value.uses())) + value.is_graph_output()


def _single(layers: Sequence[RoundLayer], position: Mapping[ir.Node, int]) -> list[Unit]:
    """Every layer with its bias and activation, as far as those come before the next layer."""
    found = []
    for index, layer in enumerate(layers):
        end = position[layers[index + 1].node] if index + 1 < len(layers) else len(position)
        found.append(Unit((layer,), layer.data, _tail(layer.node.outputs[0], position, end)))
    return found


def _tail(value: ir.Value, position: Mapping[ir.Node, int], end: int) -> ir.Value:
    while (reader := only_consumer(value)) is not None and position[reader] < end:
        biased = has_type(reader, "Add") and is_constant(other_operand(reader, value))
        if not biased and not has_type(reader, *_TAIL):
            break
        value = reader.outputs[0]
    return value
