from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from qcompiler.quant.functions import catalogue
from qcompiler.quant.functions.definition import TensorType
from qcompiler.quant.integer.weight_only import BITS
from qcompiler.runtime import interpret
from tests.quant.functions.running import one_node_model, run_body, session
from tests.quant.functions.weight_only_cases import SPECIAL, Case, case, make

NAME = "QMatMulWeightOnly"
OPERATOR = catalogue.operators()[NAME]
SAMPLES = 2000 if os.environ.get("QCOMPILER_NIGHTLY") else 30
FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}


def specified(instance: Case) -> NDArray[Any]:
    return OPERATOR.specification(*instance.inputs, **instance.attributes)


def assert_same_bits(found: NDArray[Any], wanted: NDArray[Any], text: str = "") -> None:
    """Equal to the last bit, the sign of zero included; a NaN equals any NaN."""
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape), text
    nan = np.isnan(wanted)
    np.testing.assert_array_equal(np.isnan(found), nan, err_msg=text)
    np.testing.assert_array_equal(found[~nan].view(np.uint32), wanted[~nan].view(np.uint32), err_msg=text)


@pytest.mark.parametrize("bits", BITS)
def test_the_body_is_the_specification_to_the_last_bit(bits: int) -> None:
    random = np.random.default_rng(bits)
    for index in range(SAMPLES):
        instance = case(random, bits=bits)
        constants = range(1, 5) if index % 3 else ()
        found = run_body(NAME, instance.inputs, instance.attributes, constants=constants)
        assert_same_bits(found, specified(instance), f"{instance.attributes}")


def test_the_body_is_exact_for_the_longest_sums() -> None:
    for bits in (2, 4, 8):
        shape = {"lead": (2,), "depth": 65_793, "rows": 3, "bits": bits, "zero_points": True, "finite": True}
        instance = make(np.random.default_rng(1), block=32, **shape)
        x, w, multiplier, scale, zero = instance.inputs
        x[:], multiplier[:] = 3.0, 2047
        w[:] = {2: 0x55, 4: 0x77, 8: 0x7F}[bits]  # the greatest code throughout
        zero[:] = -(1 << (bits - 1))
        found = run_body(NAME, [x, w, multiplier, scale, zero], instance.attributes, constants=range(1, 5))
        assert_same_bits(found, specified(instance))
        total = 127 * ((1 << bits) - 1) * 2047 * 65_793
        np.testing.assert_array_equal(found[0], np.float32(total) * (np.float32(3) / np.float32(127) * scale))


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_ALL"])
@pytest.mark.parametrize("opset", [18, 21, 25])
def test_no_optimizer_changes_a_bit(level: str, opset: int) -> None:
    random = np.random.default_rng(7)
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.log_severity_level = 3
    for _ in range(6):
        instance = case(random)
        model = one_node_model(NAME, instance.inputs, instance.attributes, constants=range(1, 5), opset=opset)
        runner = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        assert_same_bits(runner.run(None, {"x": instance.inputs[0]})[0], specified(instance))


def test_the_interpreter_runs_it() -> None:
    instance = case(np.random.default_rng(2), finite=True)
    model = one_node_model(NAME, instance.inputs, instance.attributes, constants=range(1, 5))
    assert_same_bits(interpret(model, {"x": instance.inputs[0]})[0], specified(instance))


@pytest.mark.parametrize("number", SPECIAL)
def test_rows_with_special_numbers(number: np.float32) -> None:
    """Only the row that holds the number is touched by it; a row of nothing gives +0."""
    instance = make(
        np.random.default_rng(3), lead=(3,), depth=40, rows=5, bits=4, block=16, zero_points=True, finite=True
    )
    x, _, _, scale, _ = instance.inputs
    scale[:] = 2.0**-20
    x[:] = np.random.default_rng(4).normal(0, 1, x.shape)
    before = specified(instance)
    x[1, 7], x[2] = number, 0
    runner = session(one_node_model(NAME, instance.inputs, instance.attributes, constants=range(1, 5)))
    found = runner.run(None, {"x": x})[0]
    assert_same_bits(found, specified(instance))
    assert_same_bits(found[0], before[0])
    assert np.isfinite(found[1]).all() == bool(np.isfinite(number))
    np.testing.assert_array_equal(found[2].view(np.uint32), 0)


def test_types_and_shapes_are_inferred() -> None:
    random = np.random.default_rng(5)
    for _ in range(10):
        instance = case(random)
        types = [TensorType(ir.DataType.from_numpy(item.dtype), item.shape) for item in instance.inputs]
        found = OPERATOR.infer(types, instance.attributes)
        wanted = specified(instance)
        assert (found.dtype.numpy(), found.shape) == (wanted.dtype, wanted.shape)
    unknown = TensorType(ir.DataType.FLOAT, None)
    assert OPERATOR.infer([unknown], {"weight_shape": [4, 8]}) == unknown
    symbolic = TensorType(ir.DataType.FLOAT, ("N", "T", 8))
    assert OPERATOR.infer([symbolic], {"weight_shape": [4, 8]}).shape == ("N", "T", 4)


def test_onnx_infers_the_same_through_the_body() -> None:
    instance = case(np.random.default_rng(6))
    model = one_node_model(NAME, instance.inputs, instance.attributes, constants=range(1, 5))
    depth = instance.attributes["weight_shape"][1]
    model.graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", "T", depth]))
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    found = inferred.graph.output[0].type.tensor_type
    assert found.elem_type == onnx.TensorProto.FLOAT
    sizes = [size.dim_param or size.dim_value for size in found.shape.dim]
    assert sizes == ["N", "T", instance.attributes["weight_shape"][0]]


def test_sums_are_integer_in_the_body() -> None:
    """Float numbers are converted at the ends only: no sum of products is float, whose order would matter."""
    nodes = {node.output[0]: node for node in OPERATOR.function(21).node}
    assert [node.op_type for node in nodes.values() if "MatMul" in node.op_type] == ["MatMulInteger"] * 3
    assert [name for name, node in nodes.items() if node.op_type == "ReduceSum"] == ["guard_or_empty"]
    to_float = [
        name for name, node in nodes.items() for item in node.attribute if item.name == "to" and item.i in FLOATS
    ]
    assert to_float == ["total_float"]


def refused(change: dict[str, Any], index: int | None = None, array: Any = None) -> str:
    instance = make(
        np.random.default_rng(8), lead=(2,), depth=40, rows=4, bits=3, block=16, zero_points=True, finite=True
    )
    inputs: Sequence[Any] = [array if place == index else item for place, item in enumerate(instance.inputs)]
    with pytest.raises(ValueError, match=r".") as error:
        OPERATOR.specification(*inputs, **{**instance.attributes, **change})
    return str(error.value)


def test_what_is_out_of_range_is_refused() -> None:
    assert "bits" in refused({"bits": 5})
    for block in (0, 8, 20, -16):
        assert "multiple of 8" in refused({"block": block})
    assert "1 to 65793" in refused({"weight_shape": [0, 40]})
    assert "float32 [..., 41]" in refused({"weight_shape": [4, 41]})
    assert "packed form" in refused({}, 1, np.zeros((4, 14), np.uint8))
    assert "uint16 [4, 3]" in refused({}, 2, np.ones((4, 2), np.uint16))
    assert "1 to 2047" in refused({}, 2, np.zeros((4, 3), np.uint16))
    assert "1 to 2047" in refused({}, 2, np.full((4, 3), 2048, np.uint16))
    assert "scale" in refused({}, 3, np.zeros(4, np.float32))
    assert "scale" in refused({}, 3, np.full(4, np.inf, np.float32))
    assert "[1, 1]" in refused({}, 4, np.zeros((4, 1), np.int8))
    assert "-4 to 3" in refused({}, 4, np.full((4, 3), 4, np.int8))
