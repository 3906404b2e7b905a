"""Channels proven constant go into biases, and only those."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from qcompiler.ir import io
from qcompiler.ir.edit import Edit
from qcompiler.ir.execute import Runner
from qcompiler.passes.normalize.fold_constant_channels import FoldConstantChannels
from qcompiler.pipeline.base import Context, Pass

Arrays = dict[str, NDArray[Any]]
Apply = Callable[..., Context]
Equal = Callable[..., float]


def build(nodes: list[onnx.NodeProto], shape: list[int], weights: Arrays) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def node(op_type: str, inputs: list[str], output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs, [output], f"{op_type}_{output}", **attributes)


def content(model: ir.Model, op_type: str, number: int, index: int) -> NDArray[Any]:
    """The constant at one input of the n-th node of a type."""
    found = [each for each in model.graph if each.op_type == op_type][number].inputs[index]
    assert found is not None
    assert found.const_value is not None
    return found.const_value.numpy()


def weights(*shapes: tuple[int, ...], seed: int = 1) -> list[NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    return [random.standard_normal(shape).astype(np.float32) for shape in shapes]


LIMITS = {"zero": np.array(0, np.float32), "six": np.array(6, np.float32)}


def two_layers(second: list[onnx.NodeProto], **constants: NDArray[Any]) -> onnx.ModelProto:
    """A 1×1 convolution with channel 0 always above 6, channel 1 always below 0, channel 2 alive; ``second`` behind."""
    (first,) = weights((3, 2, 1, 1))
    first[:2] *= 1e-6
    nodes = [node("Conv", ["x", "w1", "b1"], "c1"), node("Clip", ["c1", "zero", "six"], "r1"), *second]
    return build(nodes, [1, 2, 6, 6], {"w1": first, "b1": np.float32([9, -2, 0.5]), **LIMITS, **constants})


def test_constant_channels_become_biases(apply: Apply, equal: Equal) -> None:
    (second,) = weights((4, 3, 1, 1))
    proto = two_layers([node("Conv", ["r1", "w2"])], w2=second)
    model = ir.from_proto(proto)
    context = apply(model, FoldConstantChannels())
    assert equal(proto, model) <= 1e-6
    assert not content(model, "Conv", 0, 1)[:2].any()
    assert content(model, "Conv", 0, 1)[2].any()
    np.testing.assert_array_equal(content(model, "Conv", 0, 2), np.float32([6, 0, 0.5]))
    assert not content(model, "Conv", 1, 1)[:, :2].any()
    np.testing.assert_array_equal(content(model, "Conv", 1, 1)[:, 2], second[:, 2])
    np.testing.assert_allclose(content(model, "Conv", 1, 2), second[:, 0, 0, 0] * 6, rtol=1e-6)
    notes = [item.text for item in context.records[-1].notes]
    assert any(text.startswith("2 output channels are constant") and "Conv_c1 2" in text for text in notes)
    assert any(text.startswith("2 constant input channels") for text in notes)
    assert "[-65536, 65536]" in notes[0]


def test_a_padding_layer_keeps_constants_that_are_not_zero(
    apply: Apply, equal: Equal, skips: Callable[[Context], list[str]]
) -> None:
    """Zeros beside the image are not 6: only the channel that is 0 may vanish."""
    (second,) = weights((4, 3, 3, 3))
    proto = two_layers([node("Conv", ["r1", "w2"], pads=[1, 1, 1, 1])], w2=second)
    model = ir.from_proto(proto)
    context = apply(model, FoldConstantChannels())
    assert equal(proto, model) <= 1e-6
    np.testing.assert_array_equal(content(model, "Conv", 1, 1)[:, 0], second[:, 0])
    assert not content(model, "Conv", 1, 1)[:, 1].any()
    assert any("zero padding" in text for text in skips(context))


def test_depthwise_passes_the_constant_on(apply: Apply, equal: Equal) -> None:
    """Channel by channel: 6 through an unpadded filter is a constant again, 0 leaves the bias, both reach the third."""
    depthwise, last = weights((3, 1, 3, 3), (5, 3, 1, 1))
    proto = two_layers(
        [
            node("Conv", ["r1", "w2", "b2"], "c2", group=3),
            node("Relu", ["c2"], "r2"),
            node("Conv", ["r2", "w3"]),
        ],
        w2=depthwise,
        b2=np.float32([1, 0.25, 0]),
        w3=last,
    )
    model = ir.from_proto(proto)
    apply(model, FoldConstantChannels())
    assert equal(proto, model) <= 1e-6
    assert not content(model, "Conv", 1, 1)[:2].any()
    assert not content(model, "Conv", 2, 1)[:, :2].any()
    assert content(model, "Conv", 1, 2)[1] == 0.25


def test_gemm_in_both_layouts(apply: Apply, equal: Equal) -> None:
    first, second = weights((4, 3), (3, 5))
    first[:, 1] *= 1e-6
    nodes = [node("Gemm", ["x", "w1", "b1"], "g"), node("Relu", ["g"], "r"), node("Gemm", ["r", "w2"], transB=1)]
    constants = {"w1": first, "b1": np.float32([0, -3, 0]), "w2": np.ascontiguousarray(second.T)}
    proto = build(nodes, [2, 4], constants)
    model = ir.from_proto(proto)
    apply(model, FoldConstantChannels())
    assert equal(proto, model) <= 1e-6
    assert not content(model, "Gemm", 0, 1)[:, 1].any()
    assert content(model, "Gemm", 0, 2)[1] == 0
    assert not content(model, "Gemm", 1, 1)[:, 1].any()


def test_flattened_channels_reach_the_classifier(apply: Apply, equal: Equal) -> None:
    (last,) = weights((108, 4))
    proto = two_layers([node("Flatten", ["r1"], "f"), node("Gemm", ["f", "w2"])], w2=last)
    model = ir.from_proto(proto)
    apply(model, FoldConstantChannels())
    assert equal(proto, model) <= 1e-6
    assert not content(model, "Gemm", 0, 1)[:72].any()
    assert content(model, "Gemm", 0, 1)[72:].any()


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolution(apply: Apply, equal: Equal, groups: int) -> None:
    first, second = weights((4, 4 // groups, 3, 3), (4, 4, 1, 1))
    first *= 1e-6
    nodes = [
        node("ConvTranspose", ["x", "w1", "b1"], "t", group=groups, strides=[2, 2]),
        node("Relu", ["t"], "r"),
        node("Conv", ["r", "w2"]),
    ]
    proto = build(nodes, [1, 4, 3, 3], {"w1": first, "b1": np.float32([-2, 3, -1, -9]), "w2": second})
    model = ir.from_proto(proto)
    apply(model, FoldConstantChannels())
    assert equal(proto, model) <= 1e-6
    np.testing.assert_array_equal(content(model, "ConvTranspose", 0, 2), np.float32([0, 3, 0, 0]))
    assert content(model, "Conv", 0, 1)[:, 1].any()
    assert not content(model, "Conv", 0, 1)[:, [0, 2, 3]].any()


def test_saturated_hard_swish(apply: Apply, equal: Equal) -> None:
    first, second = weights((3, 2, 1, 1), (2, 3, 1, 1))
    first[0] *= 1e-6
    nodes = [node("Conv", ["x", "w1", "b1"], "c"), node("HardSwish", ["c"], "h"), node("Conv", ["h", "w2"])]
    proto = build(nodes, [1, 2, 4, 4], {"w1": first, "b1": np.float32([-5, 0, 0]), "w2": second})
    model = ir.from_proto(proto)
    apply(model, FoldConstantChannels())
    assert equal(proto, model) <= 1e-6
    assert not content(model, "Conv", 0, 1)[0].any()
    assert not content(model, "Conv", 1, 1)[:, 0].any()


def test_shared_weights_are_not_changed_for_the_other_reader(apply: Apply, equal: Equal) -> None:
    (shared,) = weights((3, 3, 1, 1))
    proto = two_layers(
        [
            node("Conv", ["r1", "w2"], "a"),
            node("Sigmoid", ["r1"], "s"),
            node("Conv", ["s", "w2"], "b"),
            node("Add", ["a", "b"]),
        ],
        w2=shared,
    )
    model = ir.from_proto(proto)
    apply(model, FoldConstantChannels())
    assert equal(proto, model) <= 1e-6
    np.testing.assert_array_equal(content(model, "Conv", 2, 1), shared)


def test_a_weight_from_outside_is_left_alone(apply: Apply) -> None:
    (second,) = weights((4, 3, 1, 1))
    proto = two_layers([node("Conv", ["r1", "w2"])], w2=second)
    proto.graph.input.append(helper.make_tensor_value_info("w1", onnx.TensorProto.FLOAT, [3, 2, 1, 1]))
    del proto.graph.initializer[0]
    assert apply(ir.from_proto(proto), FoldConstantChannels()).edit.count == 0


def test_living_channels_stay(apply: Apply, small_cnn: ir.Model) -> None:
    context = apply(small_cnn, FoldConstantChannels())
    assert context.edit.count == 0
    assert context.records[-1].notes == []


def test_without_a_declared_range_less_is_proven(apply: Apply) -> None:
    (second,) = weights((4, 3, 1, 1))
    model = ir.from_proto(two_layers([node("Conv", ["r1", "w2"])], w2=second))
    assert apply(model, FoldConstantChannels(input_low=-np.inf, input_high=np.inf)).edit.count == 0


def folded(zoo: ModuleType, name: str, family: tuple[Pass, ...]) -> tuple[ir.Model, Context, Any]:
    case = zoo.load(name)
    model = io.load(case.model)
    context = Context(Edit(model))
    for each in family:
        each.run(model, context)
    return model, context, case


def test_mobilenet(zoo: ModuleType, family: tuple[Pass, ...], apply: Apply) -> None:
    """21 channels of it are constant behind Clip: 20 whatever the image, the last within [-1, 1]."""
    model, _, case = folded(zoo, "mobilenetv1_025_imagenet", family)
    feeds = case.calibration(3)
    runner = Runner(model, outputs=["conv_preds"])
    before = [runner.run(feed)["conv_preds"] for feed in feeds]
    largest = {str(item.name): np.abs(content(model, "Conv", i, 1)).max() for i, item in enumerate(convolutions(model))}
    context = apply(model, FoldConstantChannels())
    assert context.records[-1].notes[0].text.startswith("17 output channels")
    assert context.records[-1].notes[1].text.startswith("20 constant input channels")
    after = {str(item.name): np.abs(content(model, "Conv", i, 1)).max() for i, item in enumerate(convolutions(model))}
    assert sorted(name for name in largest if after[name] < largest[name] / 5) == [
        "conv_dw_1",
        "conv_dw_2",
        "conv_dw_3",
        "conv_dw_6",
    ]
    runner = Runner(model, outputs=["conv_preds"])
    for want, feed in zip(before, feeds, strict=True):
        got = runner.run(feed)["conv_preds"]
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


def convolutions(model: ir.Model) -> list[ir.Node]:
    return [item for item in model.graph if item.op_type == "Conv"]
