"""Grids whose steps grow: their integers, what a plan says of them, and codes as the operators find them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcompiler.errors import UsageError
from qcompiler.quant.arithmetic import WORDS, dequantize, quantize
from qcompiler.quant.integer import logarithmic
from qcompiler.quant.log_grids import GREATEST, Grid
from qcompiler.quant.params import params_of_grid


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    kind = draw(st.sampled_from(["uniform", "log2", "searched-base", "shift-uniform-log2"]))
    span = draw(st.floats(1e-6, 1e6))
    numbers = {"floor": draw(st.just(0.0) | st.floats(-2.0, 0.0).map(lambda part: part * span))}
    if kind == "shift-uniform-log2":
        numbers["shift"] = span * draw(st.floats(1e-5, 10))
    if kind in ("log2", "searched-base"):
        numbers["step"] = 1.0 if kind == "log2" else draw(st.floats(0.05, 4))
    return Grid(kind, draw(st.integers(2, 7)), span, **numbers)


@given(grids())
def test_integers_of_a_grid(grid: Grid) -> None:
    values, decoded = grid.values(), grid.decoded()
    assert values.shape == decoded.shape == (1 << grid.bits,)
    assert (np.diff(values) >= 0).all()
    assert (np.diff(decoded.astype(int)) >= 0).all()
    assert np.abs(decoded.astype(int)).max() <= GREATEST
    assert grid.floor or decoded[-1] == GREATEST
    assert np.abs(decoded * np.float64(grid.scale) - values).max() <= 0.51 * float(grid.scale)
    assert values[-1] == pytest.approx(grid.floor + grid.span, rel=1e-9, abs=1e-9 * grid.span)
    if grid.kind in ("uniform", "shift-uniform-log2"):
        assert values[0] == pytest.approx(grid.floor, abs=1e-9 * grid.span)


@given(grids())
def test_a_plan_gives_the_grid_back(grid: Grid) -> None:
    assert Grid.of(grid.bits, grid.parameters()) == grid
    assert str(grid.format) == f"log{grid.bits}"


@given(grids(), st.integers(0, 2**32 - 1))
def test_codes_are_those_of_the_nearest_value(grid: Grid, seed: int) -> None:
    params, form = params_of_grid(grid), grid.format
    low, high = grid.floor, grid.floor + grid.span
    numbers = np.random.default_rng(seed).uniform(low - 0.1 * grid.span, high + 0.1 * grid.span, 200)
    numbers = numbers.astype(np.float32)
    codes = quantize(numbers, params, form)
    assert codes.dtype == np.int8
    assert codes.min() >= 0
    assert codes.max() < 1 << grid.bits
    words = quantize(numbers, params, WORDS)
    units = grid.decoded().astype(np.int64)
    least = np.abs(words.astype(np.int64)[:, None] - units).min(axis=1)
    np.testing.assert_array_equal(np.abs(words.astype(np.int64) - units[codes]), least)
    real = dequantize(codes, params, form)
    decoded = logarithmic.log_dequantize(codes, grid.decoded())
    np.testing.assert_array_equal(real, decoded.astype(np.float32) * params.scale, strict=True)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"kind": "log3", "span": 1.0}, "'log3' is no kind of grid"),
        ({"kind": "uniform"}, "a grid needs 'span'"),
        ({"kind": "uniform", "span": 0.0}, "a grid spans"),
        ({"kind": "uniform", "span": float("nan")}, "'span' of a grid cannot be nan"),
        ({"kind": "uniform", "span": 10**400}, "'span' of a grid cannot be 1000.*0000\n  hint: write a number"),
        ({"kind": "uniform", "span": True}, "'span' of a grid cannot be True"),
        ({"kind": "uniform", "span": 1.0, "step": 1.0}, "a step of 1.0 octaves does not go with uniform"),
        ({"kind": "searched-base", "span": 1.0}, "a step of 0.0 octaves does not go with searched-base"),
        ({"kind": "log2", "span": 1.0, "step": 2.0}, "a step of 2.0 octaves does not go with log2"),
        ({"kind": "shift-uniform-log2", "span": 1.0}, "a shift of 0.0 does not go with shift-uniform-log2"),
        ({"kind": "uniform", "span": 1.0, "flor": 1.0}, "'flor' is not known of a grid"),
        ({"kind": "uniform", "span": 1.0, "floor": 1e300}, "is no number up to"),
    ],
)
def test_nonsense_is_refused(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Grid.of(4, parameters)
    assert re.search(message, str(caught.value))


def test_codes_without_a_grid_are_refused() -> None:
    grid = Grid("uniform", 4, 1.0)
    with pytest.raises(ValueError, match="log3 needs a grid of 8 values"):
        quantize(np.zeros(2, np.float32), params_of_grid(grid), Grid("uniform", 3, 1.0).format)
