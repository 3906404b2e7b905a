"""One node in ONNX Runtime: float islands, and whatever else is not ours.

The interpreter vouches for integers. What is float computes as the runtime computes it, so that two executions of one
file may be compared bit for bit to the outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir

from qcompiler.errors import ModelError, first_line
from qcompiler.ir.operators import STANDARD_DOMAINS, operator_name

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["RuntimeNode"]

_Kinds: TypeAlias = "tuple[tuple[str, int, int], ...]"
"""Name, element type and rank of every operand."""


class RuntimeNode:
    """A model of one node. Values that subgraphs read from outside become inputs.

    Args:
        node: The node.
        captured: Names of values of the main graph that its subgraphs read.
        model: The model that the node belongs to: operator sets and functions are taken from there.

    Raises:
        ModelError: Nothing here defines the operator.
    """

    def __init__(self, node: ir.Node, captured: Sequence[str], model: ir.Model) -> None:
        self._node = node
        self._captured = list(captured)
        self._model = model
        self._sessions: dict[_Kinds, onnxruntime.InferenceSession] = {}
        version = model.opset_imports.get("", 1)
        standard = node.domain in STANDARD_DOMAINS and onnx.defs.has(node.op_type, version)
        if not (standard or node.op_identifier() in model.functions or onnx.defs.has(node.op_type, node.domain)):
            raise ModelError(
                f"no implementation of {operator_name(node)} can be run",
                where=str(node.name),
                hint="the interpreter knows ai.qcompiler, standard ONNX operators and functions in the model",
            )

    def __call__(self, inputs: Sequence[Any], captured: Mapping[str, Any]) -> list[Any]:
        """Results of the node.

        Args:
            inputs: Its operands; ``None`` where absent.
            captured: What its subgraphs read.

        Raises:
            ModelError: The node failed.
        """
        operands = zip(self._node.inputs, inputs, strict=True)
        feed = {str(value.name): np.asarray(array) for value, array in operands if value is not None}
        feed |= {name: np.asarray(captured[name]) for name in self._captured}
        try:
            return list(self._session(feed).run(None, feed))
        except Exception as error:  # ONNX Runtime raises types of its own, none of which says more than the text
            raise ModelError(
                f"{operator_name(self._node)} failed: {first_line(error)}", where=str(self._node.name)
            ) from error

    def _session(self, feed: Mapping[str, Any]) -> onnxruntime.InferenceSession:
        """The session for operands of these types and ranks; one each is enough, whatever the sizes."""
        import onnxruntime as ort

        kinds = tuple(
            (name, int(onnx.helper.np_dtype_to_tensor_dtype(array.dtype)), array.ndim) for name, array in feed.items()
        )
        if kinds not in self._sessions:
            options = ort.SessionOptions()
            options.log_severity_level = 3
            options.intra_op_num_threads = 1
            proto = _one_node_model(self._node, kinds, self._model)
            self._sessions[kinds] = ort.InferenceSession(
                proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        return self._sessions[kinds]


def _one_node_model(node: ir.Node, kinds: _Kinds, model: ir.Model) -> onnx.ModelProto:
    graph = onnx.GraphProto(name="one", node=[ir.to_proto(node)])
    graph.input.extend(onnx.helper.make_tensor_value_info(name, dtype, [None] * rank) for name, dtype, rank in kinds)
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
    """Functions that nodes call, those that are called by others first."""
    for node in nodes:
        key = node.op_identifier()
        if key in model.functions and key not in found:
            _called(model.functions[key].all_nodes(), model, found)
            found[key] = None
    return found
