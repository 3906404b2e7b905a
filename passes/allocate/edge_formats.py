"""Formats of values and edges: what each reader wants, what the producer can write, what must share a scale.

Readers come first: the graph is walked backwards, so that when a node is reached the format of its result is known.
A reader wants the activation format asked for, or the widest it takes where the profile marks it ``wide``; of inputs
of the graph it wants 8 bits at least. The value gets the widest format wanted that its producer can write; a reader
that wants less carries its own on the edge (a requantization), and one that is no integer node reads real numbers.
Nodes that keep the scale of their input (pass-through, Concat, Split) tie values together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import networkx as nx
import numpy as np
import onnx_ir as ir

from qcompiler.ir.uses import is_used, use_count
from qcompiler.passes.allocate.format_marks import followed
from qcompiler.passes.allocate.integer_nodes import IntegerNodes, results
from qcompiler.passes.allocate.widths import is_narrow
from qcompiler.quant import state
from qcompiler.quant.format import BYTE, QFormat
from qcompiler.quant.params import QParams
from qcompiler.quant.state import FLOAT, TensorQuant
from qcompiler.target.formats import FormatRequest
from qcompiler.target.schema import OperatorRule

__all__ = ["Use", "Weights", "assign_tensors", "tie_scales", "wanted"]

Use: TypeAlias = tuple[ir.Node, int]
"""A reader and which of its inputs it reads a value at."""

Weights: TypeAlias = Mapping[ir.Value, Mapping[Use, QFormat]]
"""Formats of constants in weight role, by reader."""


def assign_tensors(graph: ir.Graph, nodes: IntegerNodes, request: FormatRequest, weights: Weights) -> None:
    """Write formats on every value and edge that integer nodes read or write."""
    for node in reversed(list(graph)):
        used = [value for value in node.outputs if is_used(value)]
        if nodes.integer(node) and nodes.rule(node).kind == "same-scale":
            _assign(used, nodes, request, {})  # parts of the same codes
        else:
            for value in used:
                _assign([value], nodes, request, {})
    for value in (*graph.inputs, *graph.initializers.values()):
        _assign([value], nodes, request, weights.get(value, {}))


def wanted(node: ir.Node, index: int, nodes: IntegerNodes, request: FormatRequest) -> QFormat:
    """The activation format that an integer node wants to read at one input."""
    rule = nodes.rules[node]
    if rule.kind == "same-scale":
        for value in results(node, nodes):
            if (result := state.value_quant(value)) is not None:
                return result.format
    accepted, bits = rule.activation_formats(index), followed(node, request).activation_bits
    if bits is not None and bits < BYTE and _is_given(node.inputs[index], nodes):
        bits = BYTE  # an image has as many, and everything is made of it
    if is_narrow(node):
        return _of_bits(accepted, bits)
    if rule.wide == "always" or (rule.wide == "stream" and _on_wide_stream(node, nodes)):
        return _widest(accepted)
    return _of_bits(accepted, bits)


def _is_given(value: ir.Value | None, nodes: IntegerNodes) -> bool:
    """Whether a value is an input of the graph, merely moved or not."""
    while value is not None and not value.is_graph_input():
        producer = value.producer()
        rule = None if producer is None else nodes.rules.get(nodes.owner.get(producer, producer))
        if producer is None or rule is None or rule.kind != "same-scale":
            return False
        value = producer.inputs[0]
    return value is not None


def _on_wide_stream(node: ir.Node, nodes: IntegerNodes) -> bool:
    """Whether a node joins tensors that are kept wide before it or behind it."""
    for index in nodes.activation_inputs(node):
        value = node.inputs[index]
        producer = None if value is None else value.producer()
        if producer is not None and nodes.integer(producer) and nodes.rule(producer).wide == "always":
            return True
    return _feeds_wide(node, nodes)


def _feeds_wide(node: ir.Node, nodes: IntegerNodes) -> bool:
    """Whether an integer reader of the node's result reads it wide.

    A result that is wide only because real numbers are made of it says nothing about the stream before it.
    """
    return any(
        (quant := state.edge_quant(*edge)) is not None and quant.format.bits > 8
        for value in results(node, nodes)
        for edge in _integer_edges(value, nodes)
    )


def _of_bits(forms: Sequence[QFormat], bits: int | None) -> QFormat:
    return next((form for form in forms if form.bits == bits), forms[0])


def _widest(forms: Iterable[QFormat]) -> QFormat:
    return max(forms, key=lambda form: form.bits)


def _assign(
    values: Sequence[ir.Value], nodes: IntegerNodes, request: FormatRequest, weights: Mapping[Use, QFormat]
) -> None:
    """Decide on values that share one format, all of whose readers' results are decided."""
    wishes = {
        value: dict(weights) | {edge: wanted(*edge, nodes, request) for edge in _integer_edges(value, nodes)}
        for value in values
        if not _left_alone(value, nodes)
    }
    together = [wish for found in wishes.values() for wish in found.values()]
    for value, found in wishes.items():
        if not found and not nodes.integer(value.producer()):
            continue
        own = _value_format(value, together, nodes, request)
        if own is None:  # the kernel gives real numbers: only edges are quantized
            for edge, wish in found.items():
                state.set_edge_quant(*edge, TensorQuant(wish))
            continue
        state.set_value_quant(value, TensorQuant(own, _fixed(value, own, nodes)))
        _assign_edges(value, own, found, nodes)


def _fixed(value: ir.Value, form: QFormat, nodes: IntegerNodes) -> QParams | None:
    """Parameters that the kernel gives its result by itself."""
    producer = value.producer()
    found = nodes.rule(producer).fixed_result(form) if producer is not None and nodes.integer(producer) else None
    return None if found is None else QParams(np.array(found[0], np.float32), np.array(found[1], np.int32))


def _assign_edges(value: ir.Value, own: QFormat, wishes: Mapping[Use, QFormat], nodes: IntegerNodes) -> None:
    """Say which readers of a quantized value take something else: real numbers, or another format."""
    for use in value.uses():
        edge = (use.node, use.idx)
        wish = wishes.get(edge)
        if wish is None:
            state.set_edge_quant(*edge, FLOAT)
        elif wish != own and not _accepts_narrower(nodes.rules[use.node], use.idx, own, wish):
            state.set_edge_quant(*edge, TensorQuant(wish))


def _accepts_narrower(rule: OperatorRule, index: int, form: QFormat, wish: QFormat) -> bool:
    """Whether a reader that would like ``wish`` takes the narrower ``form``: requantizing upwards gains nothing.

    Where codes are merely moved, or the kernel has one type for all, what is read must be what is written.
    """
    return form.bits < wish.bits and rule.mixed and rule.kind != "same-scale" and form in rule.activation_formats(index)


def _integer_edges(value: ir.Value, nodes: IntegerNodes) -> Iterator[Use]:
    for use in value.uses():
        if nodes.integer(use.node) and use.node not in nodes.owner and nodes.role(use.node, use.idx) == "activation":
            yield use.node, use.idx


def _left_alone(value: ir.Value, nodes: IntegerNodes) -> bool:
    """Whether no scale belongs on the value: it is not float, or lies between a node and what that absorbs."""
    if value.dtype != ir.DataType.FLOAT:
        return True
    return value.producer() is not None and any(user in nodes.owner for user in value.consumers())


def _value_format(
    value: ir.Value, wishes: list[QFormat], nodes: IntegerNodes, request: FormatRequest
) -> QFormat | None:
    """The value's own format; ``None`` where its integer producer rather writes real numbers."""
    producer = value.producer()
    if producer is None or not nodes.integer(producer):
        return _widest(wishes)
    rule = nodes.rule(producer)
    everything_reads_codes = len(wishes) == use_count(value) and not value.is_graph_output()
    if rule.output != "quantized" and not everything_reads_codes:
        return None
    writable = rule.output_formats()
    if rule.kind == "compute" and not rule.mixed:  # the kernel writes what it reads
        node = nodes.owner.get(producer, producer)
        bits = wanted(node, nodes.activation_inputs(node)[0], nodes, request).bits
        writable = tuple(form for form in writable if form.bits == bits) or writable
    if not wishes:
        # Codes that become real numbers again deserve all the precision that the kernel can write.
        return _widest(writable)
    widest = _widest(wishes)
    if widest in writable:
        return widest
    narrower = [form for form in writable if form.bits <= widest.bits]
    return _widest(narrower) if narrower else writable[0]


def tie_scales(graph: ir.Graph, nodes: IntegerNodes) -> None:
    """Name the groups of values and edges that must share one scale."""
    ties: nx.Graph[object] = nx.Graph()
    for node in graph:
        if not nodes.integer(node) or node in nodes.owner or nodes.rules[node].kind != "same-scale":
            continue
        outputs = [value for value in results(node, nodes) if state.value_quant(value) is not None]
        nx.add_path(ties, [*(_key(node, index) for index in nodes.activation_inputs(node)), *outputs])
    for group in nx.connected_components(ties):
        _write_tie(group)


def _key(node: ir.Node, index: int) -> object:
    """What carries the decision of an edge: its value, or the edge itself."""
    own = state.own_edge_quant(node, index)
    return (node, index) if isinstance(own, TensorQuant) else node.inputs[index]


def _write_tie(group: set[object]) -> None:
    values = [item for item in group if isinstance(item, ir.Value)]
    edges = [item for item in group if isinstance(item, tuple)]
    names = [str(value.name) for value in values] + [f"{node.name}[{index}]" for node, index in edges]
    name = min(names)
    for value in values:
        quant = state.value_quant(value)
        if quant is not None:
            state.set_value_quant(value, TensorQuant(quant.format, quant.params, name))
    for node, index in edges:
        own = state.own_edge_quant(node, index)
        if isinstance(own, TensorQuant):
            state.set_edge_quant(node, index, TensorQuant(own.format, own.params, name))
