"""A piece of a model whose weights may be fed: how a layer is changed without a new session.

A piece computes some tensors from others. Weights on chosen edges are inputs of it, so one session serves every
alternative of these weights; all other weights are constants, which ONNX Runtime may reorder as its kernels like.
Pieces hold plain bytes and arrays: they can be sent to another process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.analysis.sensitivity.study import Edge
from qcompiler.errors import ModelError, first_line
from qcompiler.ir.execute import light_proto, session_options
from qcompiler.ir.parts import open_session, reads

__all__ = ["Piece", "PieceRunner", "Tensors", "cut_out"]

Tensors: TypeAlias = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Piece:
    """A part of a graph as a model of its own.

    Attributes:
        proto: The model, serialized; large weights are declared external.
        arrays: Those weights.
        inputs: Tensors that it reads.
        outputs: Tensors that it gives.
        fed: By edge, the weight that stands there unless another is given.
    """

    proto: bytes
    arrays: Mapping[str, NDArray[Any]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    fed: Mapping[Edge, NDArray[np.float32]]


class PieceRunner:
    """A session on a piece."""

    def __init__(self, piece: Piece, threads: int = 0) -> None:
        self.piece = piece
        self._session = open_session(piece.proto, dict(piece.arrays), session_options(threads=threads))

    def run(
        self, tensors: Mapping[str, NDArray[Any]], weights: Mapping[Edge, NDArray[np.float32]] | None = None
    ) -> list[NDArray[Any]]:
        """Outputs of one run, in order.

        Args:
            tensors: At least what the piece reads.
            weights: What stands on some of the fed edges instead of the model's own.

        Raises:
            ModelError: ONNX Runtime failed; the text says on which node.
        """
        given = self.piece.fed if weights is None else {**self.piece.fed, **weights}
        feed = {name: tensors[name] for name in self.piece.inputs}
        feed |= {_fed_name(edge): array for edge, array in given.items()}
        try:
            found: list[NDArray[Any]] = self._session.run(list(self.piece.outputs), feed)
        except Exception as error:
            raise ModelError(f"ONNX Runtime failed while running the model: {first_line(error)}") from error
        return found


def cut_out(
    model: ir.Model, tensors: Mapping[str, NDArray[Any]], outputs: Sequence[str], edges: Iterable[Edge] = ()
) -> Piece:
    """What computes ``outputs`` from ``tensors``; every axis of these may vary.

    Args:
        model: The whole model.
        tensors: An example of what is known; nothing is computed that is among them.
        outputs: Names of tensors wanted, none of them known.
        edges: Edges whose weights are to be fed; those that the piece does not hold are left out.
    """
    proto, weights = light_proto(model)
    nodes = _needed(proto.graph, set(tensors), outputs)
    fed: dict[Edge, NDArray[np.float32]] = {}
    wanted = set(edges)
    for node in nodes:
        for index, name in enumerate(node.input):
            if (node.name, index) in wanted:
                fed[node.name, index] = _content(model, name)
                node.input[index] = _fed_name((node.name, index))
    used = {name for node in nodes for name in reads(node)}
    inputs = tuple(sorted(used & set(tensors)))
    part = onnx.ModelProto(ir_version=proto.ir_version)
    part.opset_import.extend(proto.opset_import)
    part.functions.extend(proto.functions)
    part.graph.name = "piece"
    part.graph.node.extend(nodes)
    part.graph.initializer.extend(tensor for tensor in proto.graph.initializer if tensor.name in used)
    part.graph.input.extend(_input(name, tensors[name], free=True) for name in inputs)
    part.graph.input.extend(_input(_fed_name(edge), array, free=False) for edge, array in fed.items())
    for name in outputs:
        part.graph.output.add(name=name)
    arrays = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in weights.items() if name in used}
    return Piece(part.SerializeToString(), arrays, inputs, tuple(outputs), fed)


def _needed(graph: onnx.GraphProto, known: set[str], outputs: Iterable[str]) -> list[onnx.NodeProto]:
    """Nodes on the way from what is known to the outputs, in graph order."""
    wanted, found = set(outputs), []
    for node in reversed(graph.node):
        if wanted & set(node.output) - {""}:
            found.append(node)
            wanted |= reads(node) - known
    return found[::-1]


def _fed_name(edge: Edge) -> str:
    return f"{edge[0]}#{edge[1]}"


def _content(model: ir.Model, name: str) -> NDArray[np.float32]:
    tensor = model.graph.initializers[name].const_value
    if tensor is None:
        raise ModelError("has no content", where=f"weight '{name}'")
    return np.ascontiguousarray(tensor.numpy())


def _input(name: str, array: NDArray[Any], *, free: bool) -> onnx.ValueInfoProto:
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(array.dtype))
    shape = [f"{name}_{axis}" for axis in range(array.ndim)] if free else list(array.shape)
    return onnx.helper.make_tensor_value_info(name, kind, shape)
