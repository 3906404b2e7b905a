from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from qcompiler.quant.functions import catalogue
from qcompiler.quant.integer import dyadic
from tests.quant.functions.running import one_node_model, session

BYTE = {"y_zero_point": -128, "to": 3, "low": -128, "high": 127}
WORD = {"y_zero_point": -32768, "to": 5, "low": -32768, "high": 32767}


def factors(scale: float, result: float) -> list[NDArray[np.generic]]:
    first = dyadic.choose(min(scale * math.log2(math.e), 32.0), 31, 65535 << 16)
    last = dyadic.choose(2.0**-24 / result, 31, 1 << 30)
    assert first.multiplier is not None
    assert last.multiplier is not None
    return [first.multiplier, first.shift, last.multiplier, last.shift]


def same(name: str, inputs: list[NDArray[np.generic]], attributes: dict[str, int], examples: int = 15) -> None:
    """One session, many feeds: the body and the specification agree bit for bit."""
    model = one_node_model(name, inputs, attributes, constants=tuple(range(1, len(inputs))))
    runner = session(model)
    random = np.random.default_rng(len(name) + attributes["to"])
    limits = np.iinfo(inputs[0].dtype)
    for example in range(examples):
        rows = (2, 3, int(random.choice([1, 2, 7, 64, 1000])))
        x = random.integers(limits.min, limits.max, rows, endpoint=True)
        if example % 3:
            x = np.clip(random.normal(0, 3 ** random.uniform(0, 8), rows), limits.min, limits.max)
        x = x.astype(inputs[0].dtype)
        if example % 5 == 1:
            x[:] = limits.min
        wanted = catalogue.operators()[name].specification(x, *inputs[1:], **attributes)
        np.testing.assert_array_equal(runner.run(None, {"x": x})[0], wanted)


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
@pytest.mark.parametrize(("result", "clamp"), [(1 / 255, BYTE), (1 / 65535, WORD), (3e-7, WORD)])
@pytest.mark.parametrize("axis", [-1, 1])
def test_the_body_is_the_specification(dtype: type, result: float, clamp: dict[str, int], axis: int) -> None:
    scale = 0.06 if dtype is np.int8 else 2e-4
    same("QSoftmax", [np.zeros((1, 1, 1), dtype), *factors(scale, result)], {"axis": axis, **clamp})


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_the_body_without_multipliers_is_the_specification(dtype: type) -> None:
    first = dyadic.choose_shift(2.0 ** (-4 - 12) if dtype is np.int8 else 2.0 ** (-12 - 12))
    for clamp, power in ((BYTE, -8), (WORD, -16)):
        last = dyadic.choose_shift(2.0 ** (-24 - power))
        same("QSoftmaxShift", [np.zeros((1, 1, 1), dtype), first.shift, last.shift], {"axis": -1, **clamp})


def test_the_body_is_exact_for_the_longest_row() -> None:
    inputs = [np.zeros((1, 1), np.int8), *factors(0.1, 1e-7)]
    attributes = {"axis": -1, **WORD}
    runner = session(one_node_model("QSoftmax", inputs, attributes, constants=(1, 2, 3, 4)))
    for x in (np.full((1, 1 << 16), 5, np.int8), np.arange(1 << 16).astype(np.int8).reshape(1, -1)):
        wanted = catalogue.operators()["QSoftmax"].specification(x, *inputs[1:], **attributes)
        np.testing.assert_array_equal(runner.run(None, {"x": x})[0], wanted)


def test_shape_inference_sees_through_the_function() -> None:
    attributes = {"axis": -1, **BYTE}
    model = one_node_model("QSoftmax", [np.zeros((1, 1), np.int8), *factors(0.1, 1 / 255)], attributes)
    model.graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info("x", onnx.TensorProto.INT8, ["N", 9]))
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph.output[0]
    assert inferred.type.tensor_type.elem_type == onnx.TensorProto.INT8
    assert [size.dim_param or size.dim_value for size in inferred.type.tensor_type.shape.dim] == ["N", 9]
