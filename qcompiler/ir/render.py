"""Canonical text of a model: one line per node, stable across runs, readable in a diff.

::

    model ir=10 opset=21
    graph small(%x: float32[N,3,8,8]) -> (%y: float32[N,10])
      %w: int8[8,3,3,3] #5f2a77c1
      conv: %a: float32[N,8,8,8]{u8 s=0.05 zp=3} = Conv(%x, %w{float}, %b) pads=[1, 1, 1, 1] !integer

Decisions stand in braces after the value that carries them, or after an operand where the edge has its own; what was
decided on a node stands after ``!``. What codes of an integer graph mean stands in angle brackets: ``<of s=… zp=…>``.
Weights are shown by a digest of their bytes, or by value up to 8 elements.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Literal

import numpy as np
import onnx_ir as ir

from qcompiler.quant import state
from qcompiler.quant.annotations import annotation
from qcompiler.quant.params import QParams
from qcompiler.quant.state import TensorQuant

__all__ = ["digest", "render"]

_OWN_DOMAIN = "ai.qcompiler"
_SHORT = 8
_DIGEST = "qcompiler.digest"


def render(model: ir.Model, *, weights: Literal["digest", "shape"] = "digest") -> str:
    """The model as canonical text.

    Args:
        model: The model; its quantization state is shown.
        weights: ``digest`` reads every weight once; ``shape`` reads none but the shortest.
    """
    imports = " ".join(f"{domain or 'opset'}={version}" for domain, version in sorted(model.opset_imports.items()))
    lines = [f"model ir={model.ir_version} {imports}".rstrip()]
    lines += _graph_lines(model.graph, "graph", weights, "")
    for function in model.functions.values():
        head = ", ".join(_value(value) for value in function.inputs)
        results = ", ".join(_value(value) for value in function.outputs)
        body = [line for node in function for line in _node_lines(node, weights, "  ")]
        line = f"function {function.domain}::{function.name}({head}) -> ({results})"
        ours = function.domain == _OWN_DOMAIN  # defined by the operator set, and long: a digest says enough
        lines += [f"{line} #{_text_digest(body)}"] if ours else [line, *body]
    return "\n".join(lines) + "\n"


def digest(tensor: ir.TensorProtocol) -> str:
    """Eight hexadecimal digits that depend on the bytes of a tensor; kept on the tensor, which is immutable."""
    known: str | None = tensor.meta.get(_DIGEST)
    if known is None:
        data = repr(tensor.numpy().tolist()).encode() if tensor.dtype == ir.DataType.STRING else tensor.tobytes()
        known = hashlib.sha256(data).hexdigest()[:8]
        tensor.meta[_DIGEST] = known
    return known


def _text_digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:8]


def _graph_lines(graph: ir.Graph, kind: str, weights: str, indent: str) -> Iterator[str]:
    head = ", ".join(_value(value) for value in graph.inputs)
    results = ", ".join(_value(value) for value in graph.outputs)
    yield f"{indent}{kind} {graph.name or 'unnamed'}({head}) -> ({results})"
    for value in graph.initializers.values():
        tensor = value.const_value
        yield f"{indent}  {_value(value)} {_content(tensor, weights) if tensor is not None else '?'}"
    for node in graph:
        yield from _node_lines(node, weights, indent + "  ")


def _node_lines(node: ir.Node, weights: str, indent: str) -> Iterator[str]:
    graphs: list[tuple[str, ir.Graph]] = []
    attributes = []
    for name, attribute in sorted(node.attributes.items()):
        if not attribute.is_ref() and attribute.type == ir.AttributeType.GRAPH:
            graphs.append((name, attribute.as_graph()))
        elif not attribute.is_ref() and attribute.type == ir.AttributeType.GRAPHS:
            graphs += [(f"{name}[{index}]", graph) for index, graph in enumerate(attribute.as_graphs())]
        else:
            attributes.append(f" {name}={_attribute(attribute, weights)}")
    operator = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    outputs = ", ".join(_value(value) for value in node.outputs)
    inputs = ", ".join(_operand(node, index) for index in range(len(node.inputs)))
    name = f"{node.name}: " if node.name else ""
    yield f"{indent}{name}{outputs} = {operator}({inputs}){''.join(attributes)}{_decision(node)}"
    for label, graph in graphs:
        yield from _graph_lines(graph, label, weights, indent + "  ")


def _value(value: ir.Value) -> str:
    """Name, type, shape and decision of a value."""
    text = f"%{value.name}"
    if value.type is not None:
        dtype = value.dtype
        text += f": {dtype.name.lower() if dtype is not None else value.type}"
        text += f"[{','.join(_dimension(size) for size in value.shape)}]" if value.shape is not None else "[...]"
    meaning = annotation(value)
    if meaning is not None:
        text += f"<{meaning.of} s={meaning.scale:.9g} zp={meaning.zero_point}>"
    quant = state.value_quant(value)
    return text if quant is None else f"{text}{{{_quant(quant)}}}"


def _dimension(size: int | ir.SymbolicDim) -> str:
    return str(size) if isinstance(size, int) else str(size.value or "?")


def _operand(node: ir.Node, index: int) -> str:
    value = node.inputs[index]
    text = f"%{value.name}" if value is not None else "-"
    own = state.own_edge_quant(node, index)
    if own is None:
        return text
    return f"{text}{{{_quant(own) if isinstance(own, TensorQuant) else own.value}}}"


def _quant(quant: TensorQuant) -> str:
    parts = [str(quant.format)]
    parts += [_params(quant.params)] if quant.params is not None else []
    parts += [f"tie={quant.tie}"] if quant.tie is not None else []
    return " ".join(parts)


def _params(params: QParams) -> str:
    """Scale and zero point; several are abbreviated to their range, with a digest that tells them apart."""
    if params.grid is not None:
        return f"grid={params.grid}"
    scale, zero = params.scale.ravel(), params.zero_point.ravel()
    if scale.size == 1:
        return f"s={scale[0]:.9g} zp={zero[0]}"
    both = hashlib.sha256(scale.tobytes() + zero.tobytes()).hexdigest()[:8]
    return f"s={scale.min():.9g}..{scale.max():.9g} zp={zero.min()}..{zero.max()} #{both}"


def _content(tensor: ir.TensorProtocol, weights: str) -> str:
    if tensor.size <= _SHORT:
        return f"= {_short(tensor)}"
    return f"#{digest(tensor)}" if weights == "digest" else "..."


def _short(tensor: ir.TensorProtocol) -> str:
    array = tensor.numpy()
    if array.dtype.kind == "f":
        text = np.array2string(array, separator=", ", max_line_width=10**6, formatter={"all": lambda x: f"{x:.9g}"})
        return " ".join(text.split())
    return str(array.tolist())


def _attribute(attribute: ir.Attr, weights: str) -> str:
    if attribute.is_ref():
        return f"@{attribute.ref_attr_name}"
    if attribute.type == ir.AttributeType.TENSOR:
        tensor = attribute.as_tensor()
        shape = ",".join(str(size) for size in tensor.shape)
        return f"{tensor.dtype.name.lower()}[{shape}] {_content(tensor, weights)}"
    value = attribute.value
    if isinstance(value, float):
        return f"{value:.9g}"
    if isinstance(value, str | int):
        return str(value)
    return str(list(value)) if isinstance(value, tuple | list) else str(value)


def _decision(node: ir.Node) -> str:
    decision = state.node_decision(node)
    if decision is None:
        return ""
    return " !integer" if decision.integer else f" !float: {decision.reason}"
