"""Weights of samples reach the Hessian: 2 counts twice, a fraction in proportion."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from qcompiler.calibration import data
from qcompiler.calibration.given_weights import WEIGHTS
from qcompiler.passes.round._layers import own_layers
from qcompiler.passes.round._statistics import Rows, take
from qcompiler.passes.round._walk import Walk
from qcompiler.passes.round.reconstruct import Reconstruct
from qcompiler.passes.round.round_gptq import RoundGptq

CONVOLUTIONS = """a = Conv <pads=[1,1,1,1]> (x, w1)
       r = Relu(a)
       d = Conv <pads=[1,1,1,1], group=4> (r, w2)
       p = GlobalAveragePool(d)
       f = Flatten(p)
       y = Gemm <transB=1> (f, w3)"""
IMAGES = (CONVOLUTIONS, "float[N,3,6,6] x", "float[N,5] y", {"w1": (4, 3, 3, 3), "w2": (4, 1, 3, 3), "w3": (5, 4)})
PRODUCTS = """a = MatMul (x, w1)
       r = Relu (a)
       y = MatMul (r, w2)"""
TOKENS = (PRODUCTS, "float[N,6,8] x", "float[N,6,5] y", {"w1": (8, 12), "w2": (12, 5)})


def feeds(case: tuple, count: int) -> np.ndarray:
    shape = (3, 6, 6) if case is IMAGES else (6, 8)
    return np.random.default_rng(3).standard_normal((count, *shape)).astype(np.float32)


def moments(calibrated: Callable, case: tuple, x: np.ndarray, arrays: dict) -> list[tuple[np.ndarray, np.ndarray]]:
    """Hessian and linear part of every layer, at ranges that the repetition of samples does not change."""
    model, ctx = calibrated(*case, [{"x": item[None]} for item in x])
    ctx.calibration = data.load(arrays, data.inputs_of(model))
    layers = own_layers(model.graph, ctx)
    walk = Walk(model, layers, ctx.calibration, ctx)
    found = []
    for visit in walk:
        for layer in visit.layers:
            statistics = take(visit, layer, len(ctx.calibration), Rows(0, 1))
            walk.settle(layer, layer.weights())
            assert statistics.linear is not None or not found
            linear = np.zeros(1) if statistics.linear is None else statistics.linear
            found.append((np.asarray(statistics.hessian, np.float64), np.asarray(linear, np.float64)))
    return found


@pytest.mark.parametrize("case", [IMAGES, TOKENS], ids=["convolutions", "products"])
def test_a_weight_of_two_is_a_sample_twice(calibrated: Callable, case: tuple) -> None:
    x = feeds(case, 6)
    doubled = moments(calibrated, case, x, {"x": np.concatenate([x, x[2:4]])})
    weighted = moments(calibrated, case, x, {"x": x, WEIGHTS: [1, 1, 2, 2, 1, 1]})
    plain = moments(calibrated, case, x, {"x": x})
    for ours, theirs, without in zip(weighted, doubled, plain, strict=True):
        for part in range(2):
            scale = np.abs(theirs[part]).max()
            np.testing.assert_allclose(ours[part], theirs[part], atol=2e-5 * scale)
        assert np.abs(ours[0] - without[0]).max() > 1e-3 * np.abs(without[0]).max()


def test_positions_are_weighted_one_by_one(calibrated: Callable) -> None:
    x = feeds(TOKENS, 6)
    weights = np.tile([1, 1, 0, 3, 1, 1], (6, 1))
    repeated = x[:, [0, 1, 3, 3, 3, 4, 5]]
    theirs = np.einsum("nlc,nld->cd", repeated, repeated, dtype=np.float64) / (6 * 7)
    hessian, _ = moments(calibrated, TOKENS, x, {"x": x, WEIGHTS: weights})[0]
    np.testing.assert_allclose(hessian[0], theirs, rtol=0.05, atol=0.02)  # inputs have 8 bits
    assert hessian.shape == (1, 8, 8)


@pytest.mark.parametrize("rounding", [RoundGptq(), Reconstruct(iterations=20)], ids=["gptq", "reconstruct"])
@pytest.mark.parametrize("case", [IMAGES, TOKENS], ids=["convolutions", "products"])
def test_codes_follow_the_samples_that_count(calibrated: Callable, case: tuple, rounding: object) -> None:
    x = feeds(case, 24)
    x[::2, : x.shape[1] // 2] *= 0.05
    x[1::2, x.shape[1] // 2 :] *= 0.05
    contents = []
    for pair in ([1, 200], [200, 1]):
        model, ctx = calibrated(*case, [{"x": item[None]} for item in x], "w4a8")
        ctx.calibration = data.load({"x": x, WEIGHTS: pair * 12}, data.inputs_of(model))
        rounding.run(model, ctx)  # type: ignore[attr-defined]
        contents.append({name: value.const_value.numpy().copy() for name, value in model.graph.initializers.items()})
    assert any(not np.array_equal(contents[0][name], contents[1][name]) for name in contents[0])


@pytest.mark.parametrize("shape", [(6,), (6, 3)], ids=["samples", "positions"])
def test_convolutions_that_weights_of_positions_do_not_reach_are_counted(calibrated: Callable, shape: tuple) -> None:
    x = feeds(IMAGES, 6)
    model, ctx = calibrated(*IMAGES, [{"x": item[None]} for item in x])
    weights = np.arange(1, 1 + np.prod(shape)).reshape(shape)
    ctx.calibration = data.load({"x": x, WEIGHTS: weights}, data.inputs_of(model))
    RoundGptq().run(model, ctx)
    said = [note.text for record in ctx.records for note in record.notes if "weights of positions" in note.text]
    assert len(said) == len(shape) - 1
    assert all("2 Conv layers" in text for text in said)


def test_tensors_that_weights_of_positions_do_not_reach_are_told_of(calibrated: Callable) -> None:
    """Nothing else in the compile met them: what the product reads has the positions in its last axis."""
    body = """t = Transpose <perm=[0,2,1]> (x)
       y = MatMul (t, w1)"""
    x = feeds(TOKENS, 6)
    model, ctx = calibrated(body, "float[N,6,8] x", "float[N,8,5] y", {"w1": (6, 5)}, [{"x": item[None]} for item in x])
    ctx.calibration = data.load({"x": x, WEIGHTS: np.tile(np.arange(6), (6, 1))}, data.inputs_of(model))
    RoundGptq().run(model, ctx)
    (told,) = [note.text for record in ctx.records for note in record.notes if note.level == "warning"]
    assert told.startswith("weights of positions do not reach tensors whose token axis is in doubt ('t')")


@pytest.mark.parametrize(("case", "expected"), [(IMAGES, 3), (TOKENS, 0)], ids=["convolutions", "products"])
def test_units_that_weights_of_positions_do_not_reach_are_named(
    calibrated: Callable, case: tuple, expected: int
) -> None:
    """Of the images, the first axis behind samples is that of three channels, which no result has."""
    x = feeds(case, 6)
    model, ctx = calibrated(*case, [{"x": item[None]} for item in x], "w4a8")
    weights = 1.0 + np.arange(6 * x.shape[1]).reshape(6, -1)
    ctx.calibration = data.load({"x": x, WEIGHTS: weights}, data.inputs_of(model))
    Reconstruct(unit="layer", iterations=2).run(model, ctx)
    said = [note.text for record in ctx.records for note in record.notes if "weights of positions" in note.text]
    assert len(said) == expected
    assert all("the output of" in text for text in said)
