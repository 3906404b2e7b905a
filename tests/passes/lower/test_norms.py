from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from qcompiler.ir import interop, shapes
from qcompiler.ir.edit import Edit
from qcompiler.passes.lower.lower_integer import LowerInteger
from qcompiler.pipeline.base import Context
from qcompiler.quant.annotations import annotation
from qcompiler.target.legality import check_model
from qcompiler.target.load import load
from qcompiler.target.schema import Target

TEXT = """<ir_version: 11, opset_import: ["" : 23]>
g (float[{batch},3,{row}] x) => (float[{batch},3,{row}] y)
<float s = {{{scale}}}, {kind} z = {{{zero}}}, float t = {{{out}}}, {kind_out} zt = {{{zero_out}}}> {{
  a = QuantizeLinear(x, s, z)
  b = DequantizeLinear(a, s, z)
  c = {op}
  e = QuantizeLinear(c, t, zt)
  y = DequantizeLinear(e, t, zt)
}}"""

LAYER = "LayerNormalization <axis = -1, epsilon = 0.0001> (b, gamma, beta)"
RMS = "RMSNormalization <axis = -1, epsilon = 0.0001> (b, gamma)"
BYTES = {"kind": "int8", "zero": 3, "scale": 0.05, "kind_out": "int8", "zero_out": -9, "out": 0.04}
WORDS = {"kind": "int16", "zero": -70, "scale": 2e-4, "kind_out": "int16", "zero_out": 12, "out": 1.5e-4}


def graph(op: str, gamma: tuple[int, ...] = (16,), batch: str = "N", row: str = "16", **form: object) -> ir.Model:
    model = ir.from_onnx_text(TEXT.format(op=op, batch=batch, row=row, **form))
    random = np.random.default_rng(5)
    for node in model.graph:
        for index, value in enumerate(node.inputs):
            if value is not None and value.name in ("gamma", "beta"):
                value.const_value = ir.tensor(random.normal(size=gamma).astype(np.float32), name=value.name)
                if value.name not in model.graph.initializers:
                    model.graph.register_initializer(value)
                assert node.inputs[index] is value
    shapes.infer(model)
    return model


def lower(model: ir.Model, bits: int = 31) -> list[str]:
    """Lower, and return the reasons of what was not."""
    ctx = Context(edit=Edit(model), target=narrow(bits))
    LowerInteger().run(model, ctx)
    return [skip.reason for record in ctx.records for skip in record.skips]


def run(model: ir.Model, x: np.ndarray) -> np.ndarray:
    proto = interop.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    result: np.ndarray = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )[0]
    return result


@pytest.mark.parametrize("form", [BYTES, WORDS, {**BYTES, **{k: WORDS[k] for k in ("kind_out", "zero_out", "out")}}])
@pytest.mark.parametrize("op", [LAYER, RMS, LAYER.replace(", beta", "")])
def test_codes_are_those_of_the_pairs_within_one(op: str, form: dict[str, object]) -> None:
    x = np.random.default_rng(0).normal(0, 1.5, (40, 3, 16)).astype(np.float32)
    x[0], x[1, :, 1:] = 0.7, -3
    before = run(graph(op, **form), x)
    model = graph(op, **form)
    assert lower(model) == []
    assert [node.op_type for node in model.graph] == [
        "QuantizeLinear",
        "QLayerNormalization" if op is not RMS else "QRMSNormalization",
        "DequantizeLinear",
    ]
    codes = np.rint((run(model, x) - before) / form["out"])
    assert np.abs(codes).max() <= 1
    assert np.mean(codes != 0) < 0.01


def test_an_axis_may_be_counted_from_the_front_and_rows_may_have_two_axes() -> None:
    for op in (LAYER, RMS):
        op = op.replace("axis = -1", "axis = 1")
        x = np.random.default_rng(0).normal(0, 1.5, (10, 3, 16)).astype(np.float32)
        before = run(graph(op, (3, 16), **WORDS), x)
        model = graph(op, (3, 16), **WORDS)
        assert lower(model) == []
        assert list(model.graph[1].attributes["axes"].as_ints()) == [-2, -1]
        assert np.abs(np.rint((run(model, x) - before) / 1.5e-4)).max() <= 1


def test_a_relu_behind_becomes_the_clamp() -> None:
    model = graph(LAYER, **BYTES)
    norm = next(node for node in model.graph if node.op_type == "LayerNormalization")
    Edit(model).insert("Relu", [norm.outputs[0]], after=norm)
    relu = next(node for node in model.graph if node.op_type == "Relu")
    quantizer = next(use.node for use in norm.outputs[0].uses() if use.node.op_type == "QuantizeLinear")
    quantizer.replace_input_with(0, relu.outputs[0])
    shapes.infer(model)
    assert lower(model) == []
    assert model.graph[1].attributes.get_int("low", 0) == -9


def test_the_length_of_a_row_may_come_from_the_factor() -> None:
    model = graph(LAYER, row="K", **BYTES)
    assert lower(model) == []
    assert model.graph[1].attributes.get_int("size", 0) == 16


def test_what_the_codes_mean_is_written_beside_them() -> None:
    model = graph(RMS, **BYTES)
    lower(model)
    meaning = annotation(model.graph[1].outputs[0])
    assert meaning is not None
    assert (meaning.of, meaning.zero_point) == ("c", -9)


@pytest.mark.parametrize("op", [LAYER, RMS])
def test_the_result_is_legal_whatever_the_sign_of_the_factor(op: str) -> None:
    model = graph(op, **BYTES)
    lower(model)
    assert min(model.graph[1].inputs[1].const_value.numpy()) < 0
    assert check_model(model, load("edge-npu")) == []
    assert any("16" in violation.reason for violation in check_model(model, narrow(16)))


def narrow(bits: int) -> Target:
    npu = load("edge-npu")
    return dataclasses.replace(npu, integer=dataclasses.replace(npu.integer, multiplier_bits=bits))


class TestReasons:
    def test_a_row_of_unknown_length(self) -> None:
        assert "not known" in lower(graph(RMS, (1,), row="K", **BYTES))[0]

    def test_a_target_that_only_shifts(self) -> None:
        assert "only shifts" in lower(graph(RMS, **BYTES), bits=0)[0]

    def test_an_output_scale_beyond_the_precision(self) -> None:
        assert "too fine" in lower(graph(LAYER, **{**WORDS, "out": 1e-12}))[0]

    def test_instance_normalization(self) -> None:
        op = "InstanceNormalization (b, gamma, beta)"
        assert "no integer form" in lower(graph(op, (3,), **BYTES))[0]

    def test_a_factor_that_is_computed(self) -> None:
        model = graph(LAYER, **BYTES)
        norm = next(node for node in model.graph if node.op_type == "LayerNormalization")
        noise = Edit(model).insert("RandomNormal", [], attributes={"shape": [16]}, before=norm)
        norm.replace_input_with(1, noise.outputs[0])
        assert any("is float" in reason or "not constant" in reason for reason in lower(model))
