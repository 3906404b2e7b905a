"""round-gptq: codes for the least output error, kept only where samples left out agree."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.errors import DataError
from qcompiler.ir.execute import Runner
from qcompiler.passes.place.simulate import materialized
from qcompiler.passes.round import _fit
from qcompiler.passes.round._fit import Options, fit_layers
from qcompiler.passes.round._layers import roundable_layers
from qcompiler.passes.round._patches import chosen_rows, input_rows, row_count
from qcompiler.passes.round._search import Solution
from qcompiler.passes.round._walk import Walk
from qcompiler.passes.round.round_gptq import RoundGptq

NETWORK = """a = Conv <pads=[1,1,1,1]> (x, w1, b1)
       r = Relu(a)
       d = Conv <pads=[1,1,1,1], group=8> (r, w2)
       e = Relu(d)
       g = Conv <group=2> (e, w3)
       p = GlobalAveragePool(g)
       f = Flatten(p)
       y = Gemm <transB=1> (f, w4)"""
WEIGHTS = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 1, 3, 3), "w3": (6, 4, 3, 3), "w4": (5, 6)}
TOKENS = """a = MatMul (x, w1)
       r = Relu (a)
       y = MatMul (r, w2)"""


def images(count: int = 40) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    smooth = rng.normal(size=(count, 1, 3, 2, 2)).repeat(4, 3).repeat(4, 4) + 0.5 * rng.normal(size=(count, 1, 3, 8, 8))
    return [{"x": np.abs(sample).astype(np.float32)} for sample in smooth]


def tokens(count: int = 24) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(64, 64)) * np.exp(rng.normal(size=64))
    return [{"x": (rng.normal(size=(1, 10, 64)) @ mixing).astype(np.float32)} for _ in range(count)]


def network(calibrated: Callable, form: str = "w4a8", target: str = "edge-npu"):
    return calibrated(NETWORK, "float[N,3,8,8] x", "float[N,5] y", WEIGHTS, images(), form, target)


def language(calibrated: Callable, form: str = "w4", target: str = "lowbit-cpu"):
    shapes = {"w1": (64, 96), "w2": (96, 32)}
    return calibrated(TOKENS, "float[N,10,64] x", "float[N,10,32] y", shapes, tokens(), form, target)


def output_error(model: ir.Model, reference: ir.Model, feeds: list) -> float:
    exact, found = Runner(reference), Runner(materialized(model))
    pairs = [(exact.run(feed)["y"], found.run(feed)["y"]) for feed in feeds]
    return sum(np.square(a - b).sum() for a, b in pairs) / sum(np.square(a).sum() for a, _ in pairs)


@pytest.mark.parametrize("make", [network, language])
@pytest.mark.parametrize("inputs", ["quantized", "float"])
def test_the_output_error_falls(calibrated: Callable, make: Callable, inputs: str) -> None:
    model, ctx = make(calibrated)
    reference, _ = make(calibrated)
    feeds = (images(60) if make is network else tokens(40))[-16:]
    before = output_error(model, reference, feeds)
    RoundGptq(inputs=inputs, sweeps=3).run(model, ctx)  # type: ignore[arg-type]
    assert output_error(model, reference, feeds) < 0.8 * before


FORMS = [("w4a8", "edge-npu"), ("w8a8", "edge-npu-per-tensor"), ("w4a8", "fpga-pot"), ("w8a8", "fpga-pot")]


@pytest.mark.parametrize(("form", "target"), [*FORMS, ("w3", "lowbit-cpu"), ("w2/sym", "lowbit-cpu")])
def test_weights_lie_on_their_grids(calibrated: Callable, form: str, target: str) -> None:
    make = language if "a" not in form else network
    model, ctx = make(calibrated, form, target)
    before = {name: value.const_value.numpy().copy() for name, value in model.graph.initializers.items()}
    RoundGptq(guard=False).run(model, ctx)
    for _, layer in roundable_layers(model.graph):
        grid, weights = layer.grid(), layer.weights()
        np.testing.assert_array_equal(grid.real(grid.nearest(weights)), weights)
        assert not np.array_equal(before[str(layer.weight.name)], layer.weight.const_value.numpy())
    assert ctx.edit.count > 0


def test_a_layer_that_gains_nothing_keeps_its_weights(calibrated: Callable) -> None:
    feeds = [{"x": np.zeros((1, 10, 64), np.float32)} for _ in range(8)]
    shapes = {"w1": (64, 96), "w2": (96, 32)}
    model, ctx = calibrated(TOKENS, "float[N,10,64] x", "float[N,10,32] y", shapes, feeds, "w4", "lowbit-cpu")
    before = {name: value.const_value for name, value in model.graph.initializers.items()}
    RoundGptq().run(model, ctx)
    assert all(model.graph.initializers[name].const_value is tensor for name, tensor in before.items())
    skips = ctx.records[-1].skips[-2:]
    assert [skip.node for skip in skips] == ["MatMul_a (MatMul)", "MatMul_y (MatMul)"]
    assert "samples left out: 0 before, 0 rounded" in skips[0].reason


def test_without_samples_it_says_what_it_needs(calibrated: Callable) -> None:
    model, ctx = network(calibrated)
    ctx.calibration = None
    with pytest.raises(DataError, match="needs calibration samples"):
        RoundGptq().run(model, ctx)


def test_the_walk_gives_each_layer_the_inputs_it_will_get(calibrated: Callable) -> None:
    model, ctx = network(calibrated)
    layers = [layer for _, layer in roundable_layers(model.graph) if not isinstance(layer, str)]
    assert [layer.node.op_type for layer in layers] == ["Conv", "Conv", "Conv", "Gemm"]
    twin = {node.name: node for node in materialized(model).graph}
    names = [str(twin[layer.node.name].inputs[0].name) for layer in layers]
    expected = Runner(materialized(model), names)
    real = Runner(model, [str(layer.data.name) for layer in layers if layer.data.name != "x"])
    feeds = images()[:3]
    walk, seen = Walk(model, layers, ctx.calibration.subset(range(3)), ctx), []
    for visit in walk:
        for layer in visit.layers:
            name = names[layers.index(layer)]
            for feed, (exact, simulated) in zip(feeds, visit.samples, strict=True):
                placed = expected.run(feed)[name]  # biases are rounded there, which moves few codes by one
                assert np.linalg.norm(simulated - placed) < 0.03 * np.linalg.norm(placed)
                assert np.linalg.norm(simulated - exact) > 0.001 * np.linalg.norm(exact)
                wanted = feed["x"] if layer.data.name == "x" else real.run(feed)[str(layer.data.name)]
                np.testing.assert_allclose(exact, wanted, rtol=1e-5, atol=1e-5)
            walk.settle(layer, layer.rounded())
            seen.append(layer.node.name)
    assert seen == [layer.node.name for layer in layers]


def test_padding_rows_count_for_nothing(calibrated: Callable) -> None:
    body = "k = Cast <to=1> (attention_mask)\n s = Unsqueeze (k, two)\n a = MatMul (x, w1)\n y = Mul (a, s)"
    rng = np.random.default_rng(0)
    feeds = []
    for _ in range(12):
        data, mask = rng.normal(size=(1, 10, 64)).astype(np.float32), np.ones((1, 10), np.int64)
        mask[0, 6:] = 0
        data[0, 6:] = 1000 * rng.normal(size=(4, 64))
        feeds.append({"x": data, "attention_mask": mask})
    inputs = "float[N,10,64] x, int64[N,10] attention_mask"
    changes = {"two": np.array([2], np.int64)}
    found = []
    for factor in (1.0, 3.0):
        for feed in feeds:
            feed["x"][0, 6:] *= factor
        model, ctx = calibrated(
            body, inputs, "float[N,10,48] y", {"w1": (64, 48), "two": (1,)}, feeds, "w4", "lowbit-cpu", **changes
        )
        RoundGptq(guard=False).run(model, ctx)
        found.append(model.graph.initializers["w1"].const_value.numpy())
    np.testing.assert_array_equal(*found)


def test_few_rows_are_spread_over_a_sample(calibrated: Callable) -> None:
    model, _ = network(calibrated)
    layer = next(layer for _, layer in roundable_layers(model.graph) if not isinstance(layer, str))
    data = images(1)[0]["x"]
    count = row_count(layer, data.shape)
    assert count == 64
    rows = input_rows(layer, data, chosen_rows(count, 10, 3))
    assert rows.shape == (1, 10, 27)


def test_a_layer_whose_moments_no_memory_holds_keeps_its_codes(calibrated, monkeypatch) -> None:
    monkeypatch.setattr(_fit, "MOST_COLUMNS", 30)  # the third convolution sums 36 inputs
    model, ctx = network(calibrated)
    RoundGptq().run(model, ctx)
    (skip,) = [item for item in ctx.records[-1].skips if "second moments" in item.reason]
    assert "second moments of 36 inputs take" in skip.reason


def test_a_layer_that_is_too_large_is_not_copied(calibrated, monkeypatch) -> None:
    """Its weight is also a table, so a layer that is rounded gets a tensor of its own; what is left alone does not."""
    body = "z = Constant <value = int64[2] {1, 3}> () e = Gather (w, z) y = MatMul (x, w)"
    model, ctx = calibrated(
        body, "float[N,10,64] x", "float[N,10,64] y, float e", {"w": (64, 64)}, tokens(8), "w4", "lowbit-cpu"
    )
    before = list(model.graph.initializers)
    monkeypatch.setattr(_fit, "MOST_COLUMNS", 30)
    RoundGptq(guard=False).run(model, ctx)
    assert list(model.graph.initializers) == before
    monkeypatch.undo()
    RoundGptq(guard=False).run(model, ctx)
    assert [name for name in model.graph.initializers if name not in before] == ["w_MatMul_y"]


def test_moments_that_cannot_be_factored_leave_the_codes(calibrated) -> None:
    def broken(*_: object) -> Solution:
        raise np.linalg.LinAlgError("not positive definite")

    model, ctx = network(calibrated)
    before = {name: value.const_value for name, value in model.graph.initializers.items()}
    fit_layers(model, ctx, Options("quantized", 0.01, 32, 0, True), broken)
    assert {name: value.const_value for name, value in model.graph.initializers.items()} == before
    assert any("cannot be factored (not positive definite)" in item.reason for item in ctx.records[-1].skips)
