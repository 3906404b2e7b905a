"""Every layer its own bias, and a weight its own tensor for each way of reading it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, TypeAlias

import onnx_ir as ir

from qcompiler.ir.constants import is_constant
from qcompiler.ir.operators import has_type
from qcompiler.ir.patterns import producer
from qcompiler.ir.uses import use_count
from qcompiler.passes.normalize._rewrite import consumers, own_constant
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves

__all__ = ["UnshareBiases"]

_WITH_BIAS = ("Conv", "ConvTranspose", "Gemm")
_Role: TypeAlias = tuple[str, int]
_BIAS: Final[_Role] = ("bias", 0)


@dataclass(frozen=True)
class UnshareBiases(Pass):
    """Give each Conv, ConvTranspose, Gemm, and each Add behind a MatMul, its own bias; split weights by role.

    A bias is quantized with the scales of its own layer's input and weight, so two layers cannot share one. A weight
    can be shared by layers that read its channels along the same axis; where the axis differs (a tied embedding:
    Gather and MatMul), the later role gets its own tensor. Data is not copied until one of them changes.
    """

    name: ClassVar[str] = "unshare-biases"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.CANONICAL})
    preserves: ClassVar[Preserves] = Preserves.EXACT

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Apply; see the class."""
        for value in list(model.graph.initializers.values()):
            if is_constant(value) and (use_count(value) > 1 or value.is_graph_output()):
                _unshare(value, ctx)


def _unshare(value: ir.Value, ctx: Context) -> None:
    """One initializer: the first role keeps it, each bias after the first and each other role gets a copy.

    Where the graph gives it away or anything else reads it, no bias keeps it: biases are corrected later.
    """
    readers = [(node, index, _role(node, index)) for node, index in consumers(value)]
    seen_by_others = value.is_graph_output() or any(role is None for _, _, role in readers)
    kept: _Role | None = None
    copies: dict[_Role, ir.Value] = {}
    for node, index, role in readers:
        if role is None:
            continue
        if role == _BIAS and (seen_by_others or kept is not None):
            own_constant(ctx.edit, node, index)
        elif kept is None:
            kept = role
        elif role in copies:
            ctx.edit.set_input(node, index, copies[role])
        elif role != kept:
            copies[role] = own_constant(ctx.edit, node, index)


def _role(node: ir.Node, index: int) -> _Role | None:
    """How a node reads a constant: as a bias, or as a weight with its channels on an axis; ``None`` for all else.

    What a body of If, Loop or Scan does with it is none of these.
    """
    value = node.inputs[index]
    if value is None or node.graph is not value.graph:
        return None
    if has_type(node, *_WITH_BIAS) and index == 2:
        return _BIAS
    if has_type(node, "Add") and any(producer(value, "MatMul") for value in node.inputs):
        return _BIAS
    if index == 1 and has_type(node, "Conv"):
        return ("weight", 0)
    if index == 1 and has_type(node, "ConvTranspose"):
        return ("weight", 1)
    if index == 1 and has_type(node, "MatMul"):
        return ("weight", -1)
    if index == 1 and has_type(node, "Gemm"):
        return ("weight", 0 if node.attributes.get_int("transB", 0) else -1)
    if index == 0 and has_type(node, "Gather"):
        return ("table", 0)
    return None
