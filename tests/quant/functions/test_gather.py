from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from qcompiler.quant.functions import catalogue
from qcompiler.quant.functions.definition import TensorType
from qcompiler.quant.integer.gather import WIDTHS
from qcompiler.quant.packing import unpack
from qcompiler.runtime import interpret
from tests.quant.functions import gather_cases
from tests.quant.functions.running import one_node_model, run_body, session

NAMES = ["QGather", "QGatherWeightOnly"]


def specified(name: str, inputs: list[Any], attributes: dict[str, Any]) -> Any:
    return catalogue.operators()[name].specification(*inputs, **attributes)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    bits=st.sampled_from(WIDTHS),
    rows=st.integers(1, 30),
    depth=st.integers(1, 40),
    shape=st.lists(st.integers(0, 4), max_size=3),
    dtype=st.sampled_from([np.int32, np.int64]),
    constant=st.booleans(),
)
def test_the_body_is_the_specification(
    name: str, seed: int, bits: int, rows: int, depth: int, shape: list[int], dtype: type, constant: bool
) -> None:
    random = np.random.default_rng(seed)
    inputs, attributes = gather_cases.make(
        name, random, bits=bits, rows=rows, depth=depth, shape=tuple(shape), dtype=dtype
    )
    found = run_body(name, inputs, attributes, constants=range(1, len(inputs)) if constant else ())
    np.testing.assert_array_equal(found, specified(name, inputs, attributes), strict=True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("opset", [18, 21, 25])
def test_no_optimizer_changes_a_bit(name: str, opset: int) -> None:
    random = np.random.default_rng(7)
    for level in (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL):
        options = ort.SessionOptions()
        options.graph_optimization_level, options.log_severity_level = level, 3
        for _ in range(6):
            inputs, attributes = gather_cases.case(name, random)
            model = one_node_model(name, inputs, attributes, constants=range(1, len(inputs)), opset=opset)
            runner = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            found = runner.run(None, {"indices": inputs[0]})[0]
            np.testing.assert_array_equal(found, specified(name, inputs, attributes), strict=True)


@pytest.mark.parametrize("bits", WIDTHS)
def test_real_rows_are_what_onnxruntime_gathers_from_the_dequantized_table(bits: int) -> None:
    inputs, attributes = gather_cases.make(
        "QGatherWeightOnly", np.random.default_rng(bits), bits=bits, rows=20, depth=33, shape=(3, 5), dtype=np.int64
    )
    indices, w, scale = inputs
    codes = unpack(w, bits, (20, 33))
    stored = helper.make_tensor("t", onnx.TensorProto.INT8, (20, 33), codes.ravel().tolist())
    if bits < 8:
        stored = helper.make_tensor("t", onnx.TensorProto.INT4, (20, 33), codes.ravel().tolist())
    text = """<ir_version: 10, opset_import: ["" : 21]> g (int64[3, 5] indices) => (float[3, 5, 33] y) {
        real = DequantizeLinear <axis = 0> (t, s) y = Gather (real, indices) }"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend([stored, onnx.numpy_helper.from_array(scale, "s")])
    wanted = session(model).run(None, {"indices": indices})[0]
    found = run_body("QGatherWeightOnly", inputs, attributes, constants=(1, 2))
    assert np.isfinite(found).any()
    np.testing.assert_array_equal(found.view(np.uint32), wanted.view(np.uint32))


@pytest.mark.parametrize("name", NAMES)
def test_an_index_outside_the_table_is_refused_by_the_body(name: str) -> None:
    inputs, attributes = gather_cases.make(
        name, np.random.default_rng(1), bits=4, rows=5, depth=9, shape=(2,), dtype=np.int64
    )
    runner = session(one_node_model(name, inputs, attributes, constants=range(1, len(inputs))))
    for index in (5, -6):
        with pytest.raises(Exception, match="indices element out of data bounds"):
            runner.run(None, {"indices": np.array([0, index])})


@pytest.mark.parametrize("name", NAMES)
def test_the_interpreter_runs_it(name: str) -> None:
    inputs, attributes = gather_cases.case(name, np.random.default_rng(2))
    model = one_node_model(name, inputs, attributes, constants=range(1, len(inputs)))
    found = interpret(model, {"indices": inputs[0]})[0]
    np.testing.assert_array_equal(found, specified(name, inputs, attributes), strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_types_and_shapes_are_inferred(name: str) -> None:
    operator = catalogue.operators()[name]
    random = np.random.default_rng(5)
    for _ in range(10):
        inputs, attributes = gather_cases.case(name, random)
        types = [TensorType(ir.DataType.from_numpy(item.dtype), item.shape) for item in inputs]
        found, wanted = operator.infer(types, attributes), specified(name, inputs, attributes)
        assert (found.dtype.numpy(), found.shape) == (wanted.dtype, wanted.shape)
    assert operator.infer([TensorType(ir.DataType.INT64, None)], attributes).shape is None
    model = one_node_model(name, inputs, attributes, constants=range(1, len(inputs)))
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("indices", onnx.TensorProto.INT64, ["N", "T"]))
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    sizes = [size.dim_param or size.dim_value for size in inferred.graph.output[0].type.tensor_type.shape.dim]
    assert sizes[:2] == ["N", "T"]  # the depth comes out of a Range, which ONNX does not follow
    assert len(sizes) == 3
    symbolic = operator.infer([TensorType(ir.DataType.INT64, ("N", "T"))], attributes)
    assert symbolic.shape == ("N", "T", attributes["weight_shape"][1])
