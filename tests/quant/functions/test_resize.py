from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qcompiler.quant.functions import catalogue
from qcompiler.quant.functions.definition import TensorType
from qcompiler.quant.integer import dyadic
from tests.quant.functions.running import one_node_model, run_body
from tests.quant.integer.pooling_cases import codes, output


def case(name: str, random: np.random.Generator) -> tuple[list[NDArray[Any]], dict[str, Any]]:
    """Inputs and attributes of a random node: any taps, any weights that fit."""
    dtype = [np.int8, np.int16, np.int32][random.integers(3)]
    shape = tuple(int(item) for item in random.integers(1, 6, 4))
    axis, count, taps = int(random.integers(4)), int(random.integers(1, 9)), int(random.integers(1, 5))
    x = codes(random, np.int16 if dtype is np.int32 else dtype, shape).astype(dtype)
    if dtype is np.int32:
        x <<= 8 if name == "QResizeShift" else 12  # 45 bits there, 62 here
    index = random.integers(0, shape[axis], (count, taps))
    weight = random.integers(-(1 << 12), 1 << 12, (count, taps, *[1] * (3 - axis)), endpoint=True).astype(np.int32)
    settings_ = {"axis": axis, "x_zero_point": int(random.integers(-128, 128)), **output(random, 3)}
    bound = (int(np.abs(x.astype(np.int64)).max()) + 128) * (1 << 12) * taps
    chosen = dyadic.choose(float(np.exp(random.uniform(-20, -4))), 31, bound)
    assert chosen.multiplier is not None
    if name == "QResizeShift":
        return [x, index, weight, chosen.shift], settings_
    return [x, index, weight, chosen.multiplier, chosen.shift], settings_


@pytest.mark.parametrize("name", ["QResize", "QResizeShift"])
@given(seed=st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_the_body_is_the_specification(name: str, seed: int) -> None:
    inputs, attributes = case(name, np.random.default_rng(seed))
    operator = catalogue.operators()[name]
    wanted = operator.specification(*inputs, **attributes)
    np.testing.assert_array_equal(run_body(name, inputs, attributes), wanted)
    types = [TensorType(ir.DataType.from_numpy(item.dtype), item.shape) for item in inputs]
    assert operator.infer(types, attributes) == TensorType(ir.DataType.INT8, wanted.shape)


def test_inference_through_the_function_is_the_operator_s_own() -> None:
    inputs, attributes = case("QResize", np.random.default_rng(1))
    model = one_node_model("QResize", inputs, attributes, constants=range(1, len(inputs)))
    for dimension, size in zip(model.graph.input[0].type.tensor_type.shape.dim, inputs[0].shape, strict=True):
        dimension.dim_value = size
    found = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph.output[0].type.tensor_type
    wanted = catalogue.operators()["QResize"].specification(*inputs, **attributes)
    assert found.elem_type == attributes["to"]
    sizes = [dimension.dim_value for dimension in found.shape.dim]
    assert all(size in (0, real) for size, real in zip(sizes, wanted.shape, strict=False))


def test_unknown_sizes_stay_unknown() -> None:
    operator = catalogue.operators()["QResize"]
    index = TensorType(ir.DataType.INT64, (7, 2))
    attributes = {"axis": 2, "to": 3}
    assert operator.infer([TensorType(ir.DataType.INT8, ("N", 3, None, "W")), index], attributes).shape == (
        "N", 3, 7, "W",
    )  # fmt: skip
    assert operator.infer([TensorType(ir.DataType.INT8, None), index], attributes).shape is None
