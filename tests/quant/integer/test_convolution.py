from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from qcompiler.quant.integer.convolution import conv_accumulator, conv_transpose_accumulator
from tests.quant.functions.linear_cases import Case, Variant, conv_case
from tests.quant.functions.running import session


def real_layer(case: Case, zero_point: int) -> NDArray[np.int64]:
    """Conv or ConvTranspose of ONNX Runtime in float32, on numbers it holds exactly, with ordinary zero padding."""
    transposed = "Transpose" in case.name
    x = case.inputs[0].astype(np.int64) - zero_point
    weight = case.weight
    if transposed:  # ONNX has the input channels first
        group = case.attributes["group"]
        blocks = weight.reshape(group, weight.shape[0] // group, *weight.shape[1:])
        weight = blocks.swapaxes(1, 2).reshape(group * weight.shape[1], -1, *weight.shape[2:])
    names = ["strides", "dilations", "pads", "group", *(["output_padding"] if transposed else [])]
    node = helper.make_node(
        "ConvTranspose" if transposed else "Conv", ["x", "w"], ["y"], **{name: case.attributes[name] for name in names}
    )
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xw"]
    graph = helper.make_graph([node], "one", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    assert np.abs(x).max() * 128 * weight.size < 2**24
    result: NDArray[Any] = session(model).run(None, {"x": x.astype(np.float32), "w": weight.astype(np.float32)})[0]
    return result.astype(np.int64)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True], ids=["conv", "transposed"])
def test_with_the_zero_point_in_the_bias_it_is_the_real_convolution(transposed: bool, rank: int) -> None:
    random = np.random.default_rng(rank)
    accumulate = conv_transpose_accumulator if transposed else conv_accumulator
    for _ in range(25):
        case = conv_case(random, Variant(), transposed=transposed, rank=rank)
        more = zip(case.attributes.get("output_padding", []), case.attributes["strides"], strict=False)
        if any(padding >= stride for padding, stride in more):  # ONNX allows it with dilation, ONNX Runtime does not
            continue
        names = ["strides", "dilations", "pads", "group", "x_zero_point", *(["output_padding"] if transposed else [])]
        zero = case.attributes["x_zero_point"]
        sums = case.weight.reshape(case.weight.shape[0], -1).sum(axis=1, dtype=np.int32)
        bias = (-zero * sums).reshape(-1, *([1] * rank)).astype(np.int32)
        found = accumulate(
            case.inputs[0], case.weight, bias, wide=False, **{name: case.attributes[name] for name in names}
        )
        wanted = real_layer(case, zero)
        np.testing.assert_array_equal(found, wanted, err_msg=f"{case.attributes}")


GOOD: dict[str, Any] = {"strides": [1], "dilations": [1], "pads": [0, 0], "group": 1, "x_zero_point": 0}
X, W, BIAS = np.zeros((1, 2, 5), np.int8), np.zeros((4, 2, 3), np.int8), np.zeros((4, 1), np.int32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strides": [1, 1]}, "axes"),
        ({"strides": [0]}, "positive"),
        ({"dilations": [0]}, "positive"),
        ({"pads": [-1, 0]}, "negative"),
        ({"group": 2}, "groups"),
        ({"group": 0}, "groups"),
        ({"x_zero_point": 200}, "zero point"),
        ({"dilations": [3]}, "does not fit"),
    ],
    ids=str,
)
def test_parameters_outside_their_range_are_refused(change: dict[str, Any], message: str) -> None:
    assert conv_accumulator(X, W, BIAS, wide=False, **GOOD).shape == (1, 4, 3)
    with pytest.raises(ValueError, match=message):
        conv_accumulator(X, W, BIAS, wide=False, **{**GOOD, **change})


@pytest.mark.parametrize("change", [{"output_padding": [-1]}, {"output_padding": [0, 0]}, {"pads": [0, -1]}], ids=str)
def test_a_transposed_convolution_refuses_paddings_that_do_not_fit(change: dict[str, Any]) -> None:
    good = {**GOOD, "output_padding": [0]}
    assert conv_transpose_accumulator(X, W, BIAS, wide=False, **good).shape == (1, 4, 7)
    with pytest.raises(ValueError, match="do not fit"):
        conv_transpose_accumulator(X, W, BIAS, wide=False, **{**good, **change})


@pytest.mark.parametrize(
    ("x", "w"),
    [(X.astype(np.int16), W), (X, W.astype(np.int16)), (X, W[0]), (X, np.zeros((4, 3, 3), np.int8))],
    ids=["type", "weight", "rank", "channels"],
)
def test_operands_that_do_not_belong_together_are_refused(x: NDArray[Any], w: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=r"activations|weight"):
        conv_accumulator(x, w, BIAS, wide=False, **GOOD)


def test_a_window_over_16_bit_codes_is_limited() -> None:
    x, w = np.zeros((1, 70_000, 1), np.int16), np.zeros((1, 70_000, 1), np.int8)
    with pytest.raises(ValueError, match="at most 65793"):
        conv_accumulator(x, w, np.zeros((1, 1), np.int64), wide=True, **GOOD)
