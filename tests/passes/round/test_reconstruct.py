"""reconstruct: codes by gradients, kept only where samples left out agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.errors import DataError
from qcompiler.ir import originals
from qcompiler.ir.execute import Runner
from qcompiler.passes.place.simulate import materialized
from qcompiler.passes.round import reconstruct
from qcompiler.passes.round._layers import Grid, roundable_layers
from qcompiler.passes.round._rebuild import Fit
from qcompiler.passes.round._soft import SoftCodes
from qcompiler.passes.round._stages import Stage
from qcompiler.passes.round._units import units
from qcompiler.passes.round.reconstruct import Reconstruct
from qcompiler.pipeline.base import Context

RESIDUAL = """a = Conv <pads=[1,1,1,1]> (x, w1, b1)
       b = Relu (a)
       c = Conv <pads=[1,1,1,1]> (b, w2, b2)
       d = Relu (c)
       e = Conv <pads=[1,1,1,1]> (d, w3)
       f = Add (e, b)
       g = Relu (f)
       h = Conv <pads=[1,1,1,1], group=8> (g, w4)
       i = Relu (h)
       j = Conv (i, w5)
       p = GlobalAveragePool (j)
       q = Flatten (p)
       y = Gemm <transB=1> (q, w6)"""
WEIGHTS = {
    "w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "b2": (8,), "w3": (8, 8, 3, 3), "w4": (8, 1, 3, 3),
    "w5": (6, 8, 1, 1), "w6": (5, 6),
}  # fmt: skip
LAYERS = ["Conv_a", "Conv_c", "Conv_e", "Conv_h", "Conv_j", "Gemm_y"]
FAST = Reconstruct(iterations=60, batch=8, rate=0.1)


def images(count: int = 48) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    smooth = rng.normal(size=(count, 1, 3, 2, 2)).repeat(4, 3).repeat(4, 4) + 0.5 * rng.normal(size=(count, 1, 3, 8, 8))
    return [{"x": np.abs(sample).astype(np.float32)} for sample in smooth]


def network(calibrated: Callable) -> tuple[ir.Model, Context]:
    return calibrated(RESIDUAL, "float[N,3,8,8] x", "float[N,5] y", WEIGHTS, images())


def output_error(model: ir.Model, reference: ir.Model) -> float:
    exact, found = Runner(reference), Runner(materialized(model))
    pairs = [(exact.run(feed)["y"], found.run(feed)["y"]) for feed in images(64)[48:]]
    return sum(np.square(a - b).sum() for a, b in pairs) / sum(np.square(a).sum() for a, _ in pairs)


def weights(model: ir.Model) -> dict[str, np.ndarray]:
    return {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}


@pytest.mark.parametrize("unit", ["layer", "block", "model"])
def test_the_output_error_falls(calibrated: Callable, unit: str) -> None:
    model, ctx = network(calibrated)
    reference, _ = network(calibrated)
    before = output_error(model, reference)
    Reconstruct(unit=unit, iterations=60, batch=8, rate=0.1).run(model, ctx)  # type: ignore[arg-type]
    assert output_error(model, reference) < 0.7 * before


def test_weights_lie_on_their_grids_and_the_float_model_is_kept(calibrated: Callable) -> None:
    model, ctx = network(calibrated)
    before = weights(model)
    FAST.run(model, ctx)
    restored = weights(originals.restored(model))
    changed = 0
    for _, layer in roundable_layers(model.graph):
        grid, found = layer.grid(), layer.weights()
        name = str(layer.weight.name)
        np.testing.assert_array_equal(grid.real(grid.nearest(found)), found)
        # A weight gets one of the two codes that it lies between, or the outermost code.
        lower = np.clip(np.floor(layer.matrices(before[name]) / grid.scale), grid.minimum, grid.maximum - 1)
        assert set(np.unique(grid.nearest(found) - lower)) <= {0, 1}
        np.testing.assert_array_equal(restored[name], before[name])
        changed += int((grid.nearest(found) != grid.nearest(layer.matrices(before[name]))).sum())
    assert changed > 0
    for name in ("b1", "b2"):
        np.testing.assert_array_equal(restored[name], before[name])


def test_equal_seeds_give_equal_codes(calibrated: Callable) -> None:
    found = []
    for seed in (0, 0, 1):
        model, ctx = network(calibrated)
        Reconstruct(iterations=12, batch=8, rate=0.1, seed=seed).run(model, ctx)
        found.append(weights(model))
    assert all(np.array_equal(array, found[1][name]) for name, array in found[0].items())
    assert any(not np.array_equal(array, found[2][name]) for name, array in found[0].items())


def test_biases_stay_where_they_are_on_request(calibrated: Callable) -> None:
    model, ctx = network(calibrated)
    before = weights(model)
    Reconstruct(iterations=12, batch=8, rate=0.1, bias_rate=0.0).run(model, ctx)
    assert all(np.array_equal(weights(model)[name], before[name]) for name in ("b1", "b2"))


def test_codes_chosen_before_are_never_made_worse(calibrated: Callable) -> None:
    """Behind another reconstruction: a unit's error on samples left out does not rise."""
    model, ctx = network(calibrated)
    FAST.run(model, ctx)
    first = weights(model)
    Reconstruct(iterations=5, batch=8, rate=1.0, strength=50.0).run(model, ctx)
    kept = [note.text for note in ctx.records[-1].notes if "keeps its codes; output error on 6 samples" in note.text]
    assert kept
    last = weights(model)
    own = {"Conv_a": ("w1",), "Conv_c": ("w2", "w3"), "Conv_h": ("w4", "w5"), "Gemm_y": ("w6",)}
    for text in kept:
        for name in own[text.split()[0]]:
            np.testing.assert_array_equal(first[name], last[name])


def test_a_time_limit_stops_at_the_border_of_a_unit_and_names_the_rest(calibrated: Callable) -> None:
    model, ctx = network(calibrated)
    before = weights(model)
    Reconstruct(iterations=5, batch=8, seconds=1e-6).run(model, ctx)
    warning = next(note.text for note in ctx.records[-1].notes if note.level == "warning")
    assert "stopped after 1e-06 s" in warning
    assert "Conv_a" in warning
    assert "Gemm_y" in warning
    assert all(np.array_equal(array, before[name]) for name, array in weights(model).items())


def test_samples_are_needed(calibrated: Callable) -> None:
    model, ctx = network(calibrated)
    ctx.calibration = None
    with pytest.raises(DataError, match="calibration samples"):
        FAST.run(model, ctx)


def test_an_operator_without_gradient_is_named(calibrated: Callable) -> None:
    body = """a = Conv (x, w1)
       s = Sinh (a)
       b = Conv (s, w2)
       t = Add (b, a)
       y = Conv (t, w3)"""
    shapes = {"w1": (4, 3, 1, 1), "w2": (4, 4, 1, 1), "w3": (2, 4, 1, 1)}
    model, ctx = calibrated(body, "float[N,3,8,8] x", "float[N,2,8,8] y", shapes, images(16))
    Reconstruct(unit="model", iterations=5).run(model, ctx)
    skip = next(skip for skip in ctx.records[-1].skips if "cannot be differentiated" in skip.reason)
    assert "Sinh has no gradient" in skip.reason
    assert "Conv_a" in skip.node


ZEROS = "zeros = Constant <value = int64[8] {0, 0, 0, 0, 0, 0, 0, 0}> ()"
UNKNOWN = {"Sinh": "s = Sinh (p)", "Pad": f'{ZEROS} s = Pad <mode = "reflect"> (p, zeros)'}


@pytest.mark.parametrize("operator", UNKNOWN)
def test_units_behind_one_that_is_left_are_fitted_behind_its_codes(
    calibrated: Callable, monkeypatch: pytest.MonkeyPatch, operator: str
) -> None:
    """Whether an operator or only its form is unknown: the simulation goes on with the codes that the unit keeps."""
    body = f"""a = Conv (x, w1)
       p = Conv (a, w2)
       {UNKNOWN[operator]}
       b = Conv (s, w3)
       t = Add (b, a)
       y = Conv (t, w4)"""
    shapes = {"w1": (4, 3, 1, 1), "w2": (4, 4, 1, 1), "w3": (4, 4, 1, 1), "w4": (2, 4, 1, 1)}
    uneven = np.full((4, 4, 1, 1), 0.03, np.float32)
    uneven[:, 0] = 1
    model, ctx = calibrated(
        body, "float[N,3,8,8] x", "float[N,2,8,8] y", shapes, images(16), "w2a8", "lowbit-cpu", w2=uneven
    )
    stages = {}

    class Seen(Fit):
        def __init__(self, stage: Stage, *arguments: Any) -> None:
            stages[stage.unit.name] = stage
            super().__init__(stage, *arguments)

    monkeypatch.setattr(reconstruct, "Fit", Seen)
    Reconstruct(iterations=5, guard=False).run(model, ctx)
    assert list(stages) == ["Conv_a", "Conv_p … Conv_b", "Conv_y"]
    left = [skip for skip in ctx.records[-1].skips if "cannot be differentiated and keeps its codes" in skip.reason]
    assert [skip.node for skip in left] == ["Conv_p (Conv)", "Conv_b (Conv)"]
    assert operator in left[0].reason
    placed = Runner(materialized(model), ["t"])
    for feed, sample in zip(images(16), stages["Conv_y"].samples, strict=True):
        found, wanted = sample["t"], placed.run(feed)["t"]
        assert np.linalg.norm(found - wanted) < 0.02 * np.linalg.norm(wanted)


def test_a_layer_without_influence_leaves_its_unit_alone(calibrated: Callable) -> None:
    body = """a = Conv (x, w1)
       dead = Conv (a, w2)
       b = Conv (a, w3)
       y = Add (b, a)"""
    shapes = {"w1": (4, 3, 1, 1), "w2": (4, 4, 1, 1), "w3": (4, 4, 1, 1)}
    model, ctx = calibrated(body, "float[N,3,8,8] x", "float[N,4,8,8] y", shapes, images(16))
    Reconstruct(unit="model", iterations=5).run(model, ctx)
    reasons = {skip.node: skip.reason for skip in ctx.records[-1].skips}
    assert "Conv_dead: nothing of it reaches what its unit gives" in reasons["Conv_b (Conv)"]


def test_blocks_are_found_on_the_graph(calibrated: Callable) -> None:
    """The stem; the residual block with the activation behind it; a depthwise layer with the next; the rest."""
    model, _ = network(calibrated)
    layers = [layer for _, layer in roundable_layers(model.graph) if not isinstance(layer, str)]

    def named(kind: str) -> list[tuple[list[str], str]]:
        parts = units(model.graph, layers, kind)  # type: ignore[arg-type]
        return [([str(layer.node.name) for layer in part.layers], str(part.output.name)) for part in parts]

    found = {kind: named(kind) for kind in ("layer", "block", "model")}
    assert found["block"] == [
        (["Conv_a"], "b"), (["Conv_c", "Conv_e"], "g"), (["Conv_h", "Conv_j"], "j"), (["Gemm_y"], "y")
    ]  # fmt: skip
    assert found["layer"] == [([name], out) for name, out in zip(LAYERS, ["b", "d", "e", "i", "j", "y"], strict=True)]
    assert found["model"] == [(LAYERS, "y")]


@pytest.mark.parametrize("exponent", [2.0, 7.0])
def test_steps_follow_the_gradient(exponent: float) -> None:
    """The first step of Adam has the sign of the slope: of the error and of the regulariser, by central differences."""
    rng = np.random.default_rng(0)
    grid = Grid(np.full((1, 3, 1), 0.25, np.float32), np.zeros((1, 3, 1), np.float32), -8, 7)
    real = rng.uniform(-1.9, 1.7, size=(1, 3, 5)).astype(np.float32)
    soft = SoftCodes.of(grid, real, grid.nearest(real), keep=0.0, rate=0.01)
    np.testing.assert_allclose(soft.real(), real, atol=0.021 * 0.25 + 1e-6)
    np.testing.assert_array_equal(soft.codes(), grid.nearest(real))
    wanted = rng.normal(size=real.shape)

    def loss(variable: np.ndarray) -> np.ndarray:
        share = np.clip(1.2 / (1 + np.exp(-variable.astype(np.float64))) - 0.1, 0, 1)
        return wanted * (soft.lower + share) * 0.25 + 0.1 * (1 - np.abs(2 * share - 1) ** exponent)

    start = soft.variable.copy()
    slope = (loss(start + 1e-4) - loss(start - 1e-4)) / 2e-4
    soft.step(wanted, 0.1, exponent, 1.0)
    np.testing.assert_array_equal(np.sign(start - soft.variable), np.sign(slope))


def test_present_codes_are_kept_in_mind() -> None:
    """A code that the weight does not lie next to is one of the two to choose from."""
    grid = Grid(np.ones((1, 1, 1), np.float32), np.zeros((1, 1, 1), np.float32), -8, 7)
    real = np.array([[[0.3, 0.3, 0.3, 7.6, -9.0]]], np.float32)
    codes = np.array([[[2, -1, 0, 7, -8]]], np.int32)
    soft = SoftCodes.of(grid, real, codes, keep=0.6, rate=0.1)
    np.testing.assert_array_equal(soft.codes(), codes)
    np.testing.assert_array_equal(soft.lower, [[[1, -1, 0, 6, -8]]])
