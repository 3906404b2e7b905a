"""Shape and type inference that costs seconds, not minutes, on large graphs.

The library's own pass serialises weights and searches lists; on 100,000 nodes it takes 21 s. Here the graph goes to
``onnx.shape_inference`` without its weights (small ones stay: they are shapes and axes), and the result is merged
back graph by graph and node by node, so that equal names in different subgraphs do not meet.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import onnx
import onnx.shape_inference
import onnx_ir as ir

from qcompiler.ir.slim import structure_proto

__all__ = ["infer", "name_dimensions"]

_MADE_UP = "unk__"
"""How symbols begin that inference makes up."""


def infer(model: ir.Model) -> None:
    """Fill in missing types and shapes of all values, subgraphs included.

    Nothing known is lost: a dimension that is known stays. Where inference fails (a custom operator, a
    contradiction) the values keep what they have; ``qcompiler.ir.facts`` says what is still unknown.
    """
    proto = structure_proto(model)
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, check_type=False, strict_mode=False, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        # One malformed operator makes the whole inference fail; without data propagation it often passes.
        try:
            inferred = onnx.shape_inference.infer_shapes(proto, check_type=False, strict_mode=False, data_prop=False)
        except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
            return
    _merge(model.graph, inferred.graph)


def name_dimensions(model: ir.Model) -> int:
    """Name the unknown dimensions of inner results of the main graph: the same name where inference proves them equal.

    ONNX Runtime makes up a name for every unknown dimension of every node, those in bodies of functions included, and
    compares it with all names before: creating a session takes quadratic time where dimensions have no names.

    Returns:
        The number of dimensions named.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(structure_proto(model), data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return 0
    found = {info.name: info.type.tensor_type.shape.dim for info in inferred.graph.value_info}
    taken = _symbols(model)
    free = (name for index in itertools.count() if (name := f"dynamic_{index}") not in taken)
    names: dict[str, str] = {}
    named = 0
    for value in (value for node in model.graph for value in node.outputs):
        dims = found.get(str(value.name))
        if value.shape is None or value.is_graph_output() or dims is None or len(dims) != len(value.shape):
            continue
        shape = list(value.shape)
        for axis, symbol in enumerate(dim.dim_param for dim in dims):
            if symbol and value.shape.is_unknown_dim(axis):
                if symbol not in names:
                    names[symbol] = next(free) if symbol.startswith(_MADE_UP) else symbol
                shape[axis] = ir.SymbolicDim(names[symbol])
                named += 1
        value.shape = ir.Shape(shape)
    return named


def _symbols(model: ir.Model) -> set[str]:
    """All names of dimensions in the main graph."""
    values = (*model.graph.inputs, *(value for node in model.graph for value in node.outputs))
    shapes = (value.shape for value in values if value.shape is not None)
    return {dim.value for shape in shapes for dim in shape if isinstance(dim, ir.SymbolicDim) and dim.value is not None}


def _merge(graph: ir.Graph, proto: onnx.GraphProto) -> None:
    """Bring what was inferred back to the values of ``graph`` and of the graphs inside it."""
    found = {info.name: info.type for info in proto.value_info}
    found.update((info.name, info.type) for info in proto.output)
    for node, twin in zip(graph, proto.node, strict=True):
        for value in node.outputs:
            if value.name and (inferred := found.get(value.name)) is not None:
                _update(value, inferred)
        if any(attribute.g.node or attribute.graphs for attribute in twin.attribute):
            _merge_subgraphs(node, twin.attribute)


def _merge_subgraphs(node: ir.Node, attributes: Sequence[onnx.AttributeProto]) -> None:
    for twin in attributes:
        attribute = node.attributes[twin.name]
        if attribute.type == ir.AttributeType.GRAPH:
            _merge(attribute.as_graph(), twin.g)
        elif attribute.type == ir.AttributeType.GRAPHS:
            for graph, inner in zip(attribute.as_graphs(), twin.graphs, strict=True):
                _merge(graph, inner)


def _update(value: ir.Value, inferred: onnx.TypeProto) -> None:
    """Give ``value`` the inferred type if it has none, and every inferred dimension it does not know."""
    if value.type is None and inferred.WhichOneof("value") is not None:
        value.type = ir.serde.deserialize_type_proto_for_type(inferred)
    if inferred.WhichOneof("value") != "tensor_type" or not inferred.tensor_type.HasField("shape"):
        return
    known = value.shape
    if known is not None and known.is_static():
        return
    dims = [_dimension(dim) for dim in inferred.tensor_type.shape.dim]
    if known is None:
        value.shape = ir.Shape(dims)
    elif known.rank() == len(dims) and any(map(_says_more, dims, known)):
        value.shape = ir.Shape([new if _says_more(new, old) else old for new, old in zip(dims, known, strict=True)])


def _says_more(new: int | str | None, old: int | ir.SymbolicDim) -> bool:
    """A number says more than a symbol, a symbol more than nothing."""
    if isinstance(old, int) or new is None:
        return False
    return isinstance(new, int) or old.value is None


def _dimension(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    """A number, a symbol, or ``None`` for unknown; symbols that inference made up say nothing."""
    which = dim.WhichOneof("value")
    if which == "dim_value":
        return int(dim.dim_value)
    return str(dim.dim_param) if which == "dim_param" and not dim.dim_param.startswith(_MADE_UP) else None
