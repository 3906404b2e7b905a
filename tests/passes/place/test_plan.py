"""What the planner makes of readers of different kinds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from qcompiler.passes.place.plan import plan_value
from qcompiler.quant import state
from qcompiler.quant.format import QFormat
from qcompiler.quant.params import QParams
from qcompiler.quant.state import FLOAT, NodeDecision, TensorQuant

NARROW = TensorQuant(QFormat(8), QParams(np.float32(0.5), np.int32(0)))
WIDE = TensorQuant(QFormat(16), QParams(np.float32(0.25), np.int32(0)))
TEXT = """<ir_version: 10, opset_import: ["" : 21]> g (float[4] x, bool[1] k) => (float[4] y, float[4] z) {
    [a] a = Neg (x)
    [first] p = Mul (a, a)
    [second] q = Add (a, p)
    [third] z = Sub (a, q)
    [branch] y = If (k) <then_branch = t () => (float[4] r) { [inner] r = Neg (a) },
                         else_branch = e () => (float[4] s) { s = Identity (a) }> }"""


def nodes_of(pair) -> list[tuple[str, int]]:
    return [(str(edge.node.name), edge.index) for edge in pair.edges]


def decided(parse: Callable[[str], ir.Model], *, integer: bool) -> ir.Value:
    """``a`` is kept narrow; ``second`` reads it wide, ``third`` real, ``first`` twice as it is."""
    model = parse(TEXT)
    nodes = {node.name: node for node in model.graph}
    value = nodes["a"].outputs[0]
    state.set_node_decision(nodes["a"], NodeDecision(integer, "" if integer else "no kernel"))
    state.set_value_quant(value, NARROW)
    state.set_edge_quant(nodes["second"], 0, WIDE)
    state.set_edge_quant(nodes["third"], 0, FLOAT)
    return value


def test_readers_are_sorted_by_what_they_take(parse: Callable[[str], ir.Model]) -> None:
    for integer in (True, False):
        plan = plan_value(decided(parse, integer=integer))
        assert plan is not None
        assert plan.main is not None
        assert nodes_of(plan.main) == [("first", 0), ("first", 1)]
        assert [nodes_of(pair) for pair in plan.others] == [[("second", 0)]]
        assert plan.after_main is integer


def test_bodies_read_real_numbers(parse: Callable[[str], ir.Model]) -> None:
    """Also without a decision on their edges, which a plan file cannot hold."""
    plan = plan_value(decided(parse, integer=True))
    assert plan is not None
    floating = {edge.node.name for edge in plan.float_edges}
    assert {"third", "inner"} <= floating
    assert "first" not in floating
