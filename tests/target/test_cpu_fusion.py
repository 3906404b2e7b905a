"""What profiles say about ONNX Runtime's CPU provider, asked of its own optimized graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from qcompiler.target.legality import check_model
from qcompiler.target.load import load

CPU = load("cpu-x86")
INT64 = np.int64

# Operator, extra constant inputs, attributes, what ONNX Runtime makes of it between quantized tensors.
UNARY = [
    ("AveragePool", [], {"kernel_shape": [2, 2]}, "QLinearAveragePool"),
    ("GlobalAveragePool", [], {}, "QLinearGlobalAveragePool"),
    ("Sigmoid", [], {}, "QLinearSigmoid"),
    ("LeakyRelu", [], {"alpha": 0.1}, "QLinearLeakyRelu"),
    ("MaxPool", [], {"kernel_shape": [2, 2]}, "MaxPool NhwcMaxPool"),
    ("Reshape", [np.array([1, -1], INT64)], {}, "Reshape"),
    ("Transpose", [], {"perm": [0, 2, 3, 1]}, "Transpose"),
    ("Flatten", [], {}, "Flatten Reshape"),
    ("Squeeze", [np.array([0], INT64)], {}, "Squeeze"),
    ("Unsqueeze", [np.array([0], INT64)], {}, "Unsqueeze"),
    ("Slice", [np.array([0], INT64), np.array([2], INT64), np.array([1], INT64)], {}, "Slice"),
    ("DepthToSpace", [], {"blocksize": 2}, "DepthToSpace"),
    ("Resize", [np.zeros(0, np.float32), np.array([1, 1, 2, 2], np.float32)], {"mode": "nearest"}, "Resize"),
]
BINARY = [("Add", "QLinearAdd", {}), ("Mul", "QLinearMul", {}), ("Concat", "QLinearConcat", {"axis": 1})]


def optimized(model: ir.Model, folder: Path) -> list[str]:
    """Operators of ONNX Runtime's optimized graph at default settings."""
    path = folder / "optimized.onnx"
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    for value in model.graph.outputs:
        value.shape = None
    onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(path).graph.node]


def legal(model: ir.Model) -> None:
    for node in model.graph:
        for value in node.outputs:
            value.shape = value.shape if node.op_type in ("QuantizeLinear", "DequantizeLinear") else None
    assert check_model(model, CPU) == []


def test_every_operator_of_the_profile_is_asked() -> None:
    asked = {row[0] for row in (*UNARY, *BINARY)} | {"Conv", "MatMul", "Gemm", "Split"}
    assert asked == set(CPU.operators)


@pytest.mark.parametrize(("operator", "constants", "attributes", "expected"), UNARY, ids=[row[0] for row in UNARY])
def test_unary(
    tmp_path: Path,
    builder: Callable[..., Any],
    operator: str,
    constants: list[Any],
    attributes: dict[str, Any],
    expected: str,
) -> None:
    build = builder()
    extra = [build.constant(array) for array in constants]
    value = build.op(operator, build.pair(build.input(1, 4, 8, 8)), *extra, **attributes)
    model = build.output(build.pair(value))
    legal(model)
    found = optimized(model, tmp_path)
    assert set(expected.split()) & set(found), found
    assert found.count("DequantizeLinear") == 1, found


@pytest.mark.parametrize(("operator", "expected", "attributes"), BINARY, ids=[row[0] for row in BINARY])
def test_binary(
    tmp_path: Path, builder: Callable[..., Any], operator: str, expected: str, attributes: dict[str, int]
) -> None:
    build = builder()
    first, second = build.pair(build.input(1, 4, 8, 8)), build.pair(build.input(1, 4, 8, 8), "u8", 0.3)
    model = build.output(build.pair(build.op(operator, first, second, **attributes), "u8", 0.2))
    legal(model)
    assert expected in optimized(model, tmp_path)


def test_split(tmp_path: Path, builder: Callable[..., Any]) -> None:
    build = builder()
    parts = build.op("Split", build.pair(build.input(1, 4)), outputs=2, axis=1, num_outputs=2).producer().outputs
    for part in parts:
        build.output(build.pair(part))
    assert check_model(build.model, CPU) == []
    found = optimized(build.model, tmp_path)
    assert found[:2] == ["QuantizeLinear", "Split"], found


@pytest.mark.parametrize("scale", [[0.1, 0.2, 0.3, 0.4], 0.1])
def test_convolution(tmp_path: Path, conv: Callable[..., ir.Model], scale: Any) -> None:
    model = conv(weight={"scale": scale})
    legal(model)
    found = optimized(model, tmp_path)
    assert "QLinearConv" in found
    assert "Conv" not in found


@pytest.mark.parametrize(("quantized", "expected"), [(True, "QLinearMatMul"), (False, "MatMulIntegerToFloat")])
@pytest.mark.parametrize("constant", [True, False])
def test_matmul(tmp_path: Path, builder: Callable[..., Any], quantized: bool, expected: str, constant: bool) -> None:
    build = builder()
    data = build.pair(build.input(2, 3, 4))
    other = (
        build.codes(np.ones((4, 4)), "i8", [0.1] * 4, axis=1) if constant else build.pair(build.input(2, 4, 4), "i8")
    )
    value = build.op("MatMul", data, other)
    model = build.output(build.pair(value) if quantized else value)
    legal(model)
    assert expected in optimized(model, tmp_path)


@pytest.mark.parametrize("quantized", [True, False])
def test_gemm(tmp_path: Path, builder: Callable[..., Any], quantized: bool) -> None:
    build = builder()
    bias = build.codes(np.ones(4), "i32", np.float32(0.1) * np.full(4, 0.1, np.float32), axis=0)
    weight = build.codes(np.ones((4, 4)), "i8", [0.1] * 4, axis=1)
    value = build.op("Gemm", build.pair(build.input(3, 4)), weight, bias)
    model = build.output(build.pair(value) if quantized else value)
    legal(model)
    assert "QGemm" in optimized(model, tmp_path)


@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose", "Gemm"])
def test_a_float_weight_stays_float_behind_an_exact_bias(
    tmp_path: Path, builder: Callable[..., Any], operator: str
) -> None:
    def model(shield: bool) -> ir.Model:
        build = builder()
        shape, weight = ((3, 4), (4, 4)) if operator == "Gemm" else ((1, 4, 8, 8), (4, 4, 1, 1))
        random = np.random.default_rng(0)
        weights = build.constant(random.normal(size=weight).astype(np.float32))
        inputs = [build.pair(build.input(*shape), "u8", 0.02, 128), weights]
        if shield:
            inputs.append(build.codes(random.integers(-1000, 1000, 4), "i32", [2.0**-20] * 4, axis=0))
        return build.output(build.pair(build.op(operator, *inputs), "u8", 0.02, 128))

    stored = tmp_path / "optimized.onnx"
    for shield in (True, False):
        optimized(model(shield), tmp_path)
        tensors = onnx.load(stored).graph.initializer
        sizes = {int(np.prod(item.dims)): item.data_type for item in tensors if np.prod(item.dims) >= 16}
        assert (sizes == {16: onnx.TensorProto.FLOAT}) is shield, (shield, sizes)


def test_a_dilated_average_pool_is_not_offered(builder: Callable[..., Any]) -> None:
    build = builder()
    value = build.op("AveragePool", build.pair(build.input(1, 4, 8, 8)), kernel_shape=[2, 2], dilations=[2, 2])
    model = build.output(build.pair(value))
    assert [item.reason for item in check_model(model, CPU)] == [
        "its attribute dilations is [2, 2], the target takes 1"
    ]


@pytest.mark.parametrize(("opset", "behind", "loads"), [(21, False, False), (20, False, True), (21, True, True)])
def test_known_trap_int8_in_front_of_a_float_reshape(
    tmp_path: Path, builder: Callable[..., Any], opset: int, behind: bool, loads: bool
) -> None:
    build = builder(opset, 10 if opset > 20 else 9)
    value = build.op("Reshape", build.pair(build.input(2, 4), "i8"), build.constant(np.array([4, 2], INT64)))
    if behind:
        value = build.pair(value, "i8")
    model = build.output(build.op("Sin", value))
    for item in (item for node in model.graph for item in node.outputs):
        item.shape = None
    if not loads and onnxruntime.__version__ not in ("1.31.1", "1.32.0"):
        pytest.skip("was seen on ONNX Runtime 1.31.1 and 1.32.0")
    if loads:
        assert "Sin" in optimized(model, tmp_path)
    else:
        with pytest.raises(Exception, match="output_dtype INT8 does not match"):
            optimized(model, tmp_path)
