"""The walk: each layer gets the inputs that it will get, however many formats one tensor is read in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.ir.execute import Runner
from qcompiler.ir.parts import SegmentedRun
from qcompiler.passes.place.simulate import materialized
from qcompiler.passes.round._layers import RoundLayer, roundable_layers
from qcompiler.passes.round._walk import Walk
from qcompiler.passes.round.reconstruct import Reconstruct
from qcompiler.passes.round.round_gptq import RoundGptq
from qcompiler.pipeline.base import Context
from qcompiler.quant import state
from qcompiler.quant.params import QParams
from qcompiler.quant.state import FLOAT, TensorQuant

BRANCHES = """r = Relu (x)
    a = Conv (r, w1)
    b = Conv (r, w2)
    c = Conv (r, w3)
    d = Add (a, b)
    e = Add (d, c)
    f = Relu (e)
    y = Conv (f, w4)"""
SHAPES = {"w1": (4, 3, 1, 1), "w2": (4, 3, 1, 1), "w3": (4, 3, 1, 1), "w4": (2, 4, 1, 1)}
FORMATS = [(4, 8, 8), (8, 4, 8), (4, 8, 4), (4, None, 8), (8, 4, None), (None, 4, 8), (8, None, 4)]


def images(count: int, channels: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [np.abs(rng.normal(size=(1, channels, 8, 8))).astype(np.float32) for _ in range(count)]


def layers_of(model: ir.Model) -> list[RoundLayer]:
    return [layer for _, layer in roundable_layers(model.graph) if not isinstance(layer, str)]


def in_16_steps(quant: TensorQuant) -> TensorQuant:
    params = quant.params
    assert params is not None
    coarse = QParams((params.scale * 17).astype(np.float32), params.zero_point // 17)
    return TensorQuant(dataclasses.replace(quant.format, bits=4), coarse)


def branches(calibrated: Callable, bits: tuple[int | None, ...], start: str) -> tuple[ir.Model, Context]:
    """Three layers that read one tensor, each with so many bits, ``None`` as a float."""
    body = BRANCHES if start == "r" else BRANCHES.replace("r = Relu (x)\n", "").replace("(r,", "(x,")
    feeds = [{"x": image} for image in images(24)]
    model, ctx = calibrated(body, "float[N,3,8,8] x", "float[N,2,8,8] y", SHAPES, feeds)
    found = layers_of(model)
    whole = state.edge_quant(found[0].node, 0)
    for layer, width in zip(found, bits, strict=False):
        state.set_edge_quant(layer.node, 0, {None: FLOAT, 4: in_16_steps(whole), 8: None}[width])
    return model, ctx


def check_walk(model: ir.Model, ctx: Context) -> None:
    """Every layer is visited once, with the tensor that it reads in the float and in the materialized model."""
    layers = layers_of(model)
    twin = {node.name: node for node in materialized(model).graph}
    fed = {str(value.name) for value in model.graph.inputs}
    real = {str(layer.node.name): str(layer.data.name) for layer in layers}
    quantized = {str(layer.node.name): str(twin[layer.node.name].inputs[0].name) for layer in layers}
    exactly = Runner(model, sorted({*real.values()} - fed)) if {*real.values()} - fed else None
    placed = Runner(materialized(model), sorted({*quantized.values()} - fed))
    dataset = ctx.calibration.subset(range(3))
    feeds = list(dataset)
    wanted = [{**feed, **(exactly.run(feed) if exactly is not None else {})} for feed in feeds]
    expected = [{**feed, **placed.run(feed)} for feed in feeds]
    walk, seen = Walk(model, layers, dataset, ctx), []
    for visit in walk:
        for layer in visit.layers:
            name = str(layer.node.name)
            for index, (exact, simulated) in enumerate(visit.samples):
                np.testing.assert_allclose(exact, wanted[index][real[name]], rtol=1e-5, atol=1e-5)
                found = expected[index][quantized[name]]
                assert np.linalg.norm(simulated - found) < 0.03 * np.linalg.norm(found)
            walk.settle(layer, layer.rounded())
            seen.append(name)
    assert sorted(seen) == sorted(real)


@pytest.mark.parametrize("start", ["r", "x"])
@pytest.mark.parametrize("bits", FORMATS)
def test_one_tensor_in_several_formats(calibrated: Callable, bits: tuple[int | None, ...], start: str) -> None:
    check_walk(*branches(calibrated, bits, start))


def test_two_inputs_of_the_graph(calibrated: Callable) -> None:
    """Their pairs stand at the beginning, those of the later input first; a layer of the first comes last."""
    body = """a = Conv (x, w1)
        b = Conv (z, w2)
        c = Add (a, b)
        e = Conv (x, w3)
        y = Add (c, e)"""
    shapes = {"w1": (4, 3, 1, 1), "w2": (4, 5, 1, 1), "w3": (4, 3, 1, 1)}
    feeds = [{"x": x, "z": z} for x, z in zip(images(8), images(8, 5), strict=True)]
    check_walk(*calibrated(body, "float[N,3,8,8] x, float[N,5,8,8] z", "float[N,4,8,8] y", shapes, feeds))


@pytest.mark.parametrize("rounding", [RoundGptq(guard=False), Reconstruct(unit="layer", iterations=5, guard=False)])
def test_roundings_fit_readers_in_other_formats(calibrated: Callable, rounding: RoundGptq | Reconstruct) -> None:
    model, ctx = branches(calibrated, (4, None, 8), "r")
    rounding.run(model, ctx)
    for layer in layers_of(model):
        grid, found = layer.grid(), layer.weights()
        np.testing.assert_array_equal(grid.real(grid.nearest(found)), found)
    assert ctx.records[-1].notes[-1].text.split(";")[0] in ("rounded 4 of 4 weights", "reconstructed 4 of 4 units")


def test_a_constant_that_is_not_there_cannot_be_replaced(calibrated: Callable) -> None:
    model, ctx = branches(calibrated, (8, 8, 8), "r")
    run = SegmentedRun.of(model, list(ctx.calibration.subset(range(1))))
    with pytest.raises(ValueError, match="no constant 'w9'"):
        run.replace("w9", np.zeros(1, np.float32))
