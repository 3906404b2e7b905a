from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qcompiler.quant.integer.weight_only import GREATEST_MULTIPLIER
from qcompiler.quant.weight_scales import neighbours, row_scales, split

SCALES = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9),
    elements=st.floats(2.0**-90, 2.0**60, width=32),
)


@given(SCALES, st.randoms(use_true_random=False))
def test_any_choice_of_neighbours_is_split_exactly(scale: np.ndarray, random: np.random.Generator) -> None:
    lower, upper = neighbours(scale)
    picks = np.random.default_rng(random.randrange(1 << 30)).random(scale.shape) < 0.5  # type: ignore[attr-defined]
    chosen = np.where(picks, lower, upper)
    row, multiplier = split(chosen)
    assert (row.dtype, multiplier.dtype) == (np.float32, np.uint16)
    assert multiplier.min() >= 1
    assert multiplier.max() <= GREATEST_MULTIPLIER
    np.testing.assert_array_equal(row[:, None].astype(np.float64) * multiplier, chosen)


@given(SCALES)
def test_neighbours_are_a_unit_apart_and_around_the_scale(scale: np.ndarray) -> None:
    lower, upper = neighbours(scale)
    unit = row_scales(scale)[:, None].astype(np.float64)
    assert (upper.astype(np.float64) - lower <= unit).all()
    ordinary = (scale < scale.max(axis=1, keepdims=True)) & (scale >= unit)
    assert (lower <= scale)[ordinary].all()
    assert (upper >= scale)[ordinary].all()
    widest = scale == scale.max(axis=1, keepdims=True)
    assert (np.abs(upper[widest] / scale[widest] - 1) < 2.0**-11).all()


def test_one_block_keeps_its_scale() -> None:
    scale = np.float32([[0.1], [3e-7]])
    row, multiplier = split(neighbours(scale)[0])
    np.testing.assert_array_equal(row, scale[:, 0])
    np.testing.assert_array_equal(multiplier, 1)


@pytest.mark.parametrize("ratio", [1e-3, 1e-6])
def test_narrow_blocks_get_at_least_one_unit(ratio: float) -> None:
    scale = np.float32([[1.0, ratio]])
    _, multiplier = split(neighbours(scale)[0])
    assert multiplier.tolist() == [[2047, max(int(ratio * 2047), 1)]]
