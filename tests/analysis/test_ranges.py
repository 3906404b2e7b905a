"""Worst cases of accumulators are reached, never exceeded, and hold for every order of adding."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.analysis.ranges import linear_bounds, order_free_bounds, product_bounds, sum_bounds, width
from qcompiler.quant.integer.dyadic import Overflow

_CODES = st.integers(-128, 127)
_RANGES = st.tuples(st.integers(-32768, 32767), st.integers(-32768, 32767)).map(sorted)


@given(st.lists(_CODES, min_size=1, max_size=4), st.integers(-500, 500), st.tuples(_CODES, _CODES).map(sorted))
def test_the_bounds_are_those_of_all_corners(weights: list[int], bias: int, limits: list[int]) -> None:
    corners = [
        bias + sum(x * w for x, w in zip(xs, weights, strict=True))
        for xs in itertools.product(limits, repeat=len(weights))
    ]
    low, high = linear_bounds(np.array([weights], np.int8), np.array([bias]), *limits)
    assert (low[0], high[0]) == (min(corners), max(corners))


@settings(max_examples=60)
@given(st.lists(_CODES, min_size=1, max_size=4), st.integers(-500, 500), st.tuples(_CODES, _CODES).map(sorted))
def test_partial_sums_of_every_order_stay_inside_and_reach_the_bounds(
    weights: list[int], bias: int, limits: list[int]
) -> None:
    sums = {0}
    for xs in itertools.product(limits, repeat=len(weights)):
        terms = [bias, *(x * w for x, w in zip(xs, weights, strict=True))]
        for count in range(len(terms) + 1):
            sums.update(sum(chosen) for chosen in itertools.combinations(terms, count))
    low, high = order_free_bounds(np.array([weights], np.int8), np.array([bias]), *limits)
    assert (low[0], high[0]) == (min(sums), max(sums))


@given(st.integers(1, 6), st.integers(1, 40), _RANGES, st.integers(0, 2**32 - 1), st.integers(0, 2))
def test_random_inputs_never_leave_the_bounds(
    channels: int, depth: int, limits: list[int], seed: int, axis: int
) -> None:
    random = np.random.default_rng(seed)
    weight = random.integers(-128, 128, (channels, depth), np.int64).astype(np.int8)
    bias = random.integers(-(2**31), 2**31, channels)
    shaped = np.moveaxis(weight.reshape(channels, depth, 1), 0, axis)
    low, high = linear_bounds(shaped, bias.reshape(-1, 1), *limits, channel_axis=axis)
    x = random.integers(limits[0], limits[1] + 1, (50, depth))
    accumulators = x @ weight.T.astype(np.int64) + bias
    assert (accumulators >= low).all()
    assert (accumulators <= high).all()
    adversarial = np.where(weight > 0, limits[1], limits[0])
    assert ((adversarial * weight.astype(np.int64)).sum(axis=1) + bias == high).all()


def test_products_of_two_activations() -> None:
    assert product_bounds(3, -128, 127, -128, 127) == (-3 * 128 * 127, 3 * 128 * 128)
    assert product_bounds(5, 0, 255, 0, 10) == (0, 5 * 2550)
    assert product_bounds(5, 2, 3, 2, 3) == (0, 45)
    assert sum_bounds(49, -128, 127) == (-49 * 128, 49 * 127)
    assert sum_bounds(4, 3, 5) == (0, 20)


@pytest.mark.parametrize(
    ("low", "high", "bits"), [(0, 0, 1), (-1, 0, 1), (-128, 127, 8), (-129, 0, 9), (0, 128, 9), (-(2**31), 0, 32)]
)
def test_width_of_a_range(low: int, high: int, bits: int) -> None:
    assert width(low, high) == bits


def test_empty_ranges_and_sums_beyond_64_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        linear_bounds(np.ones((1, 1), np.int8), None, 1, 0)
    with pytest.raises(ValueError, match="empty"):
        product_bounds(1, 0, 1, 1, 0)
    with pytest.raises(Overflow):
        linear_bounds(np.array([[2**46]]), None, -(2**17), 0)


def test_no_terms_give_the_bias() -> None:
    low, high = linear_bounds(np.zeros((2, 0), np.int8), np.array([-3, 4]), -128, 127)
    assert low.tolist() == high.tolist() == [-3, 4]
    assert [bound.tolist() for bound in order_free_bounds(np.zeros((2, 0), np.int8), np.array([-3, 4]), 0, 1)] == [
        [-3, 0],
        [0, 4],
    ]
