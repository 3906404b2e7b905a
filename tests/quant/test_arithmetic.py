"""The reference arithmetic equals ONNX Runtime's QuantizeLinear and DequantizeLinear bit for bit."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper

from qcompiler.quant import arithmetic
from qcompiler.quant.format import QFormat
from qcompiler.quant.params import params_from_range

ONNX_TYPES = {
    "i8": onnx.TensorProto.INT8,
    "u8": onnx.TensorProto.UINT8,
    "i16": onnx.TensorProto.INT16,
    "u16": onnx.TensorProto.UINT16,
    "i4": onnx.TensorProto.INT4,
    "u4": onnx.TensorProto.UINT4,
}
reals = st.floats(-(2.0**99), 2.0**99, width=32) | st.floats(-300, 300, width=32)


def run_pair(array, params, form):
    """Quantize and dequantize in ONNX Runtime; returns codes as int32 and real numbers."""
    base = str(QFormat(form.bits, form.signed))
    attributes = {key: value for key, value in (("axis", form.axis), ("block_size", form.block)) if value is not None}
    info = helper.make_tensor_value_info
    shape = list(params.scale.shape)
    zero_type = ONNX_TYPES[base]
    zero = helper.make_tensor("z", zero_type, shape, params.zero_point.reshape(-1).tolist())
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **attributes),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **attributes),
        helper.make_node("Cast", ["q"], ["c"], to=onnx.TensorProto.INT32),
    ]
    graph = helper.make_graph(
        nodes,
        "pair",
        [info("x", 1, list(array.shape))],
        [info("c", 6, None), info("y", 1, None)],
        [onnx.numpy_helper.from_array(params.scale, "s"), zero],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": array})


@pytest.mark.parametrize("text", ["i8", "u8", "i8/sym", "i8/sym/axis=1", "i16", "u16", "u4", "i4/sym", "i4/sym/axis=0"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_equal_to_onnx_runtime(text, data):
    form = QFormat.parse(text)
    array = data.draw(
        hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=7), elements=reals)
    )
    other = tuple(i for i in range(array.ndim) if i != form.axis)
    low, high = (array.min(), array.max()) if form.axis is None else (array.min(axis=other), array.max(axis=other))
    shrink = data.draw(st.sampled_from([1.0, 0.3]))  # values outside the range must saturate
    params = params_from_range(np.asarray(low) * shrink, np.asarray(high) * shrink, form)
    codes, real = run_pair(array, params, form)
    ours = arithmetic.quantize(array, params, form)
    np.testing.assert_array_equal(ours.astype(np.int32), codes)
    np.testing.assert_array_equal(arithmetic.dequantize(ours, params, form), real)


@settings(max_examples=30, deadline=None)
@given(
    block=st.sampled_from([2, 16, 32]),
    rows=st.integers(1, 70),
    columns=st.integers(1, 9),
    axis=st.sampled_from([0, 1]),
    seed=st.integers(0, 2**31),
)
def test_blocks_equal_onnx_runtime(block, rows, columns, axis, seed):
    form = QFormat(4, symmetric=True, axis=axis, block=block)
    array = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    starts = np.arange(0, array.shape[axis], block)
    bound = np.maximum.reduceat(np.abs(array), starts, axis=axis)
    params = params_from_range(-bound, bound, form)
    codes, real = run_pair(array, params, form)
    ours = arithmetic.quantize(array, params, form)
    np.testing.assert_array_equal(ours.astype(np.int32), codes)
    np.testing.assert_array_equal(arithmetic.dequantize(ours, params, form), real)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("signed", [True, False])
@settings(max_examples=20, deadline=None)
@given(array=hnp.arrays(np.float32, hnp.array_shapes(max_dims=2, max_side=9), elements=st.floats(-50, 50, width=32)))
def test_error_is_half_a_step_inside_the_range(bits, signed, array):
    form = QFormat(bits, signed=signed)
    params = params_from_range(array.min(), array.max(), form)
    back = arithmetic.dequantize(arithmetic.quantize(array, params, form), params, form)
    # Rounding the zero point may move one end of the range by half a step: there a value saturates by up to that.
    assert np.abs(back - array).max() <= params.scale * (1.0 + 1e-3) + 1e-6
    assert arithmetic.quantize(array, params, form).astype(np.int32).max() <= form.maximum


def test_zero_is_exact():
    for text in ("u8", "i8", "i4", "u16"):
        form = QFormat.parse(text)
        params = params_from_range(-0.37, 11.1, form)
        assert arithmetic.dequantize(
            arithmetic.quantize(np.zeros(3, np.float32), params, form), params, form
        ).tolist() == [0, 0, 0]


def test_bias_saturates_instead_of_wrapping():
    codes = arithmetic.quantize_bias(np.array([1e9, -1e9, 0.5]), np.float32(1e-3))
    assert codes.tolist() == [2**31 - 1, -(2**31), 500]


@pytest.mark.parametrize("text", ["i8", "i8/sym/axis=0", "i8/axis=1", "i4/sym/axis=0/block=4", "i4/sym/axis=1/block=4"])
def test_slabs_change_nothing(text, monkeypatch):
    form = QFormat.parse(text)
    array = np.random.default_rng(0).normal(size=(37, 11, 3)).astype(np.float32)
    shape = () if form.axis is None else (array.shape[form.axis],)
    if form.block is not None:
        shape = tuple(-(-n // form.block) if i == form.axis else n for i, n in enumerate(array.shape))
    bound = np.random.default_rng(1).uniform(0.5, 3, shape)
    params = params_from_range(-bound, bound, form)
    whole = arithmetic.quantize(array, params, form)
    monkeypatch.setattr(arithmetic, "SLAB", 700)
    np.testing.assert_array_equal(arithmetic.quantize(array, params, form), whole)
