"""The histogram: exact counts, independence of how the stream is cut, growth without a second run."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qcompiler.calibration.histogram import Histogram, NotFiniteError, extrema

FLOATS = st.floats(-1e6, 1e6, width=32).filter(lambda x: x == 0 or abs(x) > 1e-30)
ARRAYS = hnp.arrays(np.float32, st.integers(1, 60), elements=FLOATS)


def counted(values: np.ndarray, bins: int = 64) -> Histogram:
    histogram = Histogram(bins)
    histogram.add(values)
    return histogram


@given(st.lists(ARRAYS, min_size=1, max_size=6))
def test_a_stream_counts_the_same_however_it_is_cut(parts: list[np.ndarray]) -> None:
    streamed = Histogram(64)
    for part in parts:
        streamed.add(part)
    whole = counted(np.concatenate(parts))
    assert streamed.exponent == whole.exponent
    assert streamed.first == whole.first
    np.testing.assert_array_equal(streamed.counts, whole.counts)
    assert (streamed.low, streamed.high) == (whole.low, whole.high)


@given(ARRAYS)
def test_counts_are_those_of_a_naive_loop(values: np.ndarray) -> None:
    histogram = counted(values)
    indices = np.floor(values.astype(np.float64) / histogram.width).astype(int)
    naive = {int(i): int(n) for i, n in zip(*np.unique(indices, return_counts=True), strict=True)}
    mine = {histogram.first + i: int(n) for i, n in enumerate(histogram.counts) if n}
    assert mine == naive
    assert histogram.total == values.size


@given(ARRAYS)
def test_the_largest_magnitude_lies_in_the_upper_half_of_the_bins(values: np.ndarray) -> None:
    histogram = counted(values)
    magnitude = float(np.abs(values).max())
    if magnitude > 1e-30:
        assert histogram.bins / 2 * histogram.width <= magnitude <= histogram.bins * histogram.width
    assert histogram.counts.size <= 2 * histogram.bins + 1


@given(ARRAYS, ARRAYS)
def test_merging_is_counting_together(one: np.ndarray, two: np.ndarray) -> None:
    merged = counted(one)
    merged.merge(counted(two))
    whole = counted(np.concatenate([one, two]))
    assert (merged.exponent, merged.first) == (whole.exponent, whole.first)
    np.testing.assert_array_equal(merged.counts, whole.counts)


@given(ARRAYS)
@settings(max_examples=30)
def test_state_survives_a_round_trip(values: np.ndarray) -> None:
    histogram, restored = counted(values), Histogram(64)
    restored.restore(histogram.state())
    restored.add(values)
    histogram.add(values)
    np.testing.assert_array_equal(restored.counts, histogram.counts)
    assert restored.exponent == histogram.exponent


def test_zeros_before_the_first_value_are_kept() -> None:
    histogram = Histogram(64)
    histogram.add(np.zeros(5, np.float32))
    histogram.add(np.array([3.0], np.float32))
    assert histogram.total == 6
    assert histogram.counts[-histogram.first] == 5


def test_large_arrays_are_counted_in_pieces() -> None:
    values = np.random.default_rng(0).standard_normal(400_003).astype(np.float32)
    histogram = counted(values, 2048)
    edges = (histogram.first + np.arange(histogram.counts.size + 1)) * histogram.width
    expected, _ = np.histogram(values.astype(np.float64), edges)
    np.testing.assert_array_equal(histogram.counts, expected)


def test_weights_scale_counts() -> None:
    histogram = Histogram(64)
    histogram.add(np.array([1.0, 2.0], np.float32), np.array([0.5, 3.0]))
    assert sorted(histogram.counts[histogram.counts > 0]) == [0.5, 3.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    values = np.ones(200_000, np.float32)
    values[150_000] = bad
    with pytest.raises(NotFiniteError, match="NaN" if np.isnan(bad) else "infinity"):
        extrema(values)


def test_bins_must_be_a_power_of_two() -> None:
    with pytest.raises(ValueError, match="power of two"):
        Histogram(100)
