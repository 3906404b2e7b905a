"""A model as a protobuf without its weights: for shape inference, for writing, for looking at structure."""

from __future__ import annotations

from typing import Final

import onnx
import onnx_ir as ir

from qcompiler.errors import ModelError

__all__ = ["initializer_head", "structure_proto", "without_initializers"]

_SHAPES: Final = (ir.DataType.INT64, ir.DataType.INT32)
_SMALL: Final = 1024
"""Integers up to this many bytes keep their data: shape inference reads shapes, axes, pads and the like."""

_FEW: Final = 64
"""Others up to this many bytes keep theirs: the scales of Resize, the steps of Range."""


def without_initializers(model: ir.Model) -> onnx.ModelProto:
    """The model without the initializers of its main graph; no weight of it is read.

    Raises:
        ModelError: The model cannot be serialised.
    """
    graph = model.graph
    view = ir.GraphView(
        graph.inputs, graph.outputs, nodes=graph, doc_string=graph.doc_string, opset_imports=graph.opset_imports,
        name=graph.name, metadata_props=dict(graph.metadata_props),
    )
    shell = ir.Model(
        view,  # type: ignore[arg-type]  # documented: a model of a view serialises, without a copy
        ir_version=model.ir_version, producer_name=model.producer_name, producer_version=model.producer_version,
        domain=model.domain, model_version=model.model_version, doc_string=model.doc_string,
        functions=list(model.functions.values()), metadata_props=dict(model.metadata_props),
    )
    try:
        return ir.to_proto(shell)
    except (ir.serde.SerdeError, ValueError, TypeError) as error:
        raise ModelError(f"the model cannot be serialised: {error}") from error


def initializer_head(value: ir.Value) -> onnx.TensorProto:
    """An initializer without its data (strings excepted, they come along).

    Raises:
        ModelError: It has no content.
    """
    if value.const_value is None:
        raise ModelError(f"initializer '{value.name}' has no content")
    proto = onnx.TensorProto()
    _fill(proto, value, value.const_value)
    return proto


def _fill(proto: onnx.TensorProto, value: ir.Value, tensor: ir.TensorProtocol) -> None:
    if tensor.dtype == ir.DataType.STRING:
        proto.CopyFrom(ir.to_proto(tensor))
        proto.name = str(value.name)
        return
    proto.name = str(value.name)
    proto.data_type = int(tensor.dtype)
    proto.dims.extend(size for size in tensor.shape if isinstance(size, int))
    if tensor.doc_string:
        proto.doc_string = tensor.doc_string
    for key in sorted(tensor.metadata_props):
        proto.metadata_props.add(key=key, value=tensor.metadata_props[key])


def structure_proto(model: ir.Model) -> onnx.ModelProto:
    """The model with every initializer declared: possible shapes with their data, weights without."""
    proto = without_initializers(model)
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None:
            continue
        head = proto.graph.initializer.add()
        _fill(head, value, tensor)
        if tensor.dtype == ir.DataType.STRING:
            continue
        if tensor.nbytes <= (_SMALL if tensor.dtype in _SHAPES else _FEW):
            head.raw_data = tensor.tobytes()
        else:
            head.data_location = onnx.TensorProto.EXTERNAL
            head.external_data.add(key="location", value="weights")
    return proto
