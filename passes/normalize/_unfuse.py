"""Fused operators of ONNX Runtime (domain com.microsoft) back into standard ones.

Models that went through ONNX Runtime's optimizer hold them; no target profile knows them. The simple ones are taken
apart; what remains (Attention, EmbedLayerNormalization, …) stays in float.
Source: ContribOperators.md of ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from qcompiler.ir.edit import AttributeValue, Edit
from qcompiler.ir.patterns import rank
from qcompiler.ir.uses import is_used
from qcompiler.passes.normalize._rewrite import hand_over, replace_node
from qcompiler.pipeline.base import Context

__all__ = ["unfuse"]

_DOMAIN = "com.microsoft"
_ACTIVATIONS = {
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Clip": ("min", "max"),
}
_Rule: TypeAlias = Callable[[ir.Node, Edit], str]


def unfuse(model: ir.Model, ctx: Context) -> None:
    """Take apart every known fused node of the main graph; record the others."""
    left = False
    for node in list(model.graph):
        if node.domain != _DOMAIN:
            continue
        rule = _RULES.get(node.op_type)
        reason = "it has no simple equivalent in standard operators" if rule is None else rule(node, ctx.edit)
        if reason:
            left = True
            ctx.skip(node, f"{reason}; it stays in float")
    in_bodies = any(node.domain == _DOMAIN for node in model.graph.all_nodes())
    if _DOMAIN in model.opset_imports and not left and not in_bodies:
        model.opset_imports.pop(_DOMAIN, None)
        model.graph.opset_imports.pop(_DOMAIN, None)
        ctx.edit.touch()


def _floats(node: ir.Node, name: str) -> list[float]:
    attribute = node.attributes.get(name)
    return [] if attribute is None else [float(item) for item in attribute.as_floats()]


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if len(node.inputs) > index else None


def _before(
    node: ir.Node,
    edit: Edit,
    op_type: str,
    inputs: list[ir.Value | None],
    attributes: Mapping[str, AttributeValue] | None = None,
) -> ir.Value:
    """A helper node in front of ``node``; its result has the type of the node's."""
    value = edit.insert(op_type, inputs, before=node, attributes=attributes, name=f"{node.name}_{op_type}").outputs[0]
    value.type = node.outputs[0].type
    return value


def _with_activation(node: ir.Node, edit: Edit, value: ir.Value) -> str:
    """Let the node end in its ``activation`` of ``value``; the reason where that is not known."""
    kind = node.attributes.get_string("activation", "") or ""
    parameters = _floats(node, "activation_params")
    names = _ACTIVATIONS[kind]
    if kind == "LeakyRelu" and not parameters:
        parameters = [node.attributes.get_float("activation_alpha", 0.01) or 0.01]
    if kind == "Clip":
        dtype = np.float32 if value.dtype is None else value.dtype.numpy()
        limits = zip(names, parameters, strict=False)
        bounds = [edit.constant(f"{node.name}_{name}", np.array(bound, dtype)) for name, bound in limits]
        replace_node(edit, node, "Clip", [value, *bounds])
    else:
        replace_node(edit, node, kind, [value], dict(zip(names, parameters, strict=False)))
    return ""


def _fused(op_type: str, inputs: int, attributes: tuple[str, ...]) -> _Rule:
    """FusedConv and FusedGemm: the operator, then (Conv only) the Add of a fourth input, then the activation."""

    def rule(node: ir.Node, edit: Edit) -> str:
        kind = node.attributes.get_string("activation", "") or ""
        if kind and kind not in _ACTIVATIONS:
            return f"its activation {kind} is unknown"
        kept = {name: node.attributes[name].value for name in attributes if name in node.attributes}
        operands = [_input(node, index) for index in range(inputs)]
        value = _before(node, edit, op_type, operands, kept)
        residual = _input(node, inputs)
        if residual is not None:
            value = _before(node, edit, "Add", [value, residual])
        if kind:
            return _with_activation(node, edit, value)
        hand_over(edit, node.outputs[0], value)
        edit.remove(node)
        return ""

    return rule


def _fused_matmul(node: ir.Node, edit: Edit) -> str:
    """``alpha * A' @ B'`` with optional transposition of the last two axes."""
    if node.attributes.get_int("transBatchA", 0) or node.attributes.get_int("transBatchB", 0):
        return "it transposes batch axes"
    operands: list[ir.Value | None] = []
    for index, flag in enumerate(("transA", "transB")):
        value = node.inputs[index]
        if node.attributes.get_int(flag, 0):
            dimensions = rank(value)
            if dimensions is None or dimensions < 2:
                return "the rank of an operand is not known"
            order = [*range(dimensions - 2), dimensions - 1, dimensions - 2]
            value = _before(node, edit, "Transpose", [value], {"perm": order})
        operands.append(value)
    alpha = node.attributes.get_float("alpha", 1.0) or 0.0
    if alpha == 1.0:
        replace_node(edit, node, "MatMul", operands)
        return ""
    product = _before(node, edit, "MatMul", operands)
    dtype = np.float32 if node.outputs[0].dtype is None else node.outputs[0].dtype.numpy()
    replace_node(edit, node, "Mul", [product, edit.constant(f"{node.name}_alpha", np.array(alpha, dtype))])
    return ""


def _gelu(approximate: str) -> _Rule:
    """Gelu, BiasGelu, FastGelu: Gelu of the input, plus a bias where there is one."""

    def rule(node: ir.Node, edit: Edit) -> str:
        value, bias = node.inputs[0], _input(node, 1)
        if bias is not None:
            value = _before(node, edit, "Add", [value, bias])
        replace_node(edit, node, "Gelu", [value], {"approximate": approximate})
        return ""

    return rule


def _quick_gelu(node: ir.Node, edit: Edit) -> str:
    """``x * sigmoid(alpha * x)``."""
    source = node.inputs[0]
    dtype = np.float32 if node.outputs[0].dtype is None else node.outputs[0].dtype.numpy()
    alpha = edit.constant(f"{node.name}_alpha", np.array(node.attributes.get_float("alpha", 1.702), dtype))
    gate = _before(node, edit, "Sigmoid", [_before(node, edit, "Mul", [source, alpha])])
    replace_node(edit, node, "Mul", [source, gate])
    return ""


def _skip_layer_norm(node: ir.Node, edit: Edit) -> str:
    """LayerNormalization of ``input + skip + bias``; a fourth output is that sum."""
    if any(is_used(output) for output in node.outputs[1:3]):
        return "its mean or variance is used"
    source, skip, gamma, beta, bias = (_input(node, index) for index in range(5))
    if rank(source) != rank(skip):
        return "its skip input is broadcast"
    total = _before(node, edit, "Add", [source, skip])
    if bias is not None:
        total = _before(node, edit, "Add", [total, bias])
    if len(node.outputs) > 3:
        edit.replace_uses(node.outputs[3], total)
    epsilon = node.attributes.get_float("epsilon", 1e-12) or 0.0
    operands = [total, gamma] if beta is None else [total, gamma, beta]
    replace_node(edit, node, "LayerNormalization", operands, {"axis": -1, "epsilon": epsilon})
    return ""


_CONV = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")

_RULES: Mapping[str, _Rule] = {
    "BiasGelu": _gelu("none"),
    "FastGelu": _gelu("tanh"),
    "FusedConv": _fused("Conv", 3, _CONV),
    "FusedGemm": _fused("Gemm", 3, ("alpha", "beta", "transA", "transB")),
    "FusedMatMul": _fused_matmul,
    "Gelu": _gelu("none"),
    "QuickGelu": _quick_gelu,
    "SkipLayerNormalization": _skip_layer_norm,
}
