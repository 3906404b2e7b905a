"""Grids whose steps grow: their error, their integers, and that the better family is found."""

from __future__ import annotations

import numpy as np
import pytest

from qcompiler.quant.integer import logarithmic
from qcompiler.quant.log_grids import KINDS, Sorted, best_grids, decoded_values, encode_thresholds
from qcompiler.quant.params import QParams


def attention(seed: int = 0, rows: int = 400, length: int = 50, temperature: float = 3.0) -> np.ndarray:
    scores = np.random.default_rng(seed).standard_normal((rows, length)) * temperature
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_error_by_prefix_sums_is_the_distance_to_the_nearest_value() -> None:
    random = np.random.default_rng(3)
    for _ in range(20):
        numbers = random.exponential(size=300)
        values = np.sort(random.exponential(size=int(random.integers(2, 17))))
        exact = np.square(np.abs(numbers[:, None] - values).min(axis=1)).sum()
        assert Sorted(numbers).error(values) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("bits", [3, 4, 5])
def test_every_family_is_measured_and_ascends(bits: int) -> None:
    numbers = attention()
    found = best_grids(numbers, bits)
    assert set(found) == set(KINDS)
    for grid in found.values():
        assert grid.values.shape == (1 << bits,)
        assert (np.diff(grid.values) > 0).all()
        nearest = grid.values[np.searchsorted(grid.borders(), numbers)]
        assert grid.error == pytest.approx(np.square(nearest - numbers).sum() / np.square(numbers).sum(), rel=1e-6)
    assert found["searched-base"].error <= found["log2"].error


def test_a_shift_wins_on_peaked_rows_and_uniform_on_uniform_numbers() -> None:
    peaked = best_grids(attention(), 4)
    assert min(peaked.values(), key=lambda grid: grid.error).kind == "shift-uniform-log2"
    assert peaked["shift-uniform-log2"].error < 0.7 * peaked["uniform"].error
    flat = best_grids(np.random.default_rng(0).uniform(size=5000), 4)
    assert flat["uniform"].error < min(flat["log2"].error, flat["searched-base"].error)


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_integer_codes_are_those_of_the_nearest_value(dtype: type) -> None:
    grid = best_grids(attention(), 4)["shift-uniform-log2"]
    limits = np.iinfo(dtype)
    scale, zero = np.float32(1.0 / (limits.max - limits.min)), limits.min
    params = QParams(np.asarray(scale), np.asarray(zero, np.int32))
    x = np.arange(limits.min, limits.max + 1).astype(dtype)
    codes = logarithmic.log_quantize(x, encode_thresholds(grid, params, dtype))
    values, step = decoded_values(grid)
    decoded = logarithmic.log_dequantize(codes, values) * np.float64(step)
    real = np.float64(scale) * (x.astype(np.int64) - zero)
    nearest = np.abs(real[:, None] - grid.values).min(axis=1)
    assert (np.abs(decoded - real) <= nearest + 0.51 * step + 1e-9).all()
    assert values[0] == 0
    assert values[-1] == 32767


@pytest.mark.parametrize("numbers", [np.zeros(4), np.array([-1.0, 2.0])])
def test_what_no_grid_fits_is_refused(numbers: np.ndarray) -> None:
    with pytest.raises(ValueError, match="zero"):
        best_grids(numbers, 4)
    with pytest.raises(ValueError, match="bits"):
        best_grids(np.ones(3), 8)
