"""Executable meanings of facts: each checker looks at the whole model in linear time and says what is wrong.

A fact speaks about the main graph; bodies of If, Loop and Scan belong to their node.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import onnx_ir as ir

from qcompiler.ir import constants
from qcompiler.ir.operators import STANDARD_DOMAINS
from qcompiler.ir.structure import producers
from qcompiler.ir.uses import is_used
from qcompiler.pipeline.base import Fact
from qcompiler.quant import state
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.quant.operators import is_log
from qcompiler.quant.state import TensorQuant

__all__ = ["check"]

_MOST: Final = 20
_QDQ: Final = ("QuantizeLinear", "DequantizeLinear")


def check(fact: Fact, model: ir.Model) -> list[str]:
    """What contradicts ``fact``, as sentences; an empty list means that it holds. At most 20 are given."""
    return list(itertools.islice(_CHECKERS[fact](model), _MOST))


def _typed(model: ir.Model) -> Iterator[str]:
    """Every value has an element type, unless it depends on an operator nobody can infer."""
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        if value.type is None:
            yield f"'{value.name}' has no element type"
    for node in model.graph:
        if all(value.type is not None for value in node.outputs if value.name) or not _inferable(node):
            continue
        for value in node.outputs:
            if value.type is None and value.name:
                yield f"'{value.name}', output of {node.name} ({node.op_type}), has no element type"


def _inferable(node: ir.Node) -> bool:
    """Whether ONNX knows how to type the outputs of this node from what is known of its inputs."""
    import onnx

    if node.domain not in STANDARD_DOMAINS or not onnx.defs.has(node.op_type):
        return False
    if any(value is not None and value.type is None for value in node.inputs):
        return False
    return not any(
        attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in node.attributes.values()
    )


def _sorted(model: ir.Model) -> Iterator[str]:
    """Every node comes after those that feed it."""
    seen: set[ir.Node] = set()
    for node in model.graph:
        for producer in producers(node):
            if producer not in seen:
                yield f"{node.name} ({node.op_type}) comes before {producer.name} ({producer.op_type}), which feeds it"
        seen.add(node)


def _canonical(model: ir.Model) -> Iterator[str]:
    """Opset 21 to 25, weights are initializers, nodes do something, names are unique; functions are our operators."""
    opset = model.opset_imports.get("", 0)
    if not 21 <= opset <= 25:
        yield f"the opset is {opset}, not 21 to 25"
    if foreign := sum(domain != DOMAIN for domain, _, _ in model.functions):
        yield f"{foreign} model-local functions are not inlined"
    for value in model.graph.inputs:
        if value.is_initializer():
            yield f"initializer '{value.name}' is also an input"
    for node in model.graph:
        if node.domain in STANDARD_DOMAINS and (reason := _superfluous(node)):
            yield f"{node.name} ({node.op_type}) {reason}"
    yield from _name_clashes(model.graph)


def _superfluous(node: ir.Node) -> str | None:
    if node.op_type == "Constant" and constants.tensor(node.outputs[0]) is not None:
        return "should be an initializer"
    if node.op_type == "Identity" and not _bridges(node):
        return "does nothing"
    if node.op_type == "Dropout" and len(node.inputs) < 3 and not any(is_used(value) for value in node.outputs[1:]):
        return "does nothing"
    return None


def _bridges(node: ir.Node) -> bool:
    """Whether an Identity is needed to give an input, a weight or another output the name of a graph output."""
    source, result = node.inputs[0], node.outputs[0]
    if source is None or not result.is_graph_output():
        return source is None
    fixed = source.is_graph_input() or source.is_initializer() or source.is_graph_output()
    return fixed or source.graph is not result.graph


def _name_clashes(graph: ir.Graph) -> Iterator[str]:
    nodes: set[str] = set()
    values = {str(value.name) for value in graph.inputs} | set(graph.initializers)
    for node in graph:
        if not node.name or node.name in nodes:
            yield f"node name '{node.name}' is {'used twice' if node.name else 'missing'} ({node.op_type})"
        nodes.add(node.name or "")
        for value in node.outputs:
            if value.name in values and value.name:
                yield f"value name '{value.name}' is used twice"
            values.add(value.name or "")


def _formats(model: ir.Model) -> Iterator[str]:
    """Every node is decided on; a node on integers has something quantized to read."""
    for node in model.graph:
        if is_log(node) or (node.op_type in _QDQ and node.domain in STANDARD_DOMAINS):
            continue
        decision = state.node_decision(node)
        if decision is None:
            yield f"{node.name} ({node.op_type}) is not decided on"
        elif not decision.integer and not decision.reason:
            yield f"{node.name} ({node.op_type}) stays float without a reason"


def _calibrated(model: ir.Model) -> Iterator[str]:
    """Every decision, on a value or on an edge, has scales and zero points."""
    for value, quant in state.quantized_values(model.graph):
        if quant.params is None:
            yield f"'{value.name}' ({quant.format}) has no parameters"
    for node in model.graph:
        for index in range(len(node.inputs)):
            own = state.own_edge_quant(node, index)
            if isinstance(own, TensorQuant) and own.params is None:
                yield f"input {index} of {node.name} ({own.format}) has no parameters"


def _qdq(model: ir.Model) -> Iterator[str]:
    """Decisions have become nodes: there are Q/DQ nodes, and all have usable constant scales."""
    found = False
    for node in model.graph:
        if node.op_type not in _QDQ or node.domain not in STANDARD_DOMAINS:
            continue
        found = True
        scale = constants.array(node.inputs[1]) if len(node.inputs) > 1 else None
        if scale is None:
            yield f"the scale of {node.name} is not a constant"
        elif not (np.isfinite(np.asarray(scale, np.float32)).all() and (np.asarray(scale, np.float32) > 0).all()):
            yield f"a scale of {node.name} is not a positive finite number"
    decided = any((decision := state.node_decision(node)) and decision.integer for node in model.graph)
    if decided and not found:
        yield "nodes are decided to run on integers, but there is no Q/DQ node"


def _lowered(model: ir.Model) -> Iterator[str]:
    """Integer operators are known, complete, and come with the functions that define them."""
    from qcompiler.quant.functions.catalogue import operators

    known = operators()
    for node in model.graph.all_nodes():
        if node.domain != DOMAIN:
            continue
        operator = known.get(node.op_type)
        if operator is None:
            yield f"{node.name}: {DOMAIN} has no operator {node.op_type}"
        elif set(node.attributes) != set(operator.attributes) or len(node.inputs) > len(operator.inputs):
            yield f"{node.name} ({node.op_type}) has other inputs or attributes than the operator"
        elif node.op_identifier() not in model.functions:
            yield f"the function of {node.name} ({node.op_type}) is missing"


_CHECKERS: Final[dict[Fact, Callable[[ir.Model], Iterator[str]]]] = {
    Fact.TYPED: _typed,
    Fact.SORTED: _sorted,
    Fact.CANONICAL: _canonical,
    Fact.FORMATS: _formats,
    Fact.CALIBRATED: _calibrated,
    Fact.QDQ: _qdq,
    Fact.LOWERED: _lowered,
}
