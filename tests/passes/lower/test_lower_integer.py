from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from qcompiler.errors import PassError
from qcompiler.ir import facts, interop
from qcompiler.ir.edit import Edit
from qcompiler.passes.lower.lower_integer import LowerInteger, lowerings
from qcompiler.pipeline.base import Context, Fact
from qcompiler.quant.annotations import annotation
from qcompiler.target.load import load
from qcompiler.target.schema import Fallback, Target


def lowered(text: str, target: str = "edge-npu") -> tuple[ir.Model, Context]:
    model = ir.from_onnx_text(text)
    ctx = Context(edit=Edit(model), target=load(target))
    LowerInteger().run(model, ctx)
    return model, ctx


def run(model: ir.Model, **feed: np.ndarray) -> list[np.ndarray]:
    proto = interop.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feed)


HEAD = """<ir_version: 10, opset_import: ["" : 21]>
g (float[N,4] x) => (float[N,4] y)
<float s = {0.05}, int8 z = {3}, float s16 = {0.0003}, int16 z16 = {-7}, float t = {0.11}, int8 zt = {-9}>
"""

TWICE = (
    HEAD
    + """{
  a = QuantizeLinear(x, s16, z16)
  b = DequantizeLinear(a, s16, z16)
  c = QuantizeLinear(b, t, zt)
  y = DequantizeLinear(c, t, zt)
}"""
)

SAME = HEAD + "{ a = QuantizeLinear(x, s, z) b = DequantizeLinear(a, s, z) c = QuantizeLinear(b, s, z) "
SAME += "y = DequantizeLinear(c, s, z) }"

ISLAND = (
    HEAD
    + """{
  a = QuantizeLinear(x, s, z)
  b = DequantizeLinear(a, s, z)
  c = Det(b)
  d = Add(b, c)
  e = QuantizeLinear(d, t, zt)
  y = DequantizeLinear(e, t, zt)
}"""
)


def test_codes_that_change_their_scale_are_requantized_as_the_pair_did() -> None:
    model, _ = lowered(TWICE)
    assert [node.op_type for node in model.graph] == ["QuantizeLinear", "Requantize", "DequantizeLinear"]
    x = np.linspace(-12, 12, 4000, dtype=np.float32).reshape(-1, 4)
    before = run(ir.from_onnx_text(TWICE), x=x)[0]
    codes = np.rint((run(model, x=x)[0] - before) / 0.11)
    assert np.abs(codes).max() <= 1
    assert np.mean(codes != 0) < 0.01  # ties: half_up here, half_even there


def test_equal_parameters_need_no_node() -> None:
    model, _ = lowered(SAME)
    assert [node.op_type for node in model.graph] == ["QuantizeLinear", "DequantizeLinear"]


def test_what_codes_mean_is_written_beside_them() -> None:
    model, _ = lowered(TWICE)
    meaning = annotation(model.graph[1].outputs[0])
    assert meaning is not None
    assert (meaning.scale, meaning.zero_point, meaning.of) == (pytest.approx(0.11), -9, "b")
    again = annotation(ir.from_proto(ir.to_proto(model)).graph[1].outputs[0])
    assert again == meaning


def test_a_node_without_integer_form_keeps_its_pairs_and_is_named_with_the_reason() -> None:
    model, ctx = lowered(ISLAND)
    assert "Det" in [node.op_type for node in model.graph]
    assert [node.op_type for node in model.graph].count("DequantizeLinear") == 2
    reasons = {skip.node: skip.reason for skip in ctx.records[-1].skips}
    assert any("Add" in reason for reason in reasons.values())


def test_a_target_without_fallback_refuses_and_says_the_way_out() -> None:
    model = ir.from_onnx_text(ISLAND)
    target = dataclasses.replace(load("edge-npu"), fallback=Fallback.REFUSE)
    with pytest.raises(PassError, match="Det") as caught:
        LowerInteger().run(model, Context(edit=Edit(model), target=target))
    assert "lowering qdq" in (caught.value.hint or "")


def test_the_result_satisfies_what_the_pass_claims() -> None:
    model, _ = lowered(TWICE)
    assert facts.check(Fact.LOWERED, model) == []
    del model.functions[("ai.qcompiler", "Requantize", "")]
    assert any("missing" in sentence for sentence in facts.check(Fact.LOWERED, model))


def shifting() -> Target:
    npu = load("edge-npu")
    return dataclasses.replace(npu, integer=dataclasses.replace(npu.integer, multiplier_bits=0))


def test_a_shift_only_target_multiplies_nothing() -> None:
    target = shifting()
    text = TWICE.replace("{0.0003}", "{0.000244140625}").replace("{0.11}", "{0.125}")
    model = ir.from_onnx_text(text)
    LowerInteger().run(model, Context(edit=Edit(model), target=target))
    assert [node.op_type for node in model.graph][1] == "RequantizeShift"
    body = next(iter(model.functions.values()))
    assert "Mul" not in {node.op_type for node in body}


def test_a_scale_that_is_no_power_of_two_stays_float_on_a_shift_only_target() -> None:
    target = shifting()
    model = ir.from_onnx_text(TWICE)
    ctx = Context(edit=Edit(model), target=target)
    LowerInteger().run(model, ctx)
    assert "power of two" in ctx.records[-1].skips[0].reason


def test_every_lowering_is_for_an_operator_that_onnx_knows() -> None:
    for op_type in lowerings():
        assert onnx.defs.has(op_type, 25), op_type


def test_unsigned_codes_become_signed_ones_that_mean_the_same() -> None:
    text = TWICE.replace("int8 z = {3}, ", "").replace("int8 zt = {-9}", "uint8 zt = {119}")
    text = text.replace("int16 z16 = {-7}", "uint16 z16 = {32761}")
    x = np.linspace(-20, 20, 4000, dtype=np.float32).reshape(-1, 4)
    model, _ = lowered(text)
    assert all(value.dtype is not ir.DataType.UINT8 for node in model.graph for value in node.outputs)
    np.testing.assert_array_equal(run(model, x=x)[0], run(lowered(TWICE)[0], x=x)[0])
