"""Scales fitted to codes: within what the target holds, and never to a higher error."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.ir.originals import restored
from qcompiler.passes.place.simulate import materialized
from qcompiler.passes.round._constraints import ScaleMap
from qcompiler.passes.round._layers import roundable_layers
from qcompiler.passes.round._patches import chosen_rows, input_rows, row_count
from qcompiler.passes.round._problem import Problem, damped
from qcompiler.passes.round._scales import fit_scales
from qcompiler.passes.round._search import alternated, refined, solution, successive
from qcompiler.passes.round.round_alternating import RoundAlternating
from qcompiler.passes.round.round_coordinate_descent import RoundCoordinateDescent
from qcompiler.passes.round.round_gptq import RoundGptq
from qcompiler.quant.weight_scales import split

FORMS = [("w4a8", "edge-npu"), ("w4a8/tensor", "edge-npu"), ("w4a8", "fpga-pot"), ("w8a8", "edge-npu-per-tensor")]
FORMS += [("w4", "lowbit-cpu"), ("w2", "lowbit-cpu"), ("w3/sym", "lowbit-cpu"), ("w3/channel", "lowbit-cpu")]


def feeds(count: int = 24) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(80, 80)) * np.exp(rng.normal(size=80))
    return [{"x": (rng.normal(size=(10, 80)) @ mixing + 1).astype(np.float32)} for _ in range(count)]


def model_of(calibrated: Callable, form: str, target: str):
    return calibrated("y = MatMul (x, w)", "float[M,80] x", "float[M,24] y", {"w": (80, 24)}, feeds(), form, target)


def problem_of(calibrated: Callable, form: str, target: str, *, asymmetric: bool = False):
    model, ctx = model_of(calibrated, form, target)
    [(_, layer)] = list(roundable_layers(model.graph))
    rows = np.concatenate(
        [input_rows(layer, f["x"], chosen_rows(row_count(layer, f["x"].shape), 0, 0)) for f in feeds()], axis=1
    ).astype(np.float64)
    weights = layer.weights().transpose(0, 2, 1).astype(np.float64)
    missing = np.random.default_rng(3).normal(size=(1, rows.shape[1], weights.shape[2])) * 20
    turned = rows.transpose(0, 2, 1)
    linear = turned @ missing / rows.shape[1] if asymmetric else None
    scales = ScaleMap.of(layer, ctx.target)
    problem = Problem(weights, damped(turned @ rows / rows.shape[1], 0.01), linear)
    nearest = layer.codes().transpose(0, 2, 1)
    return layer, scales, problem, solution(problem, scales.parts, nearest, *scales.read())


@pytest.mark.parametrize(("form", "target"), FORMS)
@pytest.mark.parametrize("asymmetric", [False, True])
def test_no_half_turn_increases_the_objective(calibrated: Callable, form: str, target: str, asymmetric: bool) -> None:
    _, scales, problem, start = problem_of(calibrated, form, target, asymmetric=asymmetric)
    parts, now = scales.parts, successive(problem, scales.parts, start)
    for _ in range(3):
        fitted = fit_scales(problem, now.codes, now.scale, now.zero, parts)
        after = solution(problem, parts, now.codes, *fitted)
        slack = 1e-9 * np.abs(now.loss).sum()
        assert after.loss.sum() <= now.loss.sum() + slack
        if not parts.tied:
            assert (after.loss <= now.loss + slack).all()
        now = refined(problem, parts, after, 1)
        assert now.loss.sum() <= after.loss.sum() + slack
    best = alternated(problem, parts, start, 5, 4)
    assert best.loss.sum() <= refined(problem, parts, successive(problem, parts, start), 5).loss.sum() + slack
    drawn = alternated(problem, parts, start, 5, 4, 6)
    assert drawn.loss.sum() < best.loss.sum() - slack
    if not parts.tied:
        assert (drawn.loss <= best.loss + slack).all()
    np.testing.assert_array_equal(drawn.codes, alternated(problem, parts, start, 5, 4, 6).codes)


@pytest.mark.parametrize(("form", "target"), FORMS)
def test_fitted_scales_are_ones_that_the_target_holds(calibrated: Callable, form: str, target: str) -> None:
    layer, scales, problem, start = problem_of(calibrated, form, target)
    best = alternated(problem, scales.parts, start, 3, 3, 3)
    params = scales.write(best.scale, best.zero)
    assert params.scale.shape == layer.params.scale.shape
    written = layer.grid(params).real(best.codes.transpose(0, 2, 1))
    solved = scales.parts.grid(best.scale, best.zero).real(best.codes).transpose(0, 2, 1)
    np.testing.assert_array_equal(written, solved.astype(np.float32))
    if target == "fpga-pot":
        np.testing.assert_array_equal(np.frexp(params.scale)[0], 0.5)
    if layer.quant.format.block is not None:
        rows = np.moveaxis(params.scale, 0, 1)
        base, factor = split(rows)
        np.testing.assert_array_equal(base[:, None] * factor.astype(np.float32), rows)
    if layer.quant.format.symmetric:
        np.testing.assert_array_equal(params.zero_point, layer.params.zero_point)
    form_of = layer.quant.format
    assert form_of.minimum <= params.zero_point.min()
    assert params.zero_point.max() <= form_of.maximum


def test_the_least_squares_scale_is_the_closed_form(calibrated: Callable) -> None:
    _, scales, problem, start = problem_of(calibrated, "w4a8", "edge-npu", asymmetric=True)
    scale, _ = fit_scales(problem, start.codes, start.scale, start.zero, scales.parts)
    for row in range(start.codes.shape[2]):
        units = start.codes[0, :, row].astype(np.float64)
        target = problem.hessian[0] @ problem.weights[0, :, row] + problem.linear[0, :, row]
        expected = units @ target / (units @ problem.hessian[0] @ units)
        assert scale[0, 0, row] == pytest.approx(expected, rel=1e-6)


def test_blocks_of_one_row_are_fitted_together(calibrated: Callable) -> None:
    """Repeated fits reach the joint least-squares solution, as near as multiples of a row's scale come."""
    _, scales, problem, start = problem_of(calibrated, "w4/sym", "lowbit-cpu")
    scale, zero = start.scale, start.zero
    for _ in range(60):
        scale, zero = fit_scales(problem, start.codes, scale, zero, scales.parts)
    for row in range(4):
        units = np.zeros((80, scales.parts.count))
        units[np.arange(80), scales.parts.columns] = start.codes[0, :, row]
        gram, right = units.T @ problem.hessian[0] @ units, units.T @ problem.hessian[0] @ problem.weights[0, :, row]
        joint = np.linalg.solve(gram, right)
        error = problem.weights[0, :, row] - units @ joint
        best = error @ problem.hessian[0] @ error
        found = solution(problem, scales.parts, start.codes, scale, zero).loss[0, row]
        assert best <= found * (1 + 1e-9)
        assert found <= best * 1.02


@pytest.mark.parametrize(("form", "target"), FORMS)
def test_the_passes_follow_each_other(calibrated: Callable, form: str, target: str) -> None:
    """Each measures against the float weights, and its result is what placement stores."""
    model, ctx = model_of(calibrated, form, target)
    untouched, _ = model_of(calibrated, form, target)
    real = untouched.graph.initializers["w"].const_value.numpy()
    for step in (RoundGptq(guard=False), RoundCoordinateDescent(guard=False), RoundAlternating(guard=False)):
        step.run(model, ctx)
        [(_, layer)] = list(roundable_layers(model.graph))
        grid = layer.grid()
        np.testing.assert_array_equal(grid.real(grid.nearest(layer.weights())), layer.weights())
        np.testing.assert_array_equal(layer.real_weights(), layer.matrices(real))
        np.testing.assert_array_equal(restored(model).graph.initializers["w"].const_value.numpy(), real)
    placed = materialized(model).graph.initializers["w_quantized"].const_value.numpy().astype(np.int64)
    np.testing.assert_array_equal(placed, layer.tensor(grid.nearest(layer.weights())))


def output_error(model: ir.Model) -> float:
    [(_, layer)] = list(roundable_layers(model.graph))
    difference = (layer.weights() - layer.real_weights())[0].T
    if np.array_equal(layer.weights(), layer.real_weights()):
        grid = layer.grid()
        difference = (grid.real(grid.nearest(layer.weights())) - layer.weights())[0].T
    return float(sum(np.square(feed["x"] @ difference).sum() for feed in feeds(40)[24:]))


def test_each_pass_lowers_the_error_of_the_one_before(calibrated: Callable) -> None:
    model, ctx = model_of(calibrated, "w3", "lowbit-cpu")
    errors = [output_error(model)]
    for step in (RoundGptq(inputs="float"), RoundCoordinateDescent(inputs="float"), RoundAlternating(inputs="float")):
        step.run(model, ctx)
        errors.append(output_error(model))
    assert errors[1] < 0.7 * errors[0]
    assert errors[2] <= errors[1]
    assert errors[3] < 0.9 * errors[1]


def test_the_pass_draws_as_often_as_it_is_told_and_as_its_layers_allow(
    calibrated: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def codes(draws: int) -> np.ndarray:
        model, ctx = model_of(calibrated, "w4a8", "edge-npu")
        RoundAlternating(draws=draws, guard=False).run(model, ctx)
        [(_, layer)] = list(roundable_layers(model.graph))
        return layer.codes()

    without, drawn = codes(0), codes(8)
    assert not np.array_equal(without, drawn)
    np.testing.assert_array_equal(drawn, codes(8))
    monkeypatch.setattr("qcompiler.passes.round._search._WORK", 0.0)
    np.testing.assert_array_equal(without, codes(8))
