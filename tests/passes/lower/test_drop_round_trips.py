from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.analysis.integer_only import integer_only
from qcompiler.ir import facts
from qcompiler.ir.edit import Edit
from qcompiler.passes.lower.drop_round_trips import DropRoundTrips
from qcompiler.passes.lower.lower_integer import LowerInteger
from qcompiler.passes.place.place_qdq import place
from qcompiler.pipeline.base import Context, Fact
from qcompiler.quant import state
from qcompiler.quant.format import QFormat
from qcompiler.quant.functions.catalogue import attach
from qcompiler.quant.params import QParams
from qcompiler.quant.state import NodeDecision, TensorQuant
from qcompiler.runtime import interpret
from qcompiler.target.load import load

Parse = Callable[[str], ir.Model]
HEAD = """<ir_version: 10, opset_import: ["" : 21, "ai.qcompiler" : 1]>
m (float[1,4] x) => (float[1,4] y)
<float s = {0.1}, float t = {0.25}, int8 z = {1}, int8 zz = {1}, int32 b = {1073741824}, uint8 c = {30}> {
  q = QuantizeLinear(x, s, z)
  r = ai.qcompiler.Requantize<x_zero_point=1, y_zero_point=1, to=3, low=-128, high=127>(q, b, c)
  d = DequantizeLinear(r, s, z)
  [sine] e = Sin(d)
"""
FEED = {"x": np.array([[-1.0, 0.33, 0.5, 2.0]], np.float32)}


def run(parse: Parse, *lines: str) -> tuple[ir.Model, int]:
    model = parse(HEAD + "\n".join(lines) + "\n}")
    attach(model)
    ctx = Context(Edit(model))
    DropRoundTrips().run(model, ctx)
    assert facts.check(Fact.LOWERED, model) == []
    return model, ctx.edit.count


def types(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_float_nodes_behind_each_other_read_numbers(parse: Parse) -> None:
    model, _ = run(
        parse,
        "f = QuantizeLinear(e, s, z)",
        "g = DequantizeLinear(f, s, zz)",
        "h = DequantizeLinear(f, s, z)",
        "[product] i = Mul(g, h)",
        "j = QuantizeLinear(i, t, z)",
        "y = DequantizeLinear(j, t, z)",
    )
    assert types(model) == ["QuantizeLinear", "Requantize", "DequantizeLinear", "Sin", "Mul"]
    assert model.graph.outputs[0].name == "y"
    assert integer_only(model).holds
    assert [node.name for node in integer_only(model).tail] == ["sine", "product"]
    real = interpret(model, FEED)[0]
    np.testing.assert_allclose(real, np.sin(np.array([[-1.0, 0.3, 0.5, 2.0]])) ** 2, atol=1e-6)


def test_codes_that_something_reads_stay(parse: Parse) -> None:
    rescale = "ai.qcompiler.Requantize<x_zero_point=1, y_zero_point=1, to=3, low=-128, high=127>"
    _, edits = run(
        parse,
        "f = QuantizeLinear(e, s, z)",
        f"o = {rescale}(f, b, c)",
        "g = DequantizeLinear(f, s, z)",
        "h = DequantizeLinear(o, s, z)",
        "y = Add(g, h)",
    )
    assert edits == 0


def test_another_scale_is_a_computation(parse: Parse) -> None:
    _, edits = run(parse, "f = QuantizeLinear(e, s, z)", "y = DequantizeLinear(f, t, z)")
    assert edits == 0


def test_codes_that_leave_the_graph_stay(parse: Parse) -> None:
    model = parse(
        (HEAD + "f = QuantizeLinear(e, s, z)\n y = DequantizeLinear(f, s, z)\n}").replace(
            "(float[1,4] y)", "(float[1,4] y, int8[1,4] f)"
        )
    )
    ctx = Context(Edit(model))
    DropRoundTrips().run(model, ctx)
    assert ctx.edit.count == 0


@pytest.mark.parametrize(
    ("clamp", "form", "scale", "low", "high"),
    [
        ("Relu(a)", "i8", 0.01, 0.0, np.inf),
        ("Relu(a)", "i4", 0.1, 0.0, np.inf),
        ("Clip(a, zero, half)", "i8", 0.5 / 255, 0.0, 0.5),
        ("Clip(a, , half)", "i8", 0.5 / 127, -np.inf, 0.5),
    ],
)
def test_a_clamp_that_the_codes_did_comes_back_with_the_numbers(
    parse: Parse, clamp: str, form: str, scale: float, low: float, high: float
) -> None:
    """Saturation made it superfluous, and no integer operator writes or reads the codes."""
    model = parse(
        f"""<ir_version: 10, opset_import: ["" : 21]> m (float[N] x) => (float[N] y)
        <float zero = {{0.0}}, float half = {{0.5}}> {{ [sine] a = Sin(x) [clamp] b = {clamp} [cosine] y = Cos(b) }}"""
    )
    for node in model.graph:
        state.set_node_decision(node, NodeDecision(True))
    quant = QFormat.parse(form)
    zero = quant.minimum if low == 0 else 0
    params = QParams(np.asarray(scale, np.float32), np.asarray(zero, np.int32))
    state.set_value_quant(model.graph.node(1).outputs[0], TensorQuant(quant, params))
    ctx = Context(Edit(model), target=load("edge-npu"))
    place(model, ctx.edit)
    assert not {"Relu"} & set(types(model))
    for item in (LowerInteger(), DropRoundTrips()):
        item.run(model, ctx)
    assert types(model) == ["Sin", clamp.partition("(")[0], "Cos"]
    assert model.graph.node(1).name == "clamp"
    assert [model.graph.node(index).outputs[0].name for index in (1, 2)] == ["b", "y"]
    x = np.linspace(-3, 3, 50, dtype=np.float32)
    np.testing.assert_allclose(interpret(model, {"x": x})[0], np.cos(np.clip(np.sin(x), low, high)), atol=1e-6)


def test_a_clamp_that_comes_back_renames_no_input_of_the_model(parse: Parse) -> None:
    """No multiplier takes codes of such a scale to codes of the other: the round trip before the clamp goes too."""
    model = parse(
        """<ir_version: 10, opset_import: ["" : 21]> m (float[N] x) => (float[N] y) { b = Relu(x)  y = Cos(b) }"""
    )
    for node in model.graph:
        state.set_node_decision(node, NodeDecision(True))
    values = (model.graph.inputs[0], 1e4, 0), (model.graph.node(0).outputs[0], 1e-6, -128)
    for value, scale, zero in values:
        params = QParams(np.asarray(scale, np.float32), np.asarray(zero, np.int32))
        state.set_value_quant(value, TensorQuant(QFormat(8), params))
    ctx = Context(Edit(model), target=load("edge-npu"))
    place(model, ctx.edit)
    assert types(model) == ["QuantizeLinear", "DequantizeLinear"] * 2 + ["Cos"]
    for item in (LowerInteger(), DropRoundTrips()):
        item.run(model, ctx)
    assert types(model) == ["Relu", "Cos"]
    assert [str(value.name) for value in model.graph.inputs] == ["x"]
    assert [str(node.outputs[0].name) for node in model.graph] == ["b", "y"]
