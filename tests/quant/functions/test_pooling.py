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
from qcompiler.quant.integer.digits import choose_digits
from tests.quant.functions.running import one_node_model, run_body
from tests.quant.integer.pooling_cases import codes, output, window

FAMILIES = ("QAveragePool", "QAveragePoolChannelsLast", "QGlobalAveragePool", "QReduceMean")
VARIANTS = [
    f"{family}{wide}{ending}" for family in FAMILIES for wide in ("", "Wide") for ending in ("", "Shift")
]  # fmt: skip


def case(name: str, random: np.random.Generator) -> tuple[list[NDArray[Any]], dict[str, Any]]:
    """Inputs and attributes of a random node."""
    dtype = np.int16 if "Wide" in name else np.int8
    rank = int(random.integers(1, 3))
    sizes, attributes = window(random, rank)
    x = codes(random, dtype, (int(random.integers(1, 3)), int(random.integers(1, 4)), *sizes))
    settings_: dict[str, Any] = {}
    factor: Any = float(np.exp(random.uniform(-5, 1)))
    count = x.size
    if "ChannelsLast" in name:
        return _channels_last(*case(name.replace("ChannelsLast", ""), random))
    if "AveragePool" in name and "Global" not in name:
        settings_, count = attributes, int(np.prod(attributes["kernel_shape"]))
        places = catalogue.operators()[name].infer([TensorType(ir.DataType.INT8, x.shape)], {**attributes, "to": 3})
        assert places.shape is not None
        if random.random() < 0.5:
            factor = np.exp(random.uniform(-3, 1, places.shape[2:]))
    if "Reduce" in name:
        axes = sorted(random.choice(x.ndim, int(random.integers(1, x.ndim + 1)), replace=False).tolist())
        settings_ = {"axes": axes, "keepdims": int(random.integers(2))}
    bound = count * (65535 if "Wide" in name else 255)
    settings_ |= {"x_zero_point": int(codes(random, dtype, ())[()]), **output(random, int(random.choice([3, 5])))}
    if "Shift" in name:
        factor = factor / count
        digits = choose_digits(factor, bound)
        return [x, digits.left, digits.negative, digits.shift], settings_
    chosen = dyadic.choose(factor, 31, bound)
    assert chosen.multiplier is not None
    return [x, chosen.multiplier, chosen.shift], settings_


def _channels_last(inputs: list[NDArray[Any]], attributes: dict[str, Any]) -> tuple[list[NDArray[Any]], dict[str, Any]]:
    """The same windows of the same codes: factors over output positions stand beside every channel."""
    x, *factors = inputs
    spatial = x.ndim - 2
    axes = spatial + (len(factors) == 3)  # digits lie along an axis of their own
    turned = [np.expand_dims(item, spatial) if item.ndim == axes else item for item in factors]
    return [np.ascontiguousarray(np.moveaxis(x, 1, -1)), *turned], attributes


@pytest.mark.parametrize("name", [name for name in VARIANTS if "ChannelsLast" in name])
def test_channels_last_is_the_same_pooling_with_other_axes(name: str) -> None:
    for seed in range(20):
        inputs, attributes = case(name.replace("ChannelsLast", ""), np.random.default_rng(seed))
        wanted = catalogue.operators()[name.replace("ChannelsLast", "")].specification(*inputs, **attributes)
        turned, _ = _channels_last(inputs, attributes)
        found = catalogue.operators()[name].specification(*turned, **attributes)
        np.testing.assert_array_equal(found, np.moveaxis(wanted, 1, -1))


@pytest.mark.parametrize("name", VARIANTS)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_the_body_is_the_specification(name: str, seed: int) -> None:
    inputs, attributes = case(name, np.random.default_rng(seed))
    operator = catalogue.operators()[name]
    wanted = operator.specification(*inputs, **attributes)
    found = run_body(name, inputs, attributes)
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)
    types = [TensorType(ir.DataType.from_numpy(item.dtype), item.shape) for item in inputs]
    assert operator.infer(types, attributes) == TensorType(ir.DataType.from_numpy(wanted.dtype), wanted.shape)


@given(seed=st.integers(0, 2**32), dtype=st.sampled_from([np.int8, np.int16]))
@settings(max_examples=50, deadline=None)
def test_the_body_of_max_pool_is_the_specification(seed: int, dtype: Any) -> None:
    random = np.random.default_rng(seed)
    sizes, attributes = window(random, 1)
    axis = int(random.integers(3))
    x = np.moveaxis(codes(random, dtype, (*sizes, 2, 3)), 0, axis)
    step = {"kernel": attributes["kernel_shape"][0], "stride": attributes["strides"][0]}
    step |= {"dilation": attributes["dilations"][0], "begin": attributes["pads"][0], "end": attributes["pads"][1]}
    step |= {"axis": axis, "to": 3 if dtype is np.int8 else 5}
    operator = catalogue.operators()["QMaxPool"]
    wanted = operator.specification(x, **step)
    np.testing.assert_array_equal(run_body("QMaxPool", [np.ascontiguousarray(x)], step), wanted)
    found = operator.infer([TensorType(ir.DataType.from_numpy(x.dtype), x.shape)], step)
    assert found.shape == wanted.shape


@pytest.mark.parametrize("name", [*VARIANTS, "QMaxPool"])
def test_inference_through_the_function_contradicts_nothing(name: str) -> None:
    inputs, attributes = case(name if name != "QMaxPool" else "QAveragePool", np.random.default_rng(3))
    if name == "QMaxPool":
        inputs = inputs[:1]
        attributes = {"axis": 2, "kernel": 1, "stride": 1, "dilation": 1, "begin": 0, "end": 1, "to": 3}
    model = one_node_model(name, inputs, attributes, constants=range(1, len(inputs)))
    for dimension, size in zip(model.graph.input[0].type.tensor_type.shape.dim, inputs[0].shape, strict=True):
        dimension.dim_value = size
    found = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph.output[0].type.tensor_type
    wanted = catalogue.operators()[name].specification(*inputs, **attributes)
    assert found.elem_type == attributes["to"]
    if found.HasField("shape"):
        sizes = [dimension.dim_value if dimension.HasField("dim_value") else None for dimension in found.shape.dim]
        assert len(sizes) == wanted.ndim
        assert all(size in (None, real) for size, real in zip(sizes, wanted.shape, strict=True))


def test_unknown_sizes_stay_unknown() -> None:
    operators = catalogue.operators()
    shape = ("N", 3, "H", 8)
    window_ = {"kernel_shape": [2, 2], "strides": [2, 2], "dilations": [1, 1], "pads": [0, 0, 0, 0], "to": 3}
    x = [TensorType(ir.DataType.INT8, shape)]
    assert operators["QAveragePool"].infer(x, window_).shape == ("N", 3, None, 4)
    assert operators["QAveragePoolChannelsLast"].infer([TensorType(ir.DataType.INT8, ("N", "H", 8, 3))], window_) == (
        TensorType(ir.DataType.INT8, ("N", None, 4, 3))
    )
    assert operators["QGlobalAveragePool"].infer(x, {"to": 3}).shape == ("N", 3, 1, 1)
    assert operators["QReduceMean"].infer(x, {"axes": [2], "keepdims": 0, "to": 3}).shape == ("N", 3, 8)
    for name in ("QAveragePool", "QAveragePoolChannelsLast", "QGlobalAveragePool", "QReduceMean"):
        settings_ = {**window_, "axes": [2], "keepdims": 0}
        assert operators[name].infer([TensorType(ir.DataType.INT8, None)], settings_).shape is None
