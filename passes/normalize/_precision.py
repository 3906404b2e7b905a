"""Models that compute in float16, bfloat16 or float64 compute in float32 afterwards.

Calibration, folding and integer kernels all start from float32. float16 → float32 is exact for weights, and the
result is closer to what the training meant; float64 → float32 rounds at 6e-8, far below any quantization step.
The interface stays: inputs and outputs keep their element type, with a Cast at the border.
"""

from __future__ import annotations

import onnx_ir as ir

from qcompiler.errors import ModelError
from qcompiler.ir.edit import Edit
from qcompiler.passes.normalize._rewrite import tensor_shape
from qcompiler.pipeline.base import Context

__all__ = ["to_float32"]

_OTHER = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})
_TYPE_ATTRIBUTES = ("to", "dtype", "stash_type")


def to_float32(model: ir.Model, ctx: Context) -> bool:
    """Change every float16, bfloat16 and float64 tensor of the model to float32, at the border by a Cast.

    Returns:
        Whether there was any.

    Raises:
        ModelError: such a tensor is an element of a sequence or optional.
    """
    found = _count(model)
    if not found:
        return False
    declared = [output.dtype for output in model.graph.outputs]
    for graph in model.graphs():
        for value in graph.initializers.values():
            _retype(value)
            _convert_tensor(value, ctx.edit)
        for node in graph:
            for value in node.outputs:
                _retype(value)
            _convert_attributes(node, ctx.edit)
        if graph is not model.graph:
            for value in graph.inputs:
                _retype(value)
    _cast_inputs(model.graph, ctx.edit)
    _cast_outputs(model.graph, declared, ctx.edit)
    _drop_casts(model.graph, ctx.edit)
    kinds = ", ".join(f"{count} {name}" for name, count in sorted(found.items()))
    ctx.warn(f"the model computes in float32 now ({kinds} tensors were converted); its interface is unchanged")
    return True


def _count(model: ir.Model) -> dict[str, int]:
    """How many values there are of each other float type, aside from those at the border of a converted model."""
    found: dict[str, int] = {}
    for graph in model.graphs():
        values = [*graph.initializers.values(), *(value for node in graph for value in node.outputs)]
        values += [value for value in graph.inputs if not _only_cast(value)]
        for value in values:
            if value.dtype in _OTHER and not _is_border(value):
                name = value.dtype.name.lower()
                found[name] = found.get(name, 0) + 1
    return found


def _only_cast(value: ir.Value) -> bool:
    """Whether an input is only read by casts to float32."""
    return all(
        use.node.op_type == "Cast" and use.node.attributes.get_int("to", 0) == ir.DataType.FLOAT for use in value.uses()
    )


def _is_border(value: ir.Value) -> bool:
    """Whether an output of the model is the cast of a float32 tensor."""
    producer = value.producer()
    if producer is None or producer.op_type != "Cast" or not value.is_graph_output() or value.uses():
        return False
    source = producer.inputs[0]
    return source is not None and source.dtype == ir.DataType.FLOAT


def _retype(value: ir.Value) -> None:
    """float32 in place of the value's type."""
    if value.dtype not in _OTHER:
        return
    if not isinstance(value.type, ir.TensorType):
        kind = value.dtype.name.lower()
        raise ModelError(f"a {kind} tensor inside a sequence or optional is not supported", where=value.name)
    value.type = ir.TensorType(ir.DataType.FLOAT)


def _convert_tensor(value: ir.Value, edit: Edit) -> None:
    """An initializer's data, converted when it is read where it is large."""
    source = value.const_value
    if source is not None and source.dtype in _OTHER:
        value.const_value = _as_float32(source, value.name, edit)
        edit.touch()


def _as_float32(source: ir.TensorProtocol, name: str | None, edit: Edit) -> ir.TensorProtocol:
    def compute() -> ir.TensorProtocol:
        return ir.Tensor(source.numpy().astype("float32"), name=name)

    if source.nbytes < edit.lazy_above:
        return compute()
    return ir.LazyTensor(compute, dtype=ir.DataType.FLOAT, shape=ir.Shape(tensor_shape(source)), name=name)


def _convert_attributes(node: ir.Node, edit: Edit) -> None:
    """Targets of Cast, element types of generated tensors, constants in attributes."""
    for name, attribute in list(node.attributes.items()):
        if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in _OTHER:
            edit.set_attribute(node, name, _as_float32(attribute.as_tensor(), None, edit))
        elif name in _TYPE_ATTRIBUTES and attribute.type == ir.AttributeType.INT and attribute.as_int() in _OTHER:
            edit.set_attribute(node, name, int(ir.DataType.FLOAT))


def _cast_inputs(graph: ir.Graph, edit: Edit) -> None:
    first = next(iter(graph), None)
    for value in graph.inputs:
        if value.dtype in _OTHER and value.uses() and not _only_cast(value):
            readers = list(value.uses())
            target = {"to": int(ir.DataType.FLOAT)}
            cast = edit.insert("Cast", [value], before=first, attributes=target, name=f"{value.name}_to_float32")
            cast.outputs[0].shape, cast.outputs[0].type = value.shape, ir.TensorType(ir.DataType.FLOAT)
            for use in readers:
                edit.set_input(use.node, use.idx, cast.outputs[0])


def _cast_outputs(graph: ir.Graph, declared: list[ir.DataType | None], edit: Edit) -> None:
    """Bring the outputs, whose values are float32 by now, back to the type that the file declared."""
    for index, (value, dtype) in enumerate(zip(list(graph.outputs), declared, strict=True)):
        if dtype not in _OTHER or value.dtype in _OTHER:
            continue
        public = value.name
        edit.rename(value, f"{public}_float32")
        cast = edit.insert("Cast", [value], attributes={"to": int(dtype)}, name=f"{public}_from_float32", graph=graph)
        result = cast.outputs[0]
        result.name, result.shape, result.type = public, value.shape, ir.TensorType(dtype)
        graph.outputs[index] = result


def _drop_casts(graph: ir.Graph, edit: Edit) -> None:
    """Remove the casts from float32 to float32 that are left."""
    for node in list(graph):
        source, result = node.inputs[0] if node.inputs else None, node.outputs[0]
        is_cast = node.domain == "" and node.op_type == "Cast" and source is not None
        if not is_cast or node.attributes.get_int("to", 0) != ir.DataType.FLOAT or result.is_graph_output():
            continue
        if source is not None and source.dtype == ir.DataType.FLOAT:
            edit.replace_uses(result, source)
            edit.remove(node)
