"""The better family of grids is found, and what is kept of a stream says its error."""

from __future__ import annotations

import numpy as np
import pytest

from qcompiler.calibration.grid_search import Sorted, ValueSums, best_grids
from qcompiler.calibration.histogram import NotFiniteError
from qcompiler.quant.arithmetic import dequantize, quantize
from qcompiler.quant.log_grids import KINDS
from qcompiler.quant.params import params_of_grid


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
def test_every_family_is_measured(bits: int) -> None:
    numbers = attention()
    found = best_grids(numbers, bits)
    assert set(found) == set(KINDS)
    for fit in found.values():
        params, form = params_of_grid(fit.grid), fit.grid.format
        real = dequantize(quantize(numbers, params, form), params, form)
        error = np.square(real.astype(np.float64) - numbers).sum() / np.square(numbers).sum()
        assert fit.error == pytest.approx(error, rel=1e-3)
    assert found["searched-base"].error <= found["log2"].error


def test_a_shift_wins_on_peaked_rows_and_uniform_on_uniform_numbers() -> None:
    peaked = best_grids(attention(), 4)
    assert min(peaked.values(), key=lambda fit: fit.error).grid.kind == "shift-uniform-log2"
    assert peaked["shift-uniform-log2"].error < 0.7 * peaked["uniform"].error
    flat = best_grids(np.random.default_rng(0).uniform(size=5000), 4)
    assert flat["uniform"].error < min(flat["log2"].error, flat["searched-base"].error)


def test_a_gelu_begins_at_its_least_value() -> None:
    x = np.random.default_rng(1).standard_normal(5000) * 2
    numbers = x / (1 + np.exp(-1.702 * x))
    found = best_grids(numbers, 4, ("uniform", "shift-uniform-log2"), floor=float(numbers.min()))
    assert set(found) == {"uniform", "shift-uniform-log2"}
    assert found["shift-uniform-log2"].grid.floor == pytest.approx(numbers.min(), rel=1e-5)
    assert found["shift-uniform-log2"].error < found["uniform"].error


def test_a_stream_gives_the_grids_of_all_its_numbers() -> None:
    parts = [attention(seed).astype(np.float32) for seed in range(3)]
    sums = ValueSums()
    for part in parts:
        sums.update(part)
    streamed, whole = best_grids(sums.sorted(), 4), best_grids(np.concatenate(parts), 4)
    for kind in KINDS:
        assert streamed[kind].error == pytest.approx(whole[kind].error, rel=0.02)
    other = ValueSums()
    other.restore(sums.state())
    assert best_grids(other.sorted(), 4) == streamed


def test_rows_of_weight_0_are_as_if_they_were_not_there() -> None:
    rows, padding = attention(1).astype(np.float32), attention(2, temperature=0.1).astype(np.float32)
    alone, mixed = ValueSums(), ValueSums()
    alone.update(rows)
    mixed.update(np.concatenate([rows, padding]), np.repeat(np.float32([1, 0]), 400))
    for key, item in alone.state().items():
        np.testing.assert_array_equal(item, mixed.state()[key])
    halves = ValueSums()
    halves.update(rows, np.full(400, 0.5, np.float32))
    np.testing.assert_allclose(halves.state()["sums"], alone.state()["sums"] / 2)


@pytest.mark.parametrize("numbers", [np.zeros(4), np.array([-1.0, 2.0]), np.zeros(0)])
def test_what_no_grid_fits_is_refused(numbers: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"zero|begin at 0"):
        best_grids(numbers, 4)


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(NotFiniteError, match="NaN"):
        ValueSums().update(np.array([1.0, np.nan], np.float32))
