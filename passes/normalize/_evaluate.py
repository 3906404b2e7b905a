"""Compute one node on constants: layout changes in NumPy (lazily for large weights), the rest in ONNX Runtime."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.errors import ModelError
from qcompiler.ir.constants import array, tensor
from qcompiler.ir.edit import Edit
from qcompiler.ir.transformed import transformed
from qcompiler.passes.normalize._rewrite import integers, static_shape, tensor_shape

__all__ = ["evaluate", "why_not"]

_RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
_QUANTIZATION = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
_GRAPHS = frozenset({ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS})


def why_not(node: ir.Node, limit: int) -> str | None:
    """Why a node on constants is not folded; ``None`` where it may be. ``limit`` is in bytes."""
    if node.domain != "":
        return f"operators of domain {node.domain} are not computed at compile time"
    if node.op_type in _RANDOM:
        return "its result is random"
    if node.op_type in _QUANTIZATION:
        return "quantization is not folded away"
    if any(attribute.type in _GRAPHS for attribute in node.attributes.values()):
        return "it has a body"
    size = _predicted_bytes(node)
    if size is not None and size > limit and size > _source_bytes(node):
        return f"folding would add {size - _source_bytes(node)} bytes to the model"
    return None


def _source_bytes(node: ir.Node) -> int:
    found = (tensor(value) for value in node.inputs)
    return sum(item.nbytes for item in found if item is not None)


def _predicted_bytes(node: ir.Node) -> int | None:
    """Size of the first result without computing it, where its shape is known or one of the inputs tells."""
    output = node.outputs[0]
    shape = static_shape(output)
    itemsize = 4 if output.dtype is None else max(1, int(output.dtype.itemsize))
    if shape is not None:
        return math.prod(shape) * itemsize
    if node.op_type == "ConstantOfShape":
        return int(math.prod(int(size) for size in _items(node, 0))) * itemsize
    first = tensor(node.inputs[0])
    if first is None:
        return None
    if node.op_type in {"Expand", "Tile"}:
        return int(math.prod(int(size) for size in _items(node, 1))) * first.size * itemsize
    if node.op_type == "Range":
        start, end, step = (float(_items(node, index)[0]) for index in range(3))
        return int(max(0.0, (end - start) / step)) * itemsize
    return None


def _items(node: ir.Node, index: int) -> NDArray[Any]:
    found = array(node.inputs[index])
    return np.ones(1) if found is None else found.reshape(-1)


def evaluate(node: ir.Node, edit: Edit) -> list[ir.TensorProtocol] | None:
    """The results of a node whose inputs are all constant; ``None`` where ONNX Runtime cannot compute it."""
    layout = _LAYOUT.get(node.op_type)
    if layout is not None:
        result = layout(node, edit)
        if result is not None:
            return [result]
    return _run(node)


# -- layout changes ------------------------------------------------------------------------------------------------

_Layout: TypeAlias = Callable[[ir.Node, Edit], "ir.TensorProtocol | None"]


def _reshaped(node: ir.Node, edit: Edit) -> ir.TensorProtocol | None:
    """Reshape, Squeeze, Unsqueeze, Flatten: the inferred shape says it all."""
    source, shape = tensor(node.inputs[0]), static_shape(node.outputs[0])
    if source is None or shape is None or math.prod(shape) != source.size or source.dtype == ir.DataType.STRING:
        return None
    return transformed(edit, source, lambda data: data, shape)


def _transposed(node: ir.Node, edit: Edit) -> ir.TensorProtocol | None:
    source = tensor(node.inputs[0])
    if source is None or source.dtype == ir.DataType.STRING:
        return None
    sizes = tensor_shape(source)
    axes = tuple(integers(node, "perm") or range(len(sizes))[::-1])
    return transformed(edit, source, lambda data: data.transpose(axes), [sizes[axis] for axis in axes])


def _cast(node: ir.Node, edit: Edit) -> ir.TensorProtocol | None:
    """Between the usual number types; float → integer only where it is defined (in range, finite)."""
    source = tensor(node.inputs[0])
    target = ir.DataType(node.attributes.get_int("to", 1))
    if source is None or source.dtype not in _PLAIN or target not in _PLAIN or target.is_integer():
        return None
    return transformed(edit, source, lambda data: data.astype(target.numpy()), tensor_shape(source), target)


_PLAIN = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.INT32, ir.DataType.INT64})

_LAYOUT: Mapping[str, _Layout] = {
    "Cast": _cast,
    "Flatten": _reshaped,
    "Reshape": _reshaped,
    "Squeeze": _reshaped,
    "Transpose": _transposed,
    "Unsqueeze": _reshaped,
}


# -- everything else -----------------------------------------------------------------------------------------------


def _run(node: ir.Node) -> list[ir.TensorProtocol] | None:
    """Run the node alone, on the very runtime that will run the model."""
    from qcompiler.ir.execute import Runner

    feeds: dict[str, NDArray[Any]] = {}
    inputs: list[ir.Value | None] = []
    for index, value in enumerate(node.inputs):
        found = tensor(value)
        if found is None:
            inputs.append(None)
            continue
        name = f"input_{index}"
        inputs.append(ir.Value(name=name, shape=ir.Shape(tensor_shape(found)), type=ir.TensorType(found.dtype)))
        feeds[name] = found.numpy()
    outputs = [ir.Value(name=f"output_{index}", type=value.type) for index, value in enumerate(node.outputs)]
    alone = ir.Node(node.domain, node.op_type, inputs, node.attributes.values(), outputs=outputs, name="alone")
    opset = node.graph.opset_imports.get("", 21) if isinstance(node.graph, ir.Graph) else 21
    graph = ir.Graph(
        [value for value in inputs if value is not None], outputs, nodes=[alone], opset_imports={"": opset}, name="fold"
    )
    try:
        results = Runner(ir.Model(graph, ir_version=10), threads=1, optimize=False).run(feeds)
    except ModelError:
        return None
    return [ir.Tensor(np.asarray(results[f"output_{index}"])) for index in range(len(outputs))]
