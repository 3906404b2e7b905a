"""Activations of less than 8 bits: bytes that are clipped to their codes, which any runtime takes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.ir import interop
from qcompiler.ir.edit import Edit
from qcompiler.passes.place.place_qdq import place
from qcompiler.quant import arithmetic, state
from qcompiler.quant.format import QFormat
from qcompiler.quant.params import QParams
from qcompiler.quant.state import NodeDecision, TensorQuant

LEVELS = (
    onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
)


def runs(model: ir.Model, data: np.ndarray) -> list[np.ndarray]:
    """What ONNX Runtime gives without and with its optimizer."""
    found = []
    for level in LEVELS:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level, options.log_severity_level, options.intra_op_num_threads = level, 3, 1
        proto = interop.to_proto(model).SerializeToString()
        session = onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
        found.append(session.run(None, {"x": data})[0])
    return found


def placed(text: str, **quants: TensorQuant) -> ir.Model:
    """A model with decisions on values, materialised; every node runs on integers."""
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : 21]> g {text}')
    for node in model.graph:
        state.set_node_decision(node, NodeDecision(True))
    values = {value.name: value for node in model.graph for value in node.outputs}
    values |= {value.name: value for value in model.graph.inputs}
    for name, quant in quants.items():
        state.set_value_quant(values[name], quant)
    place(model, Edit(model))
    return model


def quant(form: str, scale: float, zero: int) -> TensorQuant:
    return TensorQuant(QFormat.parse(form), QParams(np.asarray(scale, np.float32), np.asarray(zero, np.int32)))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=30),
    st.sampled_from([0.01, 0.3, 1.0, 7.0]),
    st.sampled_from([("i4", -8), ("i4", 3), ("u4", 0), ("u4", 11), ("i2", -1), ("i7", 5), ("u7/sym", 64), ("i8", -8)]),
)
def test_a_pair_gives_what_the_format_gives(numbers: list[float], scale: float, kind: tuple[str, int]) -> None:
    data, decision = np.array(numbers, np.float32), quant(kind[0], scale, kind[1])
    model = placed("(float[N] x) => (float[N] y) { y = Neg(x) }", x=decision)
    assert decision.params is not None
    codes = arithmetic.quantize(data, decision.params, decision.format)
    wanted = -arithmetic.dequantize(codes, decision.params, decision.format)
    for found in runs(model, data):
        np.testing.assert_array_equal(found, wanted)
    kinds = [node.op_type for node in model.graph]
    assert kinds == ["QuantizeLinear", *(["Clip"] if decision.format.bits < 8 else []), "DequantizeLinear", "Neg"]


@pytest.mark.parametrize(
    "middle",
    ["b = Relu(a)", "b = Clip(a, low, high)", "b = MaxPool <kernel_shape=[2]> (a)", "b = Transpose <perm=[0,2,1]> (a)"],
)
def test_runtimes_load_4_bits_beside_any_operator(middle: str) -> None:
    """With ONNX's own 4-bit type ONNX Runtime 1.32 fails on Clip and MaxPool, and drops the Relu."""
    narrow = quant("i4", 0.3, -3)
    head = "(float[2,3,4] x) => (float y) <float low = {0.0}, float high = {0.9}> { a = Neg(x) "
    model = placed(f"{head} {middle} y = Neg(b) }}", a=narrow, b=narrow)
    data = np.random.default_rng(0).normal(0, 2, (2, 3, 4)).astype(np.float32)
    plain, optimized = runs(model, data)
    np.testing.assert_array_equal(plain, optimized)
    assert len(np.unique(plain)) > 3


def test_a_clamp_that_the_codes_do_is_dropped() -> None:
    """Behind a Relu the least of 4-bit codes is 0, which saturates like the Relu."""
    text = "(float[N] x) => (float[N] y) { n = Neg(x) a = Relu(n) y = Neg(a) }"
    model = placed(text, a=quant("i4", 0.3, -8))
    assert [node.op_type for node in model.graph] == ["Neg", "QuantizeLinear", "Clip", "DequantizeLinear", "Neg"]
    plain, optimized = runs(model, np.linspace(-6, 3, 50, dtype=np.float32))
    np.testing.assert_array_equal(plain, optimized)
    assert plain.max() == 0
    assert plain.min() == pytest.approx(-4.5)
