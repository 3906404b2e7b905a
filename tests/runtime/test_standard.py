"""Standard operators on integers: equal to ONNX Runtime, over attributes and operands."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from qcompiler.runtime import interpret
from qcompiler.runtime.standard.table import KERNELS

X = np.random.default_rng(0).integers(-128, 128, (2, 4, 6, 5)).astype(np.int8)
WIDE = X.astype(np.int32) * 1000


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def model_of(
    op_type: str, operands: list[Any], attributes: dict[str, Any], outputs: int, opset: int
) -> onnx.ModelProto:
    """One node; a tuple ``(array,)`` among the operands is an initializer, ``None`` is absent."""
    names = [f"i{index}" if item is not None else "" for index, item in enumerate(operands)]
    held = [
        onnx.numpy_helper.from_array(item[0], name)
        for name, item in zip(names, operands, strict=True)
        if isinstance(item, tuple)
    ]
    fed = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(item.dtype), [None] * item.ndim)
        for name, item in zip(names, operands, strict=True)
        if isinstance(item, np.ndarray)
    ]
    node = helper.make_node(op_type, names, [f"o{index}" for index in range(outputs)], "node", **attributes)
    graph = helper.make_graph(
        [node], "g", fed, [helper.make_empty_tensor_value_info(f"o{index}") for index in range(outputs)], held
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model)


def agree(op_type: str, operands: list[Any], outputs: int = 1, opset: int = 20, **attributes: Any) -> None:
    model = model_of(op_type, operands, attributes, outputs, opset)
    feed = {f"i{index}": item for index, item in enumerate(operands) if isinstance(item, np.ndarray)}
    expected = ort.InferenceSession(model.SerializeToString()).run(None, feed)
    for ours, theirs in zip(interpret(model, feed), expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


MOVES: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("Reshape", [X, (ints(0, -1, 5),)], {}),
    ("Reshape", [X[:0], (ints(0, 4),)], {"allowzero": 1}),
    ("Flatten", [X], {"axis": -2}),
    ("Flatten", [X], {"axis": 0}),
    ("Transpose", [X], {"perm": [2, 0, 3, 1]}),
    ("Transpose", [X], {}),
    ("Squeeze", [X[:1, :, :1], (ints(0, -2),)], {}),
    ("Squeeze", [X[:1, :, :1]], {}),
    ("Unsqueeze", [X, (ints(0, -1),)], {}),
    ("Slice", [X, (ints(1, -3),), (ints(9, 99),), (ints(0, 2),)], {}),
    ("Slice", [X, (ints(-1),), (ints(-100),), (ints(2),), (ints(-2),)], {}),
    ("Slice", [X, (ints(3),), (ints(0),), (ints(3),), (ints(-1),)], {}),
    ("Gather", [X, (ints(-1, 0, 2),)], {"axis": 1}),
    ("Gather", [X, (np.array(1),)], {"axis": 2}),
    ("Gather", [np.arange(140000).astype(np.int8).reshape(70000, 2), (ints(0, 65536, -1, 69999),)], {"axis": 0}),
    ("GatherElements", [X[0, 0], (np.array([[0, -1, 2, 1, 0]]),)], {"axis": 0}),
    ("GatherND", [X, (np.array([[0, 1], [1, 3]]),)], {}),
    ("Expand", [X[:, :1], (ints(2, 3, 1, 1),)], {}),
    ("Tile", [X, (ints(1, 2, 1, 3),)], {}),
    ("Concat", [X, X[:, :2]], {"axis": 1}),
    ("Pad", [X, (ints(0, 0, 1, 2, 0, 0, 0, 3),), (np.array(-7, np.int8),)], {}),
    ("Pad", [X, (ints(1, 2),), (np.array(5, np.int8),), (ints(-1),)], {}),
    ("Pad", [X, (ints(0, 0, 1, 2, 0, 0, 2, 1),)], {"mode": "reflect"}),
    ("Pad", [X, (ints(0, 0, 1, 2, 0, 0, 2, 1),)], {"mode": "edge"}),
    ("Pad", [X, (ints(0, 0, -1, 0, 0, 0, 0, -2),)], {}),
    ("Where", [X > 0, X, X[:1]], {}),
    ("DepthToSpace", [X], {"blocksize": 2}),
    ("DepthToSpace", [X.astype(np.float32)], {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", [X.astype(np.float32)[..., :4]], {"blocksize": 2}),
    ("Identity", [X], {}),
    ("Shape", [X], {"start": 1, "end": -1}),
    ("Size", [X], {}),
    ("Range", [(np.array(3),), (np.array(-4),), (np.array(-2),)], {}),
    ("ConstantOfShape", [(ints(2, 3),)], {"value": onnx.numpy_helper.from_array(np.array([-3], np.int8))}),
    ("ConstantOfShape", [(ints(2, 3),)], {}),
    ("Cast", [X], {"to": 6}),
    ("Cast", [X > 0], {"to": 3}),
    ("Cast", [X], {"to": 1}),
    ("Clip", [X, (np.array(-5, np.int8),), (np.array(9, np.int8),)], {}),
    ("Clip", [X, None, (np.array(9, np.int8),)], {}),
    ("Min", [X, X[:1], (np.array(3, np.int8),)], {}),
    ("Max", [X, X[:1]], {}),
    ("Relu", [X], {}),
    ("Add", [WIDE, WIDE[:1]], {}),
    ("Sub", [WIDE, WIDE[:, :1]], {}),
    ("Mul", [WIDE, X[:1].astype(np.int32)], {}),
    ("Mul", [WIDE.astype(np.int64) << 20, X.astype(np.int64)], {}),
    ("Div", [WIDE, (np.array(-7, np.int32),)], {}),
    ("Mod", [WIDE, (np.array(-7, np.int32),)], {}),
    ("Mod", [WIDE, (np.array(7, np.int32),)], {"fmod": 1}),
    ("Neg", [WIDE], {}),
    ("Abs", [WIDE], {}),
    ("Equal", [X, X[:1]], {}),
    ("Less", [WIDE, WIDE[:1]], {}),
    ("GreaterOrEqual", [WIDE, WIDE[:1]], {}),
    ("And", [X > 0, X < 50], {}),
    ("Not", [X > 0], {}),
    ("ArgMax", [X], {"axis": -1, "keepdims": 0}),
    ("ArgMax", [WIDE[:, :, :, :1] * 0], {"axis": 1, "select_last_index": 1}),
    ("BitShift", [X.astype(np.uint8), (np.array(3, np.uint8),)], {"direction": "LEFT"}),
    ("BitShift", [X.astype(np.uint8), (np.array(3, np.uint8),)], {"direction": "RIGHT"}),
    ("ReduceSum", [WIDE, (ints(1, -1),)], {"keepdims": 0}),
    ("ReduceSum", [WIDE], {}),
    ("ReduceMax", [WIDE, (ints(2),)], {}),
    ("ReduceMin", [WIDE, (ints(),)], {"noop_with_empty_axes": 1}),
    ("MatMulInteger", [X[0], X[1].swapaxes(-1, -2).copy(), (np.array(3, np.int8),), (np.array(-9, np.int8),)], {}),
]


@pytest.mark.parametrize(
    ("op_type", "operands", "attributes"), MOVES, ids=lambda item: item if isinstance(item, str) else ""
)
def test_equals_the_runtime(op_type: str, operands: list[Any], attributes: dict[str, Any]) -> None:
    agree(op_type, operands, **attributes)


def test_split() -> None:
    agree("Split", [X, (ints(1, 3),)], outputs=2, axis=1)
    agree("Split", [X], outputs=3, opset=18, axis=2, num_outputs=3)
    agree("Split", [X], outputs=2, opset=18, axis=3, num_outputs=2)  # 5 elements: 3 and 2


def test_operands_that_were_attributes() -> None:
    agree("Squeeze", [X[:1]], opset=11, axes=[0])
    agree("Unsqueeze", [X], opset=11, axes=[1])
    agree("Slice", [X], opset=9, starts=[1], ends=[3], axes=[2])
    agree("Pad", [X.astype(np.float32)], opset=9, pads=[0, 0, 1, 0, 0, 0, 0, 1], value=2.0)
    agree("Clip", [X.astype(np.float32)], opset=9, min=-3.0, max=7.0)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_max_pool(data: st.DataObject) -> None:
    kernel = [data.draw(st.integers(1, 3)) for _ in range(2)]
    attributes: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": [data.draw(st.integers(1, 3)) for _ in range(2)],
        "dilations": [data.draw(st.integers(1, 2)) for _ in range(2)],
        "ceil_mode": data.draw(st.integers(0, 1)),
    }
    mode = data.draw(st.sampled_from(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if mode == "NOTSET":
        attributes["pads"] = [data.draw(st.integers(0, kernel[axis % 2] - 1)) for axis in range(4)]
    else:
        attributes |= {"auto_pad": mode, "dilations": [1, 1], "ceil_mode": 0, "strides": [1, min(2, kernel[1])]}
    height, width = data.draw(st.integers(5, 9)), data.draw(st.integers(5, 9))
    x = np.random.default_rng(height).integers(-128, 128, (1, 2, height, width)).astype(np.int8)
    agree("MaxPool", [x], **attributes)


def test_quantize_and_dequantize() -> None:
    x = np.random.default_rng(1).normal(0, 50, (3, 4, 5)).astype(np.float32)
    x[0, 0, :3] = np.inf, -np.inf, 1e30
    per_axis = np.array([0.5, 0.1, 0.02, 3.0], np.float32)
    zeros = np.array([0, 5, -7, 100], np.int8)
    agree("QuantizeLinear", [x, (np.float32(0.3) * np.ones(()).astype(np.float32),), (np.array(7, np.uint8),)])
    agree("QuantizeLinear", [x, (np.array(0.3, np.float32),)])
    agree("QuantizeLinear", [x, (per_axis,), (zeros,)], axis=1)
    agree("DequantizeLinear", [X, (per_axis,), (zeros,)], axis=1)
    agree("DequantizeLinear", [WIDE, (np.array([0.3], np.float32),)])
    agree("QuantizeLinear", [x, (np.array(0.3, np.float32),), (np.array(-9, np.int16),)], opset=21)


def test_every_kernel_is_tested() -> None:
    covered = {op_type for op_type, _, _ in MOVES} | {
        "Constant",
        "DequantizeLinear",
        "MaxPool",
        "QuantizeLinear",
        "Split",
    }
    alike = {"ArgMin", "Greater", "LessOrEqual", "Or", "Xor"}  # one word away from a neighbour in the list
    assert set(KERNELS) == covered | alike
