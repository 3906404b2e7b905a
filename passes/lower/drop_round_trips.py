"""drop-round-trips: codes that nothing computes with are no codes.

A plan quantizes what an operator on integers will read or write. Where lowering finds no integer form, the operator
stays float, and a QuantizeLinear between two such operators only rounds: its codes go into DequantizeLinear nodes and
nowhere else. The float nodes then read the numbers themselves: they lose nothing, and what follows the last integer
operator is float to the end, as it would be on any device that falls back to a processor with floats. A Relu or Clip
that ``place-qdq`` removed because the codes saturate like it comes back: numbers do not saturate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import onnx_ir as ir

from qcompiler.ir import constants
from qcompiler.ir.operators import has_type
from qcompiler.ir.uses import only_use
from qcompiler.pipeline.base import Context, Fact, Pass
from qcompiler.quant import state
from qcompiler.quant.format import QFormat
from qcompiler.quant.state import Clamp

__all__ = ["DropRoundTrips"]

_NARROW: Final = frozenset(
    (form.minimum, form.maximum)
    for bits in range(2, 8)
    for form in (QFormat(bits), QFormat(bits, signed=False), QFormat(bits, narrow=True))
)
"""Least and greatest code of formats whose codes are kept in bytes."""


@dataclass(frozen=True)
class DropRoundTrips(Pass):
    """Let float nodes read numbers directly where codes between them are only rounded to and back."""

    name: ClassVar[str] = "drop-round-trips"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.LOWERED})

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Apply; see the module."""
        for node in list(model.graph):
            if has_type(node, "QuantizeLinear") and _only_dequantized(node):
                _bypass(node, ctx)


def _only_dequantized(node: ir.Node) -> bool:
    """Whether every reader of the codes turns them back with the same scale and zero point."""
    codes = _codes(node)
    uses = list(codes.uses())
    return (
        bool(uses)
        and not codes.is_graph_output()
        and all(
            use.idx == 0
            and has_type(use.node, "DequantizeLinear")
            and use.node.graph is node.graph
            and all(_same(node, use.node, index) for index in (1, 2))
            for use in uses
        )
    )


def _codes(node: ir.Node) -> ir.Value:
    """The codes that readers see: those of less than 8 bits are clipped first.

    A Clip to anything but the ends of such a format is one of the model, which stays.
    """
    codes = node.outputs[0]
    use = only_use(codes)
    if use is None or codes.is_graph_output() or not has_type(use[0], "Clip"):
        return codes
    ends = tuple(constants.scalar(value) for value in use[0].inputs[1:])
    return use[0].outputs[0] if ends in _NARROW else codes


def _same(first: ir.Node, second: ir.Node, index: int) -> bool:
    """Whether two nodes have the same constant there, or both nothing."""
    values = [node.inputs[index] if index < len(node.inputs) else None for node in (first, second)]
    if values[0] is values[1]:
        return True
    arrays = [constants.array(value) for value in values]
    return arrays[0] is not None and arrays[1] is not None and bool(np.array_equal(arrays[0], arrays[1]))


def _bypass(node: ir.Node, ctx: Context) -> None:
    source, codes = node.inputs[0], _codes(node)
    if source is None:
        return
    if (clamp := state.absorbed_clamp(node)) is not None:
        source = _clamped(source, clamp, node, ctx)
    readers = [use.node for use in codes.uses()]
    for reader in readers:
        ctx.edit.replace_uses(reader.outputs[0], source)
    ctx.edit.remove_unused([reader.outputs[0] for reader in readers])


def _clamped(source: ir.Value, clamp: Clamp, before: ir.Node, ctx: Context) -> ir.Value:
    """``source`` through the Relu or Clip that stood before a QuantizeLinear; its result gets the name back.

    What computes ``source`` took that name over, unless a round trip before it is gone too.
    """
    inputs: list[ir.Value | None] = [source]
    relu = (clamp.low, clamp.high) == (0.0, None)
    for name, end in () if relu else (("least", clamp.low), ("greatest", clamp.high)):
        number = None if end is None else np.array(end, np.float32)
        inputs.append(None if number is None else ctx.edit.constant(f"{clamp.node}_{name}", number))
    if source.name == clamp.result:
        ctx.edit.rename(source, f"{clamp.result}_before_{clamp.node}")
    node = ctx.edit.insert("Relu" if relu else "Clip", inputs, before=before, name=clamp.node)
    node.name, node.outputs[0].name = clamp.node, clamp.result  # nobody else's since they were removed
    node.outputs[0].shape, node.outputs[0].type = source.shape, source.type
    return node.outputs[0]
