"""Small things that every structural pass needs: constants, consumers, replacing a node while keeping its names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from qcompiler.ir.edit import AttributeValue, Edit
from qcompiler.ir.uses import only_use, use_count

__all__ = [
    "consumers",
    "flag",
    "hand_over",
    "integers",
    "only_consumer",
    "own_constant",
    "replace_node",
    "static_shape",
    "tensor_shape",
]


def flag(node: ir.Node, name: str) -> bool:
    """An attribute that is 0 (also where absent) or 1."""
    return node.attributes.get_int(name, 0) != 0


def integers(node: ir.Node, name: str) -> list[int]:
    """An integer-list attribute; empty where it is absent."""
    attribute = node.attributes.get(name)
    return [] if attribute is None else [int(item) for item in attribute.as_ints()]


def tensor_shape(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    """The shape of a tensor as numbers."""
    return tuple(int(size) for size in tensor.shape.numpy())


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape where every dimension is a known number."""
    if value is None or value.shape is None or not value.shape.is_static():
        return None
    return tuple(int(size) for size in value.shape.numpy())


def consumers(value: ir.Value) -> list[tuple[ir.Node, int]]:
    """Every (node, input index) that reads the value, nodes inside If, Loop and Scan bodies included."""
    return [(use.node, use.idx) for use in value.uses()]


def only_consumer(value: ir.Value) -> ir.Node | None:
    """The one node that reads the value once and stands in the same graph; a graph output has none."""
    use = None if value.is_graph_output() else only_use(value)
    return use[0] if use is not None and use[0].graph is value.graph else None


def hand_over(edit: Edit, old: ir.Value, new: ir.Value) -> None:
    """``new`` takes the place and the name of ``old``, whose content it now has.

    A tensor keeps its name as long as its content is the same, so that layers can be compared by name later.
    """
    name, is_output = old.name, old.is_graph_output()
    edit.replace_uses(old, new)
    if is_output or not name or new.name == name or new.is_graph_input() or new.is_graph_output():
        return  # public names are the graph's business
    edit.rename(old, f"{name}_replaced")
    new.name = name


def replace_node(
    edit: Edit,
    node: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    attributes: Mapping[str, AttributeValue] | None = None,
    *,
    domain: str = "",
) -> ir.Node:
    """Put another operator in the place of ``node``; its first output keeps its name, so does the node."""
    new = edit.insert(op_type, inputs, before=node, attributes=attributes, domain=domain, name=f"{node.name}_new")
    output = new.outputs[0]
    output.shape, output.type = node.outputs[0].shape, node.outputs[0].type
    output.meta.update(node.outputs[0].meta)
    output.metadata_props.update(node.outputs[0].metadata_props)
    new.meta.update(node.meta)
    new.metadata_props.update(node.metadata_props)
    hand_over(edit, node.outputs[0], output)
    name = node.name
    fed = list(node.inputs)
    edit.remove(node)
    edit.remove_unused(value for value in fed if value is not None)
    new.name = name
    return new


def own_constant(edit: Edit, node: ir.Node, index: int) -> ir.Value:
    """The constant at input ``index``, copied first where another input reads it too (the data is not duplicated).

    What was decided on it, and what it was in the float model, holds for the copy.
    """
    value = node.inputs[index]
    if value is None or value.const_value is None:
        raise ValueError(f"input {index} of {node.name} is not a constant")
    if use_count(value) == 1 and not value.is_graph_output() and value.graph is node.graph:
        return value
    source = value.const_value
    copy = edit.constant(
        f"{value.name}_{node.name}",
        ir.LazyTensor(lambda: source, dtype=source.dtype, shape=ir.Shape(tensor_shape(source))),
    )
    copy.meta.update(value.meta)
    edit.set_input(node, index, copy)
    return copy
