"""Quantization state: decisions written on the graph before any Q/DQ node exists.

A value carries the format (later the parameters) in which its producer's result is kept. An edge, that is one
input of one consumer, carries its own only where it differs: another format, or ``FLOAT`` for a consumer that
reads real numbers. A node carries whether it runs on integers, or the reason why it stays float.

Life of the state: none → format (``assign-formats``) → params (``calibrate``) → nodes (``place-qdq``). A QuantizeLinear
carries the clamp that it made superfluous.
Everything lives in ``meta`` of onnx_ir objects, so it follows object identity and is never serialised with the
model; ``plan.json`` is its serialised form.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, replace

import onnx_ir as ir

from qcompiler.quant.format import QFormat
from qcompiler.quant.params import QParams

__all__ = [
    "FLOAT",
    "Clamp",
    "Float",
    "NodeDecision",
    "TensorQuant",
    "absorbed_clamp",
    "clear",
    "edge_quant",
    "has_state",
    "node_decision",
    "own_edge_quant",
    "quantized_values",
    "replace_edge_quant",
    "set_absorbed_clamp",
    "set_edge_quant",
    "set_node_decision",
    "set_value_quant",
    "value_quant",
]

_KEY = "qcompiler.quant"
_EDGES = "qcompiler.quant.edges"
_NODE = "qcompiler.quant.node"
_CLAMP = "qcompiler.quant.clamp"


class Float(enum.Enum):
    """Marks an edge that reads the real-valued tensor although the value itself is quantized."""

    FLOAT = "float"


FLOAT = Float.FLOAT


@dataclass(frozen=True, slots=True)
class TensorQuant:
    """How one tensor (or one edge) is quantized.

    Attributes:
        format: Storage format.
        params: Scale and zero point; ``None`` until calibrated.
        tie: Name shared by values that must have equal parameters (Concat inputs, pass-through chains).
    """

    format: QFormat
    params: QParams | None = None
    tie: str | None = None

    def with_params(self, params: QParams) -> TensorQuant:
        """The same decision with parameters."""
        return replace(self, params=params)


@dataclass(frozen=True, slots=True)
class NodeDecision:
    """Whether a node runs on integers on the target, and if not, why.

    Attributes:
        integer: The target's integer kernel takes this node.
        reason: Why the node stays float; empty when ``integer``.
    """

    integer: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Clamp:
    """A Relu or Clip that is gone because a QuantizeLinear saturates exactly where it did.

    Attributes:
        node: Name it had.
        result: Name of its result.
        low: Least number it let through; ``None`` without one.
        high: Greatest number; ``None`` without one.
    """

    node: str
    result: str
    low: float | None
    high: float | None


def value_quant(value: ir.Value) -> TensorQuant | None:
    """The decision on the value itself."""
    return value.meta.get(_KEY)


def set_value_quant(value: ir.Value, quant: TensorQuant | None) -> None:
    """Write (or with ``None`` remove) the decision on a value."""
    if quant is None:
        value.meta.pop(_KEY, None)
    else:
        value.meta[_KEY] = quant


def own_edge_quant(node: ir.Node, index: int) -> TensorQuant | Float | None:
    """What the edge itself carries; ``None`` where it follows its value."""
    edges: dict[int, TensorQuant | Float] = node.meta.get(_EDGES, {})
    return edges.get(index)


def set_edge_quant(node: ir.Node, index: int, quant: TensorQuant | Float | None) -> None:
    """Write an edge's own decision; ``None`` makes it follow its value again."""
    edges = dict(node.meta.get(_EDGES, {}))
    if quant is None:
        edges.pop(index, None)
    else:
        edges[index] = quant
    node.meta[_EDGES] = edges


def edge_quant(node: ir.Node, index: int) -> TensorQuant | None:
    """The decision in force at input ``index`` of ``node``: its own, else its value's; ``None`` means float."""
    own = own_edge_quant(node, index)
    if isinstance(own, TensorQuant):
        return own
    value = node.inputs[index]
    return None if own is FLOAT or value is None else value_quant(value)


def replace_edge_quant(node: ir.Node, index: int, quant: TensorQuant) -> None:
    """Change the decision in force at input ``index`` of ``node`` where it stands: on the edge, else on the value."""
    value = node.inputs[index]
    if isinstance(own_edge_quant(node, index), TensorQuant):
        set_edge_quant(node, index, quant)
    elif value is not None:
        set_value_quant(value, quant)


def node_decision(node: ir.Node) -> NodeDecision | None:
    """The decision on a node; ``None`` before formats are assigned."""
    return node.meta.get(_NODE)


def set_node_decision(node: ir.Node, decision: NodeDecision) -> None:
    """Write the decision on a node."""
    node.meta[_NODE] = decision


def absorbed_clamp(quantizer: ir.Node) -> Clamp | None:
    """The clamp whose work the saturation of a QuantizeLinear does; ``None`` where there was none."""
    return quantizer.meta.get(_CLAMP)


def set_absorbed_clamp(quantizer: ir.Node, clamp: Clamp) -> None:
    """Write on a QuantizeLinear which clamp before it was removed: without it, the clamp must come back."""
    quantizer.meta[_CLAMP] = clamp


def has_state(graph: ir.Graph) -> bool:
    """Whether any node or value of the graph carries quantization state."""
    return any(_NODE in node.meta for node in graph) or next(quantized_values(graph), None) is not None


def quantized_values(graph: ir.Graph) -> Iterator[tuple[ir.Value, TensorQuant]]:
    """Every value with a decision: inputs, initializers, then node outputs in graph order."""
    for value in (*graph.inputs, *graph.initializers.values()):
        if (quant := value_quant(value)) is not None:
            yield value, quant
    for node in graph:
        for value in node.outputs:
            if (quant := value_quant(value)) is not None:
                yield value, quant


def clear(graph: ir.Graph) -> None:
    """Remove every decision from the graph."""
    for value in (*graph.inputs, *graph.initializers.values()):
        value.meta.pop(_KEY, None)
    for node in graph:
        node.meta.pop(_EDGES, None)
        node.meta.pop(_NODE, None)
        for value in node.outputs:
            value.meta.pop(_KEY, None)
