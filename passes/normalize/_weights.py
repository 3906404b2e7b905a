"""Weights in all their guises become initializers: overridable inputs, Constant and ConstantOfShape nodes."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from qcompiler.ir.constants import array
from qcompiler.ir.edit import Edit
from qcompiler.ir.operators import has_type
from qcompiler.passes.normalize._rewrite import hand_over
from qcompiler.pipeline.base import Context

__all__ = ["inputs_without_initializers", "lift_constants"]


def inputs_without_initializers(model: ir.Model, ctx: Context) -> None:
    """Take initializers out of the graph inputs (IR 3 listed them there): a compiled model's weights are fixed."""
    graph = model.graph
    model.ir_version = max(model.ir_version, 4)  # the first version that allows it; shape inference insists
    listed = [value for value in graph.inputs if value.is_initializer()]
    if not listed:
        return
    kept = [value for value in graph.inputs if not value.is_initializer()]
    graph.inputs.clear()
    graph.inputs.extend(kept)
    ctx.edit.touch()
    ctx.note(f"{len(listed)} initializer(s) were also graph inputs; their values are now fixed")


def lift_constants(model: ir.Model, ctx: Context, limit: int) -> None:
    """Constant and ConstantOfShape nodes of the main graph → initializers; ``limit`` bytes at most for the latter."""
    for node in list(model.graph):
        if has_type(node, "Constant"):
            tensor = _constant_tensor(node)
        elif has_type(node, "ConstantOfShape"):
            tensor = _filled_tensor(node, ctx, limit)
        else:
            continue
        if tensor is None:
            if node.op_type == "Constant":
                ctx.skip(node, "a sparse constant is left as it is")
            continue
        _replace(node, tensor, ctx.edit)


def _replace(node: ir.Node, tensor: ir.TensorProtocol, edit: Edit) -> None:
    output = node.outputs[0]
    fed = [value for value in node.inputs if value is not None]
    hand_over(edit, output, edit.constant(str(output.name), tensor))
    edit.remove(node)
    edit.remove_unused(fed)


def _constant_tensor(node: ir.Node) -> ir.TensorProtocol | None:
    """The content of a Constant node; ``None`` for a sparse one."""
    name, attribute = next(iter(node.attributes.items()), ("", None))
    if attribute is None or name == "sparse_value":
        return None
    if name == "value":
        return attribute.as_tensor()
    if name in {"value_string", "value_strings"}:
        texts = [attribute.as_string()] if name == "value_string" else list(attribute.as_strings())
        encoded = [text.encode() for text in texts]
        return ir.StringTensor(encoded, shape=ir.Shape([] if name == "value_string" else [len(texts)]))
    return ir.Tensor(np.array(attribute.value, np.float32 if "float" in name else np.int64))


def _filled_tensor(node: ir.Node, ctx: Context, limit: int) -> ir.TensorProtocol | None:
    """The content of a ConstantOfShape whose shape is constant, made only when it is read."""
    sizes = array(node.inputs[0])
    if sizes is None:
        return None
    shape = [int(size) for size in sizes]
    attribute = node.attributes.get("value")
    fill = np.zeros(1, np.float32) if attribute is None else attribute.as_tensor().numpy().reshape(-1)
    if math.prod(shape) * fill.dtype.itemsize > limit:
        ctx.skip(node, f"its result of {math.prod(shape) * fill.dtype.itemsize} bytes is above constant_limit")
        return None
    return ir.LazyTensor(
        lambda: ir.Tensor(np.full(shape, fill[0], fill.dtype)),
        dtype=ir.DataType.from_numpy(fill.dtype),
        shape=ir.Shape(shape),
    )
