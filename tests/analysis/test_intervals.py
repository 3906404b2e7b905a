"""Intervals hold what the runtime computes, and are as tight as the weights allow."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from qcompiler.analysis import intervals
from qcompiler.ir import io, shapes
from qcompiler.ir.execute import Runner

Arrays = dict[str, NDArray[Any]]


def build(nodes: list[onnx.NodeProto], shape: list[int | str], weights: Arrays | None = None) -> ir.Model:
    """A model with one input ``x`` and one output ``y``, shapes inferred."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("their.own", 1)], ir_version=10
    )
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


def node(op_type: str, inputs: list[str], output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs, [output], f"{op_type}_{output}", **attributes)


def value(model: ir.Model, name: str) -> ir.Value:
    found = {item.name: item for each in model.graph for item in each.outputs}
    return found[name]


def assert_holds(model: ir.Model, feed: Arrays, low: float, high: float) -> intervals.Intervals:
    """Every computed tensor lies within its interval."""
    known = intervals.analyse(model, low=low, high=high)
    names = [str(item.name) for each in model.graph for item in each.outputs]
    for name, array in Runner(model, outputs=names, optimize=False).run(feed).items():
        found = known.of(value(model, name))
        data = array.astype(np.float64)
        rows = (
            data.reshape(1, -1)
            if found.axis is None
            else np.moveaxis(data, found.axis, 0).reshape(data.shape[found.axis], -1)
        )
        assert len(rows) == found.low.size, name
        assert (rows.min(1) >= found.low).all(), name
        assert (rows.max(1) <= found.high).all(), name
    return known


RANDOM = np.random.default_rng(3)


def weight(*shape: int) -> NDArray[np.float32]:
    return RANDOM.standard_normal(shape).astype(np.float32)


CASES: dict[str, tuple[list[onnx.NodeProto], list[int | str], Arrays]] = {
    "conv": (
        [node("Conv", ["x", "w", "b"], pads=[1, 1, 1, 1])],
        [1, 3, 6, 6],
        {"w": weight(4, 3, 3, 3), "b": weight(4)},
    ),
    "conv-dilated": (
        [node("Conv", ["x", "w"], pads=[3, 0, 2, 1], dilations=[2, 1], strides=[2, 1])],
        [1, 2, 7, 6],
        {"w": weight(3, 2, 3, 2)},
    ),
    "conv-larger-than-image": ([node("Conv", ["x", "w"], pads=[2, 2, 2, 2])], [1, 2, 2, 2], {"w": weight(3, 2, 5, 5)}),
    "conv-grouped": ([node("Conv", ["x", "w"], group=2)], [1, 4, 5, 5], {"w": weight(6, 2, 3, 3)}),
    "conv-depthwise": (
        [node("Conv", ["x", "w"], group=4, auto_pad="SAME_UPPER")],
        [1, 4, 5, 5],
        {"w": weight(8, 1, 3, 3)},
    ),
    "conv-1d": ([node("Conv", ["x", "w"], pads=[1, 0])], [1, 2, 9], {"w": weight(3, 2, 4)}),
    "conv-transpose": (
        [node("ConvTranspose", ["x", "w", "b"], strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1])],
        [1, 3, 4, 4],
        {"w": weight(3, 2, 3, 3), "b": weight(2)},
    ),
    "conv-transpose-grouped": (
        [node("ConvTranspose", ["x", "w"], strides=[3, 1], dilations=[1, 2], group=2)],
        [1, 4, 4, 4],
        {"w": weight(4, 3, 2, 3)},
    ),
    "gemm": ([node("Gemm", ["x", "w", "b"], transB=1)], [3, 5], {"w": weight(4, 5), "b": weight(4)}),
    "gemm-factors": (
        [node("Gemm", ["x", "w", "b"], alpha=-0.5, beta=2.0)],
        [3, 5],
        {"w": weight(5, 4), "b": weight(3, 4)},
    ),
    "matmul": (
        [node("MatMul", ["x", "w"], "m"), node("Add", ["m", "b"])],
        [2, 3, 5],
        {"w": weight(5, 4), "b": weight(4)},
    ),
    "matmul-square": ([node("MatMul", ["x", "x"])], [2, 4, 4], {}),
    "batch-norm": (
        [node("BatchNormalization", ["x", "s", "b", "m", "v"])],
        [2, 3, 4],
        {"s": weight(3), "b": weight(3), "m": weight(3), "v": np.abs(weight(3))},
    ),
    "pools": (
        [
            node("MaxPool", ["x"], "p", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            node("AveragePool", ["p"], "q", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
            node("GlobalAveragePool", ["q"]),
        ],
        [1, 3, 6, 6],
        {},
    ),
    "concat": (
        [
            node("Conv", ["x", "w"], "c"),
            node("Relu", ["c"], "r"),
            node("Concat", ["r", "x", "c"], "k", axis=1),
            node("Flatten", ["k"], "f"),
            node("Gemm", ["f", "g"]),
        ],
        [1, 2, 3, 3],
        {"w": weight(3, 2, 1, 1), "g": weight(72, 4)},
    ),
    "structure": (
        [
            node("Conv", ["x", "w"], "c"),
            node("Pad", ["c", "pads", "fill"], "p"),
            node("Transpose", ["p"], "t", perm=[0, 2, 3, 1]),
            node("Slice", ["t", "one", "two", "one"], "s"),
            node("Reshape", ["s", "flat"], "r"),
            node("ReduceMean", ["r", "one"], "a"),
            node("ReduceSum", ["a", "one"], keepdims=0),
        ],
        [1, 2, 4, 4],
        {
            "w": weight(3, 2, 1, 1),
            "pads": np.array([0, 0, 1, 0, 0, 0, 0, 2]),
            "fill": np.array(2.5, np.float32),
            "one": np.array([1]),
            "two": np.array([2]),
            "flat": np.array([1, -1, 3]),
        },
    ),
    "split": (
        [
            node("Conv", ["x", "w"], "c"),
            helper.make_node("Split", ["c"], ["s0", "s1"], "split", axis=1, num_outputs=2),
            node("Mul", ["s0", "s1"], "m"),
            node("Sub", ["m", "k"], "d"),
            node("Max", ["d", "s1"]),
        ],
        [1, 2, 3, 3],
        {"w": weight(6, 2, 1, 1), "k": weight(3, 1, 1)},
    ),
    "norms": (
        [
            node("LayerNormalization", ["x", "s", "b"], "l"),
            node("Mul", ["l", "l"], "m"),
            node("Sqrt", ["m"], "q"),
            node("Add", ["q", "e"], "e1"),
            node("Div", ["l", "e1"]),
        ],
        [2, 3, 8],
        {"s": weight(8), "b": weight(8), "e": np.array(0.1, np.float32)},
    ),
}

UNARY = (
    "Abs", "Ceil", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "LogSoftmax", "Neg", "Relu",
    "Round", "Sigmoid", "Sign", "Sin", "Softmax", "Softplus", "Tanh",
)  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("signs", [False, True], ids=["inside", "corners"])
def test_runtime_values_lie_within(name: str, signs: bool) -> None:
    nodes, shape, weights = CASES[name]
    model = build(nodes, shape, weights)
    for seed in range(8):
        random = np.random.default_rng(seed)
        data = random.uniform(-2.0, 3.0, shape)
        if signs:
            data = np.where(data > 0.5, 3.0, -2.0)
        assert_holds(model, {"x": data.astype(np.float32)}, -2.0, 3.0)


@pytest.mark.parametrize("op_type", UNARY)
@given(low=st.floats(-30, 20), width=st.one_of(st.floats(0, 2), st.floats(0, 40)))
@settings(max_examples=40, deadline=None)
def test_functions_of_one_operand(op_type: str, low: float, width: float) -> None:
    model = build([node(op_type, ["x"])], [1, 64])
    low, high = float(np.float32(low)), float(np.float32(low + width))
    data = np.linspace(low, high, 64, dtype=np.float32).clip(low, high)[None]
    assert_holds(model, {"x": data}, low, high)


@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_random_networks(data: st.DataObject) -> None:
    """Stacks of convolutions with clips and residual sums."""
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    nodes, weights, last = [], {}, "x"
    for index in range(data.draw(st.integers(1, 4))):
        size, groups = data.draw(st.sampled_from([1, 3])), data.draw(st.sampled_from([1, 2, 4]))
        weights[f"w{index}"] = random.normal(0, 1, (4, 4 // groups, size, size)).astype(np.float32)
        weights[f"b{index}"] = random.normal(0, 3, 4).astype(np.float32)
        pads = [size // 2] * 4
        nodes.append(node("Conv", [last, f"w{index}", f"b{index}"], f"c{index}", group=groups, pads=pads))
        nodes.append(node("Clip", [f"c{index}", "zero", "six"], f"r{index}"))
        nodes.append(node("Add", [f"r{index}", last], f"a{index}"))
        last = f"a{index}"
    nodes.append(node("Identity", [last]))
    weights |= {"zero": np.array(0, np.float32), "six": np.array(6, np.float32)}
    model = build(nodes, [1, 4, 5, 5], weights)
    for _ in range(3):
        assert_holds(model, {"x": random.choice([-1.0, 1.0, 0.3], (1, 4, 5, 5)).astype(np.float32)}, -1.0, 1.0)


# -- tightness ---------------------------------------------------------------------------------------------------


def test_a_sum_reaches_its_bounds() -> None:
    model = build([node("Gemm", ["x", "w", "b"])], [1, 2], {"w": np.float32([[1], [-2]]), "b": np.float32([10])})
    found = intervals.analyse(model, low=-1.0, high=3.0).of(value(model, "y"))
    np.testing.assert_allclose([found.low[0], found.high[0]], [10 - 1 - 6, 10 + 3 + 2], rtol=1e-5)


def test_padding_is_bounded_window_by_window() -> None:
    """All inputs are 1: the kernel [1, -10, 1] never shows -10 with both neighbours cut, nor the sum 2 alone."""
    model = build([node("Conv", ["x", "w"], pads=[1, 1])], [1, 1, 8], {"w": np.float32([[[1, -10, 1]]])})
    found = intervals.analyse(model, low=1.0, high=1.0).of(value(model, "y"))
    np.testing.assert_allclose([found.low[0], found.high[0]], [-9, -8], rtol=1e-5)


def test_taps_of_a_transposed_convolution_meet_only_in_one_residue() -> None:
    model = build([node("ConvTranspose", ["x", "w"], strides=[2])], [1, 1, 8], {"w": np.float32([[[5, 7]]])})
    found = intervals.analyse(model, low=1.0, high=1.0).of(value(model, "y"))
    np.testing.assert_allclose([found.low[0], found.high[0]], [0, 7], atol=1e-4)


def test_zero_inputs_leave_exactly_the_bias() -> None:
    nodes = [node("Clip", ["x", "zero", "zero"], "c"), node("Conv", ["c", "w", "b"])]
    weights = {"w": weight(2, 3, 3, 3), "b": np.float32([0.1, -7]), "zero": np.array(0, np.float32)}
    model = build(nodes, [1, 3, 5, 5], weights)
    known = intervals.analyse(model)
    indices, constants = known.constant_channels(value(model, "y"))
    assert indices.tolist() == [0, 1]
    assert constants.tolist() == [float(np.float32(0.1)), -7.0]


def test_half_open_inputs_prove_one_side() -> None:
    """Relu of an unbounded input, then weights below zero: nothing above the bias."""
    nodes = [node("Relu", ["x"], "r"), node("Conv", ["r", "w", "b"], "c"), node("Relu", ["c"])]
    model = build(nodes, [1, 2, 4, 4], {"w": -np.abs(weight(2, 2, 3, 3)), "b": np.float32([-1, 1])})
    known = intervals.analyse(model)
    assert known.of(value(model, "c")).low.tolist() == [-np.inf, -np.inf]
    assert known.of(value(model, "c")).high.tolist() == [-1.0, 1.0]
    assert known.constant_channels(value(model, "y"))[0].tolist() == [0]


def test_bounds_near_a_limit_are_no_proof() -> None:
    """A pre-activation that reaches zero but for rounding is not constant behind Relu."""
    for bias, proven in ((-6.0, False), (-6.0001, True)):
        nodes = [node("Gemm", ["x", "w", "b"], "g"), node("Relu", ["g"])]
        model = build(nodes, [1, 2], {"w": np.float32([[1], [2]]), "b": np.float32([bias])})
        known = intervals.analyse(model, low=0.0, high=2.0)
        assert bool(known.constant_channels(value(model, "y"))[0].size) is proven


# -- not knowing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op_type", ["CumSum", "Unheard"])
def test_unknown_operators_are_unbounded(op_type: str) -> None:
    inputs = ["x", "axis"] if op_type == "CumSum" else ["x"]
    model = build([node(op_type, inputs), node("Relu", ["y"], "z")], [1, 4], {"axis": np.array(1)})
    known = intervals.analyse(model, low=0.0, high=1.0)
    assert known.of(value(model, "y")).hull == (-np.inf, np.inf)
    assert known.of(value(model, "z")).hull == (0.0, np.inf)


def test_other_domains_are_not_taken_for_standard_ones() -> None:
    model = build([helper.make_node("Relu", ["x"], ["y"], "relu", domain="their.own")], [1, 4])
    assert intervals.analyse(model).of(value(model, "y")).low[0] == -np.inf


def test_overflow_is_unbounded() -> None:
    model = build([node("Mul", ["x", "k"])], [1, 4], {"k": np.array(1e30, np.float32)})
    assert intervals.analyse(model, low=1e10, high=1e20).of(value(model, "y")).hull == (-np.inf, np.inf)


def test_nan_weights_prove_nothing() -> None:
    nodes = [node("Conv", ["x", "w"], "c"), node("Relu", ["c"])]
    model = build(nodes, [1, 1, 3, 3], {"w": np.full((1, 1, 1, 1), np.nan, np.float32)})
    assert intervals.analyse(model, low=0, high=1).constant_channels(value(model, "y"))[0].size == 0


def test_declared_ranges_by_name_and_channel() -> None:
    model = build([node("Conv", ["x", "w"])], [1, 2, 3, 3], {"w": np.float32([[[[1]], [[1]]]])})
    known = intervals.analyse(model, low=-9, high=9, ranges={"x": ([0.0, 1.0], [1.0, 5.0])})
    found = known.of(value(model, "y"))
    np.testing.assert_allclose([found.low[0], found.high[0]], [1, 6], rtol=1e-5)


def test_a_default_that_a_feed_may_override_is_no_constant() -> None:
    model = build([node("Add", ["x", "k"])], [1, 4], {"k": np.array(1, np.float32)})
    constant = model.graph.initializers["k"]
    model.graph.inputs.append(constant)
    assert intervals.analyse(model, low=0, high=1, ranges={"k": (-5.0, 5.0)}).of(value(model, "y")).low[0] <= -5


# -- real models -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dscnn_kws", "vit_mnist", "stories260k_lm", "minilm_l6_stsb", "resnet20_cifar10"])
def test_real_models_lie_within(zoo: ModuleType, name: str) -> None:
    case = zoo.load(name)
    model = io.load(case.model)
    shapes.infer(model)
    (feed,) = case.calibration(1)
    floats = [array for array in feed.values() if array.dtype.kind == "f"]
    low = min((float(array.min()) for array in floats), default=0.0)
    high = max((float(array.max()) for array in floats), default=0.0)
    assert_holds(model, feed, low, high)


def test_a_small_network_is_bounded_throughout(small_cnn: ir.Model) -> None:
    feed = {"x": np.random.default_rng(0).uniform(-1, 1, (2, 3, 8, 8)).astype(np.float32)}
    known = assert_holds(small_cnn, feed, -1.0, 1.0)
    assert known.of(small_cnn.graph.outputs[0]).bounded


@pytest.mark.parametrize("axis", [0, -2])
def test_columns_of_a_table_with_a_scale_per_row_keep_their_range(parse: Any, axis: int) -> None:
    text = f"""<ir_version: 10, opset_import: ["" : 21]> g (int64[2, 3] x) => (float[2, 3, 4] y) <int8[3, 4] t = {{
        1, 2, 3, 4, -5, 6, 7, 8, 9, 10, 11, -12}}, float[3] s = {{1.0, 0.5, 2.0}}, int8[3] z = {{0, 0, 0}}>
        {{ r = DequantizeLinear <axis = {axis}> (t, s, z) y = Gather <axis = {axis}> (r, x) }}"""
    model = parse(text)
    assert_holds(model, {"x": np.array([[0, 1, 2], [-1, -2, -3]])}, -np.inf, np.inf)
    found = intervals.analyse(model).of(value(model, "y"))
    assert (found.axis, found.low.tolist(), found.high.tolist()) == (2, [-2.5, 2, 3, -24], [18, 20, 22, 4])
