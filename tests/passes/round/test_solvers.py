"""Rounding as least squares: equal to slow dense references, and never worse than where it starts."""

from __future__ import annotations

import numpy as np
import pytest

from qcompiler.passes.round._descent import descend
from qcompiler.passes.round._problem import Columns, Problem, damped
from qcompiler.passes.round._successive import _cholesky, by_diagonal, round_successively
from tests.passes.round import reference

SHAPES = [(1, 5, 3, 1), (1, 90, 7, 90), (2, 30, 4, 1), (6, 9, 1, 1), (1, 150, 2, 150)]


def case(groups: int, columns: int, rows: int, scales: int, *, seed: int = 0, bits: int = 3, asymmetric: bool = False):
    """A problem with correlated inputs, its grid, and the rows it came from."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(groups, columns, columns)) * np.exp(rng.normal(size=(groups, 1, columns)))
    inputs = rng.normal(size=(groups, 3 * columns, columns)) @ mixing + 0.3
    weights = rng.normal(size=(groups, columns, rows))
    missing = rng.normal(size=(groups, 3 * columns, rows)) * 3 if asymmetric else np.zeros((groups, 3 * columns, rows))
    hessian = inputs.transpose(0, 2, 1) @ inputs / inputs.shape[1]
    linear = inputs.transpose(0, 2, 1) @ missing / inputs.shape[1] if asymmetric else None
    scale = np.exp(rng.normal(size=(groups, scales, rows)) * 0.2) * 3 / 2**bits
    zero = rng.integers(-1, 2, size=scale.shape).astype(float)
    grid = Columns(scale, zero, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return Problem(weights, damped(hessian, 0.01), linear), grid, inputs, missing


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("asymmetric", [False, True])
def test_successive_rounding_is_gptq_with_an_inverse_hessian(shape: tuple[int, ...], asymmetric: bool) -> None:
    problem, grid, _, _ = case(*shape, asymmetric=asymmetric)
    order = by_diagonal(problem.hessian)
    codes = round_successively(problem, grid)
    assert codes.min() >= grid.minimum
    assert codes.max() <= grid.maximum
    full = Columns(*(np.broadcast_to(a, problem.weights.shape) for a in (grid.scale, grid.zero)), 0, 0)
    for group, row in np.ndindex(problem.weights.shape[0], problem.weights.shape[2]):
        hessian, weights = problem.hessian[group], problem.weights[group, :, row]
        if problem.linear is not None:  # the real weights that are best for the inputs as they are
            weights = weights + np.linalg.solve(hessian, problem.linear[group, :, row])
        steps = list(zip(full.scale[group, :, row], full.zero[group, :, row], strict=True))
        expected = reference.gptq(weights, hessian, order[group], steps, (grid.minimum, grid.maximum))
        np.testing.assert_allclose(grid.real(codes)[group, :, row], expected, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("asymmetric", [False, True])
def test_descent_never_increases_the_objective(shape: tuple[int, ...], asymmetric: bool) -> None:
    problem, grid, _, _ = case(*shape, asymmetric=asymmetric, seed=1)
    for start in (grid.codes(problem.weights), round_successively(problem, grid), np.zeros(problem.weights.shape, int)):
        codes, last = start.astype(np.int32), problem.loss(grid.real(start))
        for _ in range(4):
            codes = descend(problem, grid, codes, 1)
            loss = problem.loss(grid.real(codes))
            assert (loss <= last + 1e-9 * np.abs(last)).all()
            last = loss


def test_descent_ends_where_no_single_code_is_better() -> None:
    problem, grid, _, _ = case(1, 12, 3, 1, asymmetric=True)
    codes = descend(problem, grid, grid.codes(problem.weights), 100)
    best = problem.loss(grid.real(codes))
    for column in range(12):
        for code in range(grid.minimum, grid.maximum + 1):
            other = codes.copy()
            other[:, column] = code
            assert (problem.loss(grid.real(other)) >= best - 1e-9).all()


def test_the_objective_is_the_output_error() -> None:
    problem, grid, inputs, missing = case(2, 30, 4, 1, asymmetric=True)
    plain = Problem(problem.weights, inputs.transpose(0, 2, 1) @ inputs / inputs.shape[1], problem.linear)
    real = grid.real(grid.codes(problem.weights))
    loss = plain.loss(real) + np.square(missing).mean(axis=1)
    for group, row in np.ndindex(2, 4):
        column = (group, slice(None), row)
        expected = reference.objective(problem.weights[column], real[column], inputs[group], missing[column])
        assert loss[group, row] == pytest.approx(expected)


def test_each_method_beats_the_one_before() -> None:
    ratios = []
    for seed in range(5):
        problem, grid, _, _ = case(1, 96, 16, 1, seed=seed)
        nearest = grid.codes(problem.weights)
        gptq = round_successively(problem, grid)
        refined = descend(problem, grid, gptq, 20)
        losses = [problem.loss(grid.real(codes)).sum() for codes in (nearest, gptq, refined)]
        ratios.append([losses[1] / losses[0], losses[2] / losses[1]])
    first, second = np.median(ratios, axis=0)
    assert first < 0.65
    assert second < 0.98


def test_inputs_that_are_always_zero_keep_their_nearest_codes() -> None:
    problem, grid, inputs, _ = case(1, 20, 4, 1)
    inputs[:, :, [3, 7]] = 0
    hessian = damped(inputs.transpose(0, 2, 1) @ inputs, 0.01)
    codes = round_successively(Problem(problem.weights, hessian), grid)
    np.testing.assert_array_equal(codes[:, [3, 7]], grid.codes(problem.weights)[:, [3, 7]])
    silent = Problem(problem.weights, damped(np.zeros_like(hessian), 0.01))
    np.testing.assert_array_equal(round_successively(silent, grid), grid.codes(problem.weights))


@pytest.mark.parametrize("columns", [40, 300])
def test_single_precision_finds_nearly_the_same(columns: int) -> None:
    problem, grid, _, _ = case(1, columns, 8, 1)
    single = Problem(problem.weights.astype(np.float32), problem.hessian.astype(np.float32))
    thin = Columns(grid.scale.astype(np.float32), grid.zero.astype(np.float32), grid.minimum, grid.maximum)
    found = (round_successively(problem, grid), round_successively(single, thin))
    losses = [problem.loss(grid.real(codes)).sum() for codes in found]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


@pytest.mark.parametrize("columns", [1, 127, 128, 300])
def test_the_blocked_factor_is_lapack_s(columns: int) -> None:
    inputs = np.random.default_rng(0).normal(size=(2, 2 * columns, columns))
    matrix = inputs.transpose(0, 2, 1) @ inputs
    np.testing.assert_allclose(_cholesky(matrix), np.linalg.cholesky(matrix), rtol=1e-9, atol=1e-9)
