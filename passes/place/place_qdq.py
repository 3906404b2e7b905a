"""place-qdq: the only pass that turns decisions into QuantizeLinear and DequantizeLinear nodes.

A tensor with a ``log`` format gets 16-bit codes, and between them and their DequantizeLinear the operators that put
them on the grid and read its table: ``QuantizeLinear, QLogQuantize, QLogDequantize, DequantizeLinear``.

Besides the pairs that the planner lists it stores biases of integer nodes as int32 at ``s_x * s_w``, and keeps
nodes that were left in float out of reach of ONNX Runtime's WeightBiasQuantization (see ``Applier.exact_bias``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from qcompiler.ir import constants
from qcompiler.ir.edit import Edit
from qcompiler.ir.operators import has_type
from qcompiler.ir.uses import only_use
from qcompiler.passes.place.apply import Applier
from qcompiler.passes.place.biases import bias_scale, float_bias, needs_shield
from qcompiler.passes.place.plan import Edge, plan_values
from qcompiler.pipeline.base import Context, Fact, Pass
from qcompiler.quant import state
from qcompiler.quant.functions import catalogue
from qcompiler.quant.operators import BIAS_INPUT

__all__ = ["PlaceQdq", "place"]


@dataclass(frozen=True)
class PlaceQdq(Pass):
    """Insert Q/DQ pairs, store weights and biases as integers."""

    name: ClassVar[str] = "place-qdq"
    before: ClassVar[frozenset[Fact]] = frozenset({Fact.QDQ})
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.FORMATS, Fact.CALIBRATED})
    provides: ClassVar[frozenset[Fact]] = frozenset({Fact.QDQ})

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Materialise every decision of the main graph."""
        place(model, ctx.edit)


def place(model: ir.Model, edit: Edit) -> None:
    """Materialise every decision of the main graph of ``model``."""
    graph = model.graph
    applier = Applier(edit, graph)
    # Scales of biases and float nodes are read off the decisions, so before any edge is rewired.
    biases = [(Edge(node, BIAS_INPUT), scale) for node in graph if (scale := bias_scale(node)) is not None]
    _lift_vectors(graph, edit)
    shielded = [node for node in graph if needs_shield(node)]
    for plan in plan_values(graph):
        applier.apply(plan)
    for edge, scale in biases:
        applier.bias_pair(edge, scale)
    for node in shielded:
        applier.exact_bias(Edge(node, BIAS_INPUT), float_bias(node), f"{node.name}_bias")
    catalogue.attach(model)


def _lift_vectors(graph: ir.Graph, edit: Edit) -> None:
    """Give the vector that is added behind a matrix product of fixed shape the rank of the product.

    ONNX Runtime turns MatMul + Add of a vector into a Gemm *before* it looks for Q/DQ groups: the product then stays
    float, or loses its float weights to WeightBiasQuantization, or (int8, rank 3) fails to load. A bias of shape
    ``(1, …, 1, N)`` broadcasts alike and is left alone.
    """
    for node in graph:
        use = only_use(node.outputs[0]) if has_type(node, "MatMul") else None
        if use is None or not has_type(use[0], "Add") or use[0].graph is not graph:
            continue
        add, index = use[0], 1 - use[1]
        bias, shape = add.inputs[index], node.outputs[0].shape
        content = constants.array(bias)
        if bias is None or content is None or content.ndim != 1 or shape is None or not shape.is_static():
            continue
        lifted = edit.constant(f"{bias.name}_row", content.reshape([1] * (len(shape) - 1) + [-1]))
        state.set_value_quant(lifted, state.value_quant(bias))
        edit.set_input(add, index, lifted)
        edit.remove_unused([bias])
