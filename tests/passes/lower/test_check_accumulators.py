"""No input may overflow an accumulator: layers are narrowed until that is proven, or refused by name."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from qcompiler.analysis.code_ranges import CodeRanges
from qcompiler.errors import PassError
from qcompiler.ir import interop
from qcompiler.ir.edit import Edit
from qcompiler.passes.lower.check_accumulators import CheckAccumulators
from qcompiler.passes.lower.groups import site_of
from qcompiler.passes.lower.products import Product, product_of
from qcompiler.pipeline.base import Context
from qcompiler.target.integer import IntegerArithmetic
from qcompiler.target.load import load
from qcompiler.target.schema import Target

RNG = np.random.default_rng(0)
NARROW = IntegerArithmetic(accumulator_bits=16, wide_accumulator_bits=32)


def target(arithmetic: IntegerArithmetic = NARROW) -> Target:
    return dataclasses.replace(load("edge-npu"), name="tiny", integer=arithmetic)


def layer(op: str, shapes: str, **arrays: NDArray[Any]) -> ir.Model:
    """``x`` → Q → DQ → one layer with weights behind DQ → Q → DQ → ``y``; arrays are initializers."""
    text = f"""<ir_version: 10, opset_import: ["" : 21]> g (float[{shapes}] x) => (float[] y) {{
      q = QuantizeLinear (x, s, z)
      d = DequantizeLinear (q, s, z)
      {op}
      r = QuantizeLinear (o, t, zt)
      y = DequantizeLinear (r, t, zt)
    }}"""
    proto = onnx.parser.parse_model(text)
    defaults = {"s": np.float32(0.05), "z": np.int8(-128), "t": np.float32(0.5), "zt": np.int8(3)}
    for name, array in (defaults | arrays).items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    for node in proto.graph.node:
        node.name = f"the_{node.op_type}_{node.output[0]}"
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


CONV = """w = DequantizeLinear <axis = 0> (wq, sw, zw)
      b = DequantizeLinear <axis = 0> (bq, sb)
      o = Conv <pads = [1, 1, 1, 1], group = 4> (d, w, b)"""


def depthwise(scale: float = 1.0) -> ir.Model:
    """Four depthwise 3x3 channels; only channel 2 has weights that could leave 16 bits (times ``scale``)."""
    codes = RNG.integers(-9, 10, (4, 1, 3, 3)).astype(np.int8)
    codes[2] = np.clip(scale * RNG.choice([-100, 100], (1, 3, 3)), -127, 127)
    sw = np.array([0.01, 0.02, 0.03, 0.04], np.float32)
    bias = np.array([500, -500, 700, 0], np.int32)
    return layer(
        CONV, "N, 4, 6, 6", wq=codes, sw=sw, zw=np.zeros(4, np.int8), bq=bias, sb=(np.float32(0.05) * sw),
    )  # fmt: skip


def check(model: ir.Model, strategy: Any = "narrow", to: Target | None = None) -> Context:
    ctx = Context(edit=Edit(model), target=target() if to is None else to)
    CheckAccumulators(strategy).run(model, ctx)
    return ctx


def product(model: ir.Model, op_type: str = "Conv", arithmetic: IntegerArithmetic = NARROW) -> Product:
    node = next(node for node in model.graph if node.op_type == op_type)
    found = product_of(site_of(node, arithmetic), CodeRanges())
    assert found is not None
    return found


def run(model: ir.Model, x: NDArray[np.float32]) -> NDArray[np.float32]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    proto = interop.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: NDArray[np.float32] = session.run(None, {"x": x})[0]
    return result


def notes(ctx: Context) -> list[str]:
    return [note.text for record in ctx.records for note in record.notes]


def test_only_the_channel_that_could_overflow_is_narrowed() -> None:
    model = depthwise()
    before = product(model)
    low, high = before.bounds()
    outside = (low < -(2**15)) | (high >= 2**15)
    assert outside.tolist() == [False, False, True, False]
    x = RNG.normal(5, 3, (2, 4, 6, 6)).astype(np.float32)
    expected = run(model, x)
    ctx = check(model)
    after = product(model)
    low, high = after.bounds()
    assert low.min() >= -(2**15)
    assert high.max() < 2**15
    untouched = [0, 1, 3]
    assert (after.rows[untouched] == before.rows[untouched]).all()
    assert (after.weight.scale[untouched] == before.weight.scale[untouched]).all()
    lost = np.log2(after.weight.scale[2] / before.weight.scale[2])
    assert lost in (1.0, 2.0, 3.0)
    (note,) = notes(ctx)
    assert note.startswith(f"the_Conv_o (Conv): weights of 1 of 4 channels have up to {int(lost)} bits less")
    found = run(model, x)
    assert (found[:, untouched] == expected[:, untouched]).all()
    worst = np.abs(x).max() * 9 * before.weight.scale[2] * 2 ** (lost - 1)
    assert np.abs(found[:, 2] - expected[:, 2]).max() <= worst + 0.5


def test_one_bit_less_would_not_do() -> None:
    model = depthwise()
    before = product(model)
    check(model)
    lost = np.log2(product(model).weight.scale / before.weight.scale).astype(np.int64)
    lost[2] -= 1
    low, high = before.bounds(lost)
    assert low[2] < -(2**15) or high[2] >= 2**15


def test_weights_keep_four_bits_or_the_layer_is_refused() -> None:
    codes = np.full((1, 8, 3, 3), 127, np.int8)  # 72 products: 16 bits hold no four-bit weights
    model = layer(
        "w = DequantizeLinear (wq, sw, zw)\no = Conv (d, w)", "N, 8, 6, 6", wq=codes, sw=np.float32(0.1), zw=np.int8(0)
    )
    with pytest.raises(PassError) as caught:
        check(model)
    text = str(caught.value)
    assert "the_Conv_o (Conv)" in text
    assert f"{72 * 127 * 127 + 128 * 72 * 127}" in text  # the folded zero point counts
    assert "accumulators of tiny have 16" in text
    assert "--exclude" in text


def test_nothing_is_narrowed_where_that_is_not_wanted_or_not_needed() -> None:
    with pytest.raises(PassError, match="can reach"):
        check(depthwise(), "refuse")
    wide = target(IntegerArithmetic())
    ctx = check(depthwise(), "refuse", wide)
    assert ctx.edit.count == 0
    assert notes(ctx) == []


def test_a_weight_that_others_read_keeps_its_codes_there() -> None:
    model = depthwise()
    conv = next(node for node in model.graph if node.op_type == "Conv")
    codes = conv.inputs[1]
    assert codes is not None
    source = codes.producer()
    assert source is not None
    probe = ir.Node("", "Identity", [codes], outputs=[ir.Value(name="probe")])
    model.graph.append(probe)
    model.graph.outputs.append(probe.outputs[0])
    check(model)
    assert probe.inputs[0] is source.outputs[0]
    assert source.graph is model.graph
    assert conv.inputs[1] is not codes


def test_products_of_two_activations_depend_on_their_depth() -> None:
    small = target(IntegerArithmetic(accumulator_bits=17))
    check(layer("o = MatMul (d, d)", "1, 1"), to=small)
    with pytest.raises(PassError, match="the_MatMul_o"):
        check(layer("o = MatMul (d, d)", "3, 3"), to=small)
    ctx = check(layer("o = MatMul (d, d)", "N, N"), to=target(IntegerArithmetic()))
    assert notes(ctx) == ["the_MatMul_o (MatMul): its accumulator holds sums of up to 33025 products"]


LAYERS = {
    "Conv": ("w = DequantizeLinear <axis=0> (wq, sw, zw)\no = Conv (d, w, bias)", "1, 3, 2, 2", (4, 3, 2, 2), 0),
    "ConvTranspose": (
        "w = DequantizeLinear <axis=1> (wq, sw, zw)\no = ConvTranspose <strides = [2, 2]> (d, w, bias)",
        "1, 3, 2, 2",
        (3, 4, 2, 2),
        1,
    ),
    "Gemm": ("w = DequantizeLinear <axis=1> (wq, sw, zw)\no = Gemm (d, w, bias)", "1, 12", (12, 4), 1),
    "Gemm transB": (
        "w = DequantizeLinear <axis=0> (wq, sw, zw)\no = Gemm <transB = 1> (d, w, bias)",
        "1, 12",
        (4, 12),
        0,
    ),
    "MatMul": ("w = DequantizeLinear <axis=1> (wq, sw, zw)\nm = MatMul (d, w)\no = Add (m, bias)", "1, 12", (12, 4), 1),
}


@pytest.mark.parametrize("kind", LAYERS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_worst_inputs_reach_the_bound_of_every_kind_of_layer(kind: str, seed: int) -> None:
    """The real layer, fed with the worst codes, gives the bound: rows, scales, zero point and bias are understood."""
    op, shapes, shape, axis = LAYERS[kind]
    random = np.random.default_rng(seed)
    zero = np.int8(random.integers(-128, 128))
    weight = random.integers(-128, 128, shape).astype(np.int8)
    sw = np.exp2(random.integers(-6, -2, 4)).astype(np.float32)  # exact products
    bias = (random.integers(-1000, 1000, 4) * sw * np.float32(0.5)).astype(np.float32)
    model = layer(op, shapes, wq=weight, sw=sw, zw=np.zeros(4, np.int8), bias=bias, s=np.float32(0.5), z=zero)
    found = product(model, kind.split()[0], IntegerArithmetic())
    assert found.weight.axis == axis
    for channel in range(4):
        codes = np.where(found.rows[channel] > 0, 127, -128).astype(np.int64)
        exact = (codes * found.rows[channel]).sum() + round(bias[channel] / (0.5 * sw[channel]))
        exact -= int(zero) * int(found.rows[channel].astype(np.int64).sum())
        low, high = found.bounds()
        assert low[channel] <= exact <= high[channel]
        x = (0.5 * (codes - int(zero))).astype(np.float32)
        x = x.reshape(1, 3, 2, 2) if "Conv" in kind else x.reshape(1, 12)
        if kind == "ConvTranspose":  # each output sees one element of the kernel: feed one place only
            continue
        produced = _float_layer(model, x).reshape(4)[channel]
        assert produced == exact * 0.5 * sw[channel]


def _float_layer(model: ir.Model, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the layer itself computes, before its result is quantized."""
    proto = interop.to_proto(model)
    del proto.graph.output[:]
    proto.graph.output.append(onnx.helper.make_tensor_value_info("o", 1, None))
    result: NDArray[np.float32] = ReferenceEvaluator(proto).run(None, {"x": x})[0]
    return result
