"""Factors move between layers: the weights become alike, the model computes what it did."""

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

from qcompiler.errors import UsageError
from qcompiler.ir import io
from qcompiler.ir.edit import Edit
from qcompiler.ir.execute import Runner
from qcompiler.ir.facts import check
from qcompiler.ir.statistics import set_statistics, statistics
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.passes.calibrate.calibrate import Calibrate
from qcompiler.passes.calibrate.calibrate_weights import CalibrateWeights
from qcompiler.passes.equalize.equalize_channels import EqualizeChannels
from qcompiler.passes.place.place_qdq import PlaceQdq
from qcompiler.pipeline import spec
from qcompiler.pipeline.base import Context, Fact, PassRecord
from qcompiler.quant import state
from qcompiler.target.legality import check_model
from qcompiler.target.load import load

Array = NDArray[Any]
FULL = EqualizeChannels(when="always", growth=float("inf"))
SIX = {"zero": np.array(0, np.float32), "six": np.array(6, np.float32)}


def node(op_type: str, inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs.split(), [output], f"{op_type}_{output}", **attributes)


def build(nodes: list[onnx.NodeProto], shape: list[Any], outputs: str = "y", **weights: Array) -> ir.Model:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs.split()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model)
    onnx.checker.check_model(model)
    return ir.from_proto(model)


def uneven(*shape: int, axis: int = 0, seed: int = 0) -> Array:
    """Normal numbers whose channels along ``axis`` differ by up to a factor of about 2000."""
    random = np.random.default_rng([seed, *shape])
    sizes = 2.0 ** random.uniform(-6, 5, shape[axis])
    return (random.standard_normal(shape) * sizes.reshape([-1 if i == axis else 1 for i in range(len(shape))])).astype(
        np.float32
    )


def relu_chain(activation: str = "Relu", **attributes: Any) -> ir.Model:
    return build(
        [
            node("Conv", "x w1 b1", "c", pads=[1, 1, 1, 1]),
            node(activation, "c", "r", **attributes),
            node("Conv", "r w2 b2"),
        ],
        ["N", 3, 6, 6],
        w1=uneven(8, 3, 3, 3),
        b1=uneven(8),
        w2=uneven(4, 8, 1, 1, axis=1),
        b2=uneven(4),
    )


def mobile_chain() -> ir.Model:
    """1×1, depthwise with padding, 1×1, each but the last behind Relu6, as in a MobileNet."""
    return build(
        [
            node("Conv", "x w1 b1", "c1"),
            node("Clip", "c1 zero six", "r1"),
            node("Conv", "r1 w2 b2", "c2", group=8, pads=[1, 1, 1, 1]),
            node("Clip", "c2 zero six", "r2"),
            node("Conv", "r2 w3"),
        ],
        ["N", 3, 6, 6],
        w1=uneven(8, 3, 1, 1),
        b1=uneven(8),
        w2=uneven(8, 1, 3, 3),
        b2=uneven(8),
        w3=uneven(4, 8, 1, 1, axis=1),
        **SIX,
    )


def feed(model: ir.Model) -> dict[str, Array]:
    shape = model.graph.inputs[0].shape
    assert shape is not None
    sizes = [size if isinstance(size, int) else 2 for size in shape]
    return {"x": np.random.default_rng(7).standard_normal(sizes).astype(np.float32)}


def run(model: ir.Model, which: EqualizeChannels = FULL, target: str | None = None) -> Context:
    """Run the pass; check that outputs and facts hold and that a second run changes nothing."""
    wanted = Runner(model, optimize=False).run(feed(model))
    context = Context(Edit(model), target=None if target is None else load(target))
    context.records.append(PassRecord(which.name))
    which.run(model, context)
    got = Runner(model, optimize=False).run(feed(model))
    assert list(got) == list(wanted)
    for name, array in wanted.items():
        assert np.abs(got[name] - array).max() <= 1e-5 * np.abs(array).max(), name
    for fact in (Fact.TYPED, Fact.SORTED, Fact.CANONICAL):
        assert not check(fact, model)
    onnx.checker.check_model(ir.to_proto(model))
    before = context.edit.count
    which.run(model, Context(context.edit, target=context.target))
    assert context.edit.count == before, "a second run changes something"
    return context


def skipped(context: Context) -> str:
    return "; ".join(f"{skip.node}: {skip.reason}" for skip in context.records[0].skips)


def content(model: ir.Model, name: str) -> Array:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


def rows(weight: Array) -> Array:
    return np.abs(weight).reshape(weight.shape[0], -1).max(1)


def columns(weight: Array) -> Array:
    return np.abs(weight).max(axis=(0, *range(2, weight.ndim)))


def kinds(model: ir.Model) -> list[str]:
    return [item.op_type for item in model.graph]


@pytest.mark.parametrize(
    ("activation", "attributes"),
    [("Relu", {}), ("LeakyRelu", {"alpha": 0.1}), ("MaxPool", {"kernel_shape": [2, 2]}), ("GlobalAveragePool", {})],
)
def test_both_sides_get_the_same_range(activation: str, attributes: dict[str, Any]) -> None:
    model = relu_chain(activation, **attributes)
    before = kinds(model)
    context = run(model)
    first, second = rows(content(model, "w1")), columns(content(model, "w2"))
    np.testing.assert_allclose(first / second, np.full(8, first[0] / second[0]), rtol=1e-3)
    assert kinds(model) == before
    assert context.records[0].notes[0].text == "equalized the channels between 1 of 1 pairs of layers"


def test_factors_of_one_pair_are_those_of_the_paper() -> None:
    model = relu_chain()
    first, second = content(model, "w1").copy(), content(model, "w2").copy()
    bias = content(model, "b1").copy()
    run(model)
    factors = np.sqrt(rows(first) / columns(second)).astype(np.float64)
    factors /= np.exp(np.log(factors).mean())  # a common factor says nothing
    np.testing.assert_allclose(content(model, "w1"), first / factors.reshape(-1, 1, 1, 1), rtol=1e-5)
    np.testing.assert_allclose(content(model, "b1"), bias / factors, rtol=1e-5)
    np.testing.assert_allclose(content(model, "w2"), second * factors.reshape(1, -1, 1, 1), rtol=1e-5)


def test_relu6_gets_a_bound_per_channel() -> None:
    model = mobile_chain()
    first = content(model, "w1").copy()
    run(model)
    assert kinds(model) == ["Conv", "Relu", "Min", "Conv", "Relu", "Min", "Conv"]
    bounds = content(model, "Clip_r1_bounds")
    assert bounds.shape == (1, 8, 1, 1)
    factors = rows(first) / rows(content(model, "w1"))
    np.testing.assert_allclose(bounds.ravel(), 6 / factors, rtol=1e-5)
    # A depthwise channel belongs to both pairs: all three layers meet.
    middle = rows(content(model, "w2"))
    for other in (rows(content(model, "w1")), columns(content(model, "w3"))):
        np.testing.assert_allclose(other / middle, np.full(8, other[0] / middle[0]), rtol=1e-2)


def test_changed_tensors_change_their_names() -> None:
    """What is compared by name with the float model must have its content."""
    model = mobile_chain()
    run(model)
    names = {str(value.name) for item in model.graph for value in item.outputs}
    assert not names & {"c1", "r1", "c2", "r2"}
    assert {"r1_equalized", "r2_equalized", "y"} <= names


def test_growth_limits_how_large_a_channel_becomes() -> None:
    model = mobile_chain()
    run(model, EqualizeChannels(when="always", growth=1))
    assert content(model, "Clip_r1_bounds").max() <= 6
    model = mobile_chain()
    run(model, EqualizeChannels(when="always", growth=2))
    assert 6 < content(model, "Clip_r1_bounds").max() <= 12 * (1 + 1e-6)


def test_balanced_channels_keep_their_clip() -> None:
    model = mobile_chain()
    for name in ("w1", "w2", "w3"):
        model.graph.initializers[name].const_value = ir.Tensor(np.sign(content(model, name)))
    context = run(model)
    assert kinds(model).count("Clip") == 2
    assert context.edit.count == 0


def test_statistics_follow_their_tensor() -> None:
    model = relu_chain()
    first = content(model, "w1").copy()
    output = model.graph[0].outputs[0]
    set_statistics(output, np.ones(8), np.full(8, 4.0))
    run(model)
    factors = rows(first) / rows(content(model, "w1"))
    found = statistics(output)
    assert found is not None
    np.testing.assert_allclose(found[0], 1 / factors, rtol=1e-5)
    np.testing.assert_allclose(found[1], 4 / factors**2, rtol=1e-5)


def test_dead_channels_stay() -> None:
    model = relu_chain()
    first, second = content(model, "w1").copy(), content(model, "w2").copy()
    first[2], second[:, 5] = 0, 0
    for name, array in (("w1", first), ("w2", second)):
        model.graph.initializers[name].const_value = ir.Tensor(array)
    run(model)
    np.testing.assert_array_equal(content(model, "w2")[:, 2], second[:, 2])
    np.testing.assert_array_equal(content(model, "w1")[5], first[5])
    assert not np.array_equal(content(model, "w1")[0], first[0])


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_behind_a_flatten(transposed: int) -> None:
    last = uneven(8 * 36, 5)
    model = build(
        [
            node("Conv", "x w1 b1", "c", pads=[1, 1, 1, 1]),
            node("Relu", "c", "r"),
            node("Flatten", "r", "f"),
            node("Gemm", "f w2", "g", transB=transposed),
            node("Relu", "g", "s"),
            node("Gemm", "s w3"),
        ],
        ["N", 3, 6, 6],
        w1=uneven(8, 3, 3, 3),
        b1=uneven(8),
        w2=np.ascontiguousarray(last.T) if transposed else last,
        w3=uneven(5, 3),
    )
    run(model)
    weight = content(model, "w2").T if transposed else content(model, "w2")
    by_channel = np.abs(weight).reshape(8, -1).max(1)
    first = rows(content(model, "w1"))
    np.testing.assert_allclose(by_channel / first, np.full(8, by_channel[0] / first[0]), rtol=1e-3)


def test_gemm_chain_with_bounds() -> None:
    nodes = [node("Gemm", "x w1 b1", "g"), node("Clip", "g zero six", "r"), node("Gemm", "r w2")]
    model = build(nodes, ["N", 4], w1=uneven(4, 6, axis=1), b1=uneven(6), w2=uneven(6, 2), **SIX)
    run(model)
    assert content(model, "Clip_r_bounds").shape == (1, 6)


@pytest.mark.parametrize(("first", "second"), [("Conv", "ConvTranspose"), ("ConvTranspose", "Conv")])
@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_and_grouped(first: str, second: str, groups: int) -> None:
    model = build(
        [node(first, "x w1 b1", "c", group=groups), node("Relu", "c", "r"), node(second, "r w2", group=groups)],
        [2, 4, 5, 5],
        w1=uneven(4, 4 // groups, 3, 3, axis=1),
        b1=uneven(4),
        w2=uneven(4, 4 // groups, 3, 3),
    )
    context = run(model)
    assert context.edit.count


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1.0, 2.0, float("inf")]), st.booleans())
def test_any_chain_keeps_its_outputs(seed: int, growth: float, bounded: bool) -> None:
    activation = "Clip" if bounded else "Relu"
    operands = " zero six" if bounded else ""
    model = build(
        [
            node("Conv", "x w1 b1", "c1"),
            node(activation, "c1" + operands, "r1"),
            node("Conv", "r1 w2 b2", "c2", group=6, pads=[1, 1, 1, 1]),
            node(activation, "c2" + operands, "r2"),
            node("Conv", "r2 w3"),
        ],
        [1, 3, 4, 4],
        w1=uneven(6, 3, 1, 1, seed=seed),
        b1=uneven(6, seed=seed),
        w2=uneven(6, 1, 3, 3, seed=seed),
        b2=uneven(6, seed=seed + 1),
        w3=uneven(2, 6, 1, 1, axis=1, seed=seed),
        **SIX,
    )
    run(model, EqualizeChannels(when="always", growth=growth))


# -- refusals ----------------------------------------------------------------------------------------------------


def test_residual_is_left_alone() -> None:
    model = build(
        [
            node("Conv", "x w1", "c", pads=[1, 1, 1, 1]),
            node("Relu", "c", "r"),
            node("Conv", "r w2", "d", pads=[1, 1, 1, 1]),
            node("Add", "d r", "s"),
            node("Conv", "s w3"),
        ],
        [1, 4, 6, 6],
        **{name: uneven(4, 4, 3, 3, seed=i) for i, name in enumerate(("w1", "w2", "w3"))},
    )
    context = run(model)
    assert context.edit.count == 0
    assert "Conv_c (Conv): its result is read by 2 nodes" in skipped(context)
    assert "Conv_d (Conv): Add_s (Add) behind it does not let a factor pass" in skipped(context)
    assert "Conv_y (Conv): its result is an output of the model" in skipped(context)


def test_shared_weight_is_left_alone() -> None:
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("Conv", "r w")]
    context = run(build(nodes, [1, 4, 6, 6], w=uneven(4, 4, 1, 1)))
    assert context.edit.count == 0
    assert "its weight is shared with other nodes" in skipped(context)


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (node("Sigmoid", "c", "r"), "Sigmoid_r (Sigmoid) behind it does not let a factor pass"),
        (node("Clip", "c low six", "r"), "Clip_r behind it clips at other bounds than 0 and a positive number"),
        (node("Min", "c six", "r"), "Min_r (Min) behind it has no bound per channel of its own"),
        (node("Reshape", "c sizes", "r"), "Reshape_r (Reshape) behind it moves channels"),
    ],
)
def test_what_does_not_let_a_factor_pass(between: onnx.NodeProto, reason: str) -> None:
    constants = {"low": np.array(-1, np.float32), "six": SIX["six"], "sizes": np.array([1, 8, 3, 12])}
    nodes = [node("Conv", "x w1", "c"), between, node("Conv", "r w2")]
    context = run(build(nodes, [1, 4, 6, 6], w1=uneven(8, 4, 1, 1), w2=uneven(2, 8, 1, 1, axis=1), **constants))
    assert context.edit.count == 0
    assert reason in skipped(context)


def test_bounds_need_a_kernel_that_absorbs_them() -> None:
    context = run(mobile_chain(), target="cpu-x86")
    assert context.edit.count == 0
    assert "cpu-x86 absorbs no bound per channel (Relu, Min) behind Conv" in skipped(context)
    nodes = [
        node("Conv", "x w1", "c"),
        node("MaxPool", "c", "p", kernel_shape=[2, 2]),
        node("Clip", "p zero six", "r"),
        node("Conv", "r w2"),
    ]
    model = build(nodes, [1, 3, 6, 6], w1=uneven(8, 3, 1, 1), w2=uneven(2, 8, 1, 1, axis=1), **SIX)
    context = run(model, target="edge-npu-per-tensor")
    assert "Clip_r is not right behind it" in skipped(context)


# -- together with what follows ----------------------------------------------------------------------------------


def test_only_where_weights_share_one_scale() -> None:
    for target, changes in (("edge-npu", False), ("edge-npu-per-tensor", True)):
        context = run(mobile_chain(), EqualizeChannels(), target)
        assert bool(context.edit.count) is changes
        assert context.records[0].notes[0].text.startswith("equalized" if changes else "nothing to equalize")


@pytest.mark.parametrize("growth", [0.0, -1.0, float("nan")])
def test_growth_must_be_positive(growth: float) -> None:
    model = relu_chain()
    with pytest.raises(UsageError, match="growth"):
        EqualizeChannels(growth=growth).run(model, Context(Edit(model)))


def test_bounds_are_absorbed_by_the_integer_kernel() -> None:
    from qcompiler.calibration import data

    model = mobile_chain()
    target = load("edge-npu-per-tensor")
    context = Context(Edit(model), target=target)
    EqualizeChannels().run(model, context)
    AssignFormats().run(model, context)
    decisions = {item.name: state.node_decision(item) for item in model.graph}
    fused = decisions["Clip_r1"]
    assert fused is not None
    assert fused.integer
    assert fused.reason == "fused into Conv_c1"
    context.calibration = data.random({"x": (np.dtype(np.float32), (1, 3, 6, 6))}, 4, 0)
    for each in (Calibrate(), CalibrateWeights(), PlaceQdq()):
        each.run(model, context)
    assert kinds(model).count("QuantizeLinear") == 4  # input and three results: no scale between Conv and Min
    assert check_model(model, target) == []


def test_a_min_of_two_activations_is_not_absorbed() -> None:
    nodes = [node("Conv", "x w1", "c"), node("Min", "c x", "m"), node("Conv", "m w2")]
    model = build(nodes, [1, 3, 6, 6], w1=uneven(3, 3, 1, 1), w2=uneven(2, 3, 1, 1))
    context = Context(Edit(model), target=load("edge-npu-per-tensor"))
    AssignFormats().run(model, context)
    decision = state.node_decision(model.graph[1])
    assert decision is not None
    assert not decision.integer


@pytest.mark.parametrize("name", ["mobilenetv1_025_imagenet", "resnet20_cifar10", "dscnn_kws"])
def test_pretrained_models_keep_their_outputs(zoo: ModuleType, name: str) -> None:
    case = zoo.load(name)
    model = io.load(case.model)
    context = Context(Edit(model), target=load("edge-npu-per-tensor"))
    passes = [each for each in spec.resolve("normalize") if each.name != "infer-shapes"]
    for each in passes:
        each.run(model, context)
    samples = case.calibration(4)
    runner = Runner(model, optimize=False)
    wanted = [runner.run(sample) for sample in samples]
    context.records.append(PassRecord("equalize-channels"))
    EqualizeChannels().run(model, context)
    count = context.edit.count
    runner = Runner(model, optimize=False)
    for sample, outputs in zip(samples, wanted, strict=True):
        got = runner.run(sample)
        for output, array in outputs.items():
            assert np.abs(got[output] - array).max() <= 1e-5 * np.abs(array).max()
    EqualizeChannels().run(model, context)
    assert context.edit.count == count
    assert context.records[-1].notes[0].text.startswith("equalized")
