"""One node in ONNX's reference implementation: float islands, and whatever else is not ours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from qcompiler.errors import ModelError, first_line
from qcompiler.ir.operators import operator_name

__all__ = ["ReferenceNode"]


class ReferenceNode:
    """A model of one node, evaluated by ``onnx.reference``. Values that subgraphs read from outside become inputs.

    Args:
        node: The node.
        captured: Names of values of the main graph that its subgraphs read.
        model: The model that the node belongs to: operator sets and functions are taken from there.

    Raises:
        ModelError: The reference implementation does not know the operator.
    """

    def __init__(self, node: ir.Node, captured: Sequence[str], model: ir.Model) -> None:
        from onnx.reference import ReferenceEvaluator

        self._node = node
        self._captured = list(captured)
        proto = _one_node_model(node, captured, model)
        try:
            self._evaluator = ReferenceEvaluator(proto)
        except Exception as error:  # the reference implementation raises many unrelated types
            raise ModelError(
                f"no implementation of {operator_name(node)} can be run: {first_line(error)}",
                where=str(node.name),
                hint="the interpreter knows ai.qcompiler, standard ONNX operators and functions in the model",
            ) from error

    def __call__(self, inputs: Sequence[Any], captured: Mapping[str, Any]) -> list[Any]:
        """Results of the node.

        Args:
            inputs: Its operands; ``None`` where absent.
            captured: What its subgraphs read.

        Raises:
            ModelError: The node failed.
        """
        feed = {str(value.name): array for value, array in zip(self._node.inputs, inputs, strict=True) if value}
        feed |= {name: captured[name] for name in self._captured}
        try:
            with np.errstate(all="ignore"):
                found = list(self._evaluator.run(None, feed))
        except Exception as error:  # the reference implementation raises many unrelated types
            raise ModelError(
                f"{operator_name(self._node)} failed: {first_line(error)}", where=str(self._node.name)
            ) from error
        return found


def _one_node_model(node: ir.Node, captured: Sequence[str], model: ir.Model) -> onnx.ModelProto:
    names = dict.fromkeys([*(str(value.name) for value in node.inputs if value is not None), *captured])
    graph = onnx.GraphProto(name="one", node=[ir.to_proto(node)])
    graph.input.extend(onnx.ValueInfoProto(name=name) for name in names)
    graph.output.extend(onnx.ValueInfoProto(name=str(value.name)) for value in node.outputs if value.name)
    proto = onnx.ModelProto(ir_version=model.ir_version, graph=graph)
    for domain, version in model.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    proto.functions.extend(ir.to_proto(model.functions[key]) for key in _called(_within(node), model, {}))
    return proto


def _within(node: ir.Node) -> Iterator[ir.Node]:
    """The node and the nodes of its subgraphs."""
    yield node
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield from ir.traversal.RecursiveGraphIterator(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            for body in attribute.as_graphs():
                yield from ir.traversal.RecursiveGraphIterator(body)


def _called(
    nodes: Iterable[ir.Node], model: ir.Model, found: dict[ir.OperatorIdentifier, None]
) -> dict[ir.OperatorIdentifier, None]:
    """Functions that nodes call, those that are called by others first: the reference implementation wants it so."""
    for node in nodes:
        key = node.op_identifier()
        if key in model.functions and key not in found:
            _called(model.functions[key].all_nodes(), model, found)
            found[key] = None
    return found
