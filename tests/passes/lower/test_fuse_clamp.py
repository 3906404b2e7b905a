from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.ir.edit import Edit
from qcompiler.passes.lower.fuse_clamp import FuseClamp
from qcompiler.pipeline.base import Context
from qcompiler.quant.annotations import annotation
from tests.passes.lower.graphs import Parameters, feed_of, graph, lower, operators, reasons, run

A = Parameters(0.043, -9)
Y = Parameters(0.06, 20)


def clamped(body: str, held: dict[str, Any] | None = None) -> tuple[ir.Model, Context]:
    """``s = Add (a, b)`` in codes, then ``body`` on its own Q/DQ of the same parameters; checked to be exact."""
    inputs = {"a": ((4, 60), A), "b": ((60,), A)}
    pair = "s_q = QuantizeLinear (s, y__scale, y__zero) t = DequantizeLinear (s_q, y__scale, y__zero) "
    model = graph("s = Add (a, b) " + pair + body, inputs, {"y": Y}, held)
    lower(model)
    feed = feed_of(inputs, np.random.default_rng(0))
    wanted = run(model, feed)[0]
    ctx = Context(edit=Edit(model))
    FuseClamp().run(model, ctx)
    np.testing.assert_array_equal(run(model, feed)[0], wanted)
    assert len(np.unique(wanted)) > 3
    return model, ctx


def bounds(model: ir.Model) -> tuple[int, int]:
    (node,) = [node for node in model.graph if node.op_type == "QAdd"]
    return node.attributes["low"].as_int(), node.attributes["high"].as_int()


@pytest.mark.parametrize(
    ("body", "held", "wanted"),
    [
        ("y = Relu (t)", {}, (20, 127)),
        ("y = Clip (t, l, h)", {"l": np.float32(-1.2), "h": np.float32(3.0)}, (0, 70)),
        ("y = Clip (t, , h)", {"h": np.float32(3.0)}, (-128, 70)),
        ("y = Min (t, h)", {"h": np.float32(3.0)}, (-128, 70)),
        ("y = Max (l, t)", {"l": np.float32(-1.2)}, (0, 127)),
    ],
)
def test_a_clamp_behind_an_operator_becomes_its_bounds(
    body: str, held: dict[str, Any], wanted: tuple[int, int]
) -> None:
    model, ctx = clamped(body, held)
    assert operators(model) == ["QAdd"]
    assert bounds(model) == wanted
    assert reasons(ctx) == []
    (node,) = [node for node in model.graph if node.op_type == "QAdd"]
    meaning = annotation(node.outputs[0])
    assert meaning is not None
    assert meaning.of == "y"


def test_chains_merge() -> None:
    pair = "r_q = QuantizeLinear (r, y__scale, y__zero) u = DequantizeLinear (r_q, y__scale, y__zero) "
    model, _ = clamped("r = Relu (t) " + pair + "y = Min (u, h)", {"h": np.float32(3.0)})
    assert operators(model) == ["QAdd"]
    assert bounds(model) == (20, 70)


def test_codes_that_others_read_keep_their_clamp() -> None:
    pair = "r_q = QuantizeLinear (r, y__scale, y__zero) u = DequantizeLinear (r_q, y__scale, y__zero) "
    model, ctx = clamped("r = Relu (t) " + pair + "y = Mul (u, t)")
    assert operators(model) == ["QAdd", "Clip", "QMul"]
    assert any("other readers" in reason for reason in reasons(ctx))


@pytest.mark.parametrize("op", ["Relu (c)", "Min (c, k)", "Max (k, c)", "Clip (c, k)"])
def test_standard_clamps_of_codes_by_hand(op: str) -> None:
    """Clamps that a model already had on its codes, constants of one element included."""
    model = graph("y = Add (a, a)", {"a": ((2, 30), A)}, {"y": Y}, {})
    lower(model)
    (add,) = [node for node in model.graph if node.op_type == "QAdd"]
    edit = Edit(model)
    kind, names = op.split(" (")[0], op.split("(")[1].strip(")").split(", ")
    constant = edit.constant("k", np.array([7] if kind != "Clip" else 7, np.int8))
    node = edit.insert(kind, [add.outputs[0] if name == "c" else constant for name in names], after=add)
    node.outputs[0].type, node.outputs[0].shape = add.outputs[0].type, add.outputs[0].shape
    for use in list(add.outputs[0].uses()):
        if use.node is not node:
            edit.set_input(use.node, use.idx, node.outputs[0])
    feed = {"in_a": np.linspace(-6, 6, 60, dtype=np.float32).reshape(2, 30)}
    wanted = run(model, feed)[0]
    FuseClamp().run(model, Context(edit=edit))
    np.testing.assert_array_equal(run(model, feed)[0], wanted)
    assert operators(model) == ["QAdd"]


def test_a_comparison_that_widens_its_operand_is_no_clamp() -> None:
    model, _ = clamped("y = Min (t, h)", {"h": np.full((1, 1, 1), 3.0, np.float32)})
    assert "Min" in operators(model)
