"""Layers as matrices: patches times weights are what ONNX Runtime computes, codes survive placement."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcompiler.ir.execute import Runner
from qcompiler.passes.place.simulate import materialized
from qcompiler.passes.round._layers import own_weight, roundable_layers, write_codes
from qcompiler.passes.round._patches import chosen_rows, input_rows, row_count
from qcompiler.quant.params import QParams

Calibrated = Callable[..., tuple]

GRAPHS = {
    "conv": ("y = Conv <pads=[1,0,2,1], strides=[2,1], dilations=[1,2]> (x, w)", "[2,4,9,8]", (6, 4, 3, 3)),
    "grouped": ("y = Conv <group=2, pads=[1,1,1,1]> (x, w)", "[2,4,5,6]", (6, 2, 3, 3)),
    "depthwise": ("y = Conv <group=4, strides=[2,2]> (x, w)", "[2,4,7,7]", (8, 1, 3, 3)),
    "line": ("y = Conv <pads=[2,1]> (x, w)", "[2,4,9]", (5, 4, 3)),
    "gemm": ("y = Gemm (x, w)", "[7,5]", (5, 3)),
    "gemm_transposed": ("y = Gemm <transB=1> (x, w)", "[7,5]", (3, 5)),
    "matmul": ("y = MatMul (x, w)", "[2,7,5]", (5, 3)),
}


def dimensions(text: str) -> tuple[int, ...]:
    return tuple(int(item) for item in text.strip("[]").split(","))


def only_layer(model: ir.Model):
    [(_, layer)] = list(roundable_layers(model.graph))
    assert not isinstance(layer, str), layer
    return layer


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("form", ["w4a8", "w8a8/tensor"])
def test_rows_times_weights_are_the_outputs(calibrated: Calibrated, name: str, form: str) -> None:
    body, shape, weight = GRAPHS[name]
    data = np.random.default_rng(1).normal(size=dimensions(shape)).astype(np.float32)
    model, _ = calibrated(body, f"float{shape} x", "float y", {"w": weight}, [{"x": data}], form)
    layer = only_layer(model)
    expected = Runner(model).run({"x": data})["y"]
    expected = np.moveaxis(expected, 1, -1) if "Conv" in body else expected
    count = row_count(layer, data.shape)
    assert count == expected.size // expected.shape[-1]
    rows = input_rows(layer, data, chosen_rows(count, 0, 0))
    got = np.matmul(rows, layer.weights().transpose(0, 2, 1)).transpose(1, 0, 2).reshape(count, -1)
    np.testing.assert_allclose(got, expected.reshape(count, -1), rtol=1e-4, atol=1e-5)
    few = chosen_rows(count, 3, 5)
    np.testing.assert_array_equal(input_rows(layer, data, few), rows[:, few])
    np.testing.assert_array_equal(layer.tensor(layer.weights()), model.graph.initializers["w"].const_value.numpy())


def test_transposed_data_of_gemm(calibrated: Calibrated) -> None:
    weight = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    data = np.random.default_rng(1).normal(size=(5, 7)).astype(np.float32)
    feeds = [{"x": data.T}]
    model, _ = calibrated("y = Gemm (x, w)", "float[7,5] x", "float y", {"w": (5, 3)}, feeds, w=weight)
    layer = only_layer(model)
    layer.node.attributes["transA"] = ir.AttrInt64("transA", 1)
    assert row_count(layer, data.shape) == 7
    np.testing.assert_array_equal(input_rows(layer, data, np.arange(7))[0], data.T)


def test_padding_rows_are_never_chosen() -> None:
    weights = np.array([1, 0, 1, 1, 0, 1])
    np.testing.assert_array_equal(chosen_rows(6, 0, 0, weights), [0, 2, 3, 5])
    assert set(chosen_rows(6, 2, 0, weights)) < {0, 2, 3, 5}


CODED = [("w4a8", "edge-npu"), ("w8a8/tensor", "edge-npu"), ("w4a8", "fpga-pot"), ("w4", "lowbit-cpu")]
CODED += [("w2/sym", "lowbit-cpu"), ("w3/block=16", "lowbit-cpu")]


@pytest.mark.parametrize(("form", "target"), CODED)
def test_codes_survive_placement(calibrated: Calibrated, form: str, target: str) -> None:
    data = np.random.default_rng(1).normal(size=(6, 40)).astype(np.float32)
    model, ctx = calibrated(
        "y = MatMul (x, w)", "float[6,40] x", "float y", {"w": (40, 8)}, [{"x": data}], form, target
    )
    layer = only_layer(model)
    form_of = layer.quant.format
    size = (layer.groups, layer.rows, layer.columns)
    codes = np.random.default_rng(2).integers(form_of.minimum, form_of.maximum + 1, size)
    params = QParams((layer.params.scale * np.float32(2)).astype(np.float32), layer.params.zero_point)
    write_codes(layer, codes, ctx, params)
    placed = materialized(model)
    stored = placed.graph.initializers["w_quantized"].const_value.numpy().astype(np.int64)
    np.testing.assert_array_equal(stored, layer.tensor(codes))
    np.testing.assert_array_equal(only_layer(model).params.scale, params.scale)


def test_scales_are_spread_over_blocks(calibrated: Calibrated) -> None:
    data = np.random.default_rng(1).normal(size=(6, 40)).astype(np.float32)
    model, _ = calibrated(
        "y = MatMul (x, w)", "float[6,40] x", "float y", {"w": (40, 8)}, [{"x": data}], "w4", "lowbit-cpu"
    )
    layer = only_layer(model)
    assert layer.params.scale.shape == (2, 8)
    owners = layer.owners()
    np.testing.assert_array_equal(layer.grid().scale, layer.params.scale.reshape(-1)[owners])
    assert owners.shape == (1, 8, 40)
    assert len(np.unique(owners[0, 3])) == 2


def test_a_weight_read_in_two_formats_is_copied_and_one_read_alike_is_left(calibrated: Calibrated) -> None:
    feeds = [{"x": np.random.default_rng(1).normal(size=(6, 64)).astype(np.float32)}]
    body = "a = MatMul (x, w)\n b = Relu (a)\n y = MatMul (b, w)"
    model, _ = calibrated(body, "float[6,64] x", "float y", {"w": (64, 64)}, feeds)
    found = [layer for _, layer in roundable_layers(model.graph)]
    assert found == ["its weight is also that of MatMul_y (MatMul)", "its weight is also that of MatMul_a (MatMul)"]
    body = "z = Constant <value = int64[2] {1, 3}> ()\n e = Gather (w, z)\n y = MatMul (x, w)"
    model, ctx = calibrated(body, "float[6,64] x", "float y, float e", {"w": (64, 64)}, feeds, "w4", "lowbit-cpu")
    [layer] = [layer for _, layer in roundable_layers(model.graph) if not isinstance(layer, str)]
    before = model.graph.initializers["w"].const_value.numpy()
    own_weight(layer, ctx)
    assert layer.weight.name == "w_MatMul_y"
    write_codes(layer, layer.codes(), ctx)
    np.testing.assert_array_equal(model.graph.initializers["w"].const_value.numpy(), before)
    onnx.checker.check_model(ir.to_proto(model))
