"""Observers: what each method promises, on streams, with weights, per channel, and through the cache."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qcompiler.calibration.histogram import NotFiniteError
from qcompiler.calibration.observers import METHODS, MeanObserver, make
from qcompiler.errors import UsageError
from qcompiler.quant import arithmetic
from qcompiler.quant.format import QFormat
from qcompiler.quant.params import params_from_range

U8 = QFormat.parse("u8")
FLOATS = st.floats(-1e4, 1e4, width=32).filter(lambda x: x == 0 or abs(x) > 1e-20)
TEXTS = ["u8", "i8", "i8/sym", "i4/sym", "i4", "u4", "i2/sym", "i3/sym/narrow", "i16", "i8/pot", "u4/sym/pot"]
FORMATS = st.sampled_from(TEXTS).map(QFormat.parse)


def squared_error(values: np.ndarray, low: float, high: float, form: QFormat) -> float:
    params = params_from_range(low, high, form)
    back = arithmetic.dequantize(arithmetic.quantize(values, params, form), params, form)
    return float(np.square(back.astype(np.float64) - values).sum())


def observe(method: str, *parts: np.ndarray, form: QFormat = U8, **options: object) -> tuple[np.ndarray, np.ndarray]:
    observer = make(method, **options)  # type: ignore[arg-type]
    for part in parts:
        observer.update(part)
    return observer.range(form)


@given(hnp.arrays(np.float32, st.tuples(st.integers(2, 9), st.integers(1, 8)), elements=FLOATS), st.data())
def test_ranges_do_not_depend_on_the_batch_split(values: np.ndarray, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(values) - 1))
    for method in ("minmax", "percentile", "mse", "entropy"):
        split, whole = observe(method, values[:cut], values[cut:]), observe(method, values)
        np.testing.assert_array_equal(split, whole)  # exact, which is better than within one bin


@given(hnp.arrays(np.float32, st.integers(1, 300), elements=FLOATS), FORMATS)
@settings(max_examples=200)
def test_mse_is_never_worse_than_minmax(values: np.ndarray, form: QFormat) -> None:
    clipped = squared_error(values, *map(float, observe("mse", values, form=form)), form)
    full = squared_error(values, float(values.min()), float(values.max()), form)
    assert clipped <= full * (1 + 1e-5) + 1e-12


def test_mse_does_not_trust_bins_that_are_wider_than_its_steps() -> None:
    # All values are codes of the full range, which is exact; from bins twice as wide as a step that cannot be seen, and
    # cutting off the nearly weightless maximum looks like a finer, better scale.
    values = np.append(np.random.default_rng(0).integers(0, 50_000, 20_000), 65_535).astype(np.float32)
    weights = np.append(np.ones(20_000), 1e-9)
    observer = make("mse")
    observer.update(values, weights)
    assert [float(end) for end in observer.range(QFormat.parse("u16"))] == [float(values.min()), 65_535.0]


@pytest.mark.parametrize(("text", "factor"), [("i4/sym", 0.45), ("i4", 0.45), ("i8/sym", 0.75), ("u8", 0.75)])
def test_mse_clips_heavy_tails(text: str, factor: float) -> None:
    values = np.random.default_rng(0).laplace(size=200_000).astype(np.float32)
    form = QFormat.parse(text)
    clipped = squared_error(values, *map(float, observe("mse", values, form=form)), form)
    assert clipped < factor * squared_error(values, float(values.min()), float(values.max()), form)


@pytest.mark.parametrize("text", ["i4/sym", "u8"])
def test_mse_is_close_to_an_exhaustive_search(text: str) -> None:
    values = np.random.default_rng(1).laplace(size=20_000).astype(np.float32)
    form = QFormat.parse(text)
    mine = squared_error(values, *map(float, observe("mse", values, form=form)), form)
    bound = float(np.abs(values).max())
    best = min(squared_error(values, -bound * f, bound * f, form) for f in np.linspace(0.05, 1, 96))
    assert mine <= 1.1 * best


def test_minmax_is_exact() -> None:
    values = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    low, high = observe("minmax", values[:1], values[1:])
    assert low == values.min()
    assert high == values.max()


def test_moving_average_weighs_the_newest_most() -> None:
    observer = make("moving-average", momentum=0.5)
    observer.update(np.array([0.0, 4.0], np.float32))
    assert observer.range(U8)[1] == 4.0  # one sample is its own mean
    observer.update(np.array([0.0, 1.0], np.float32))
    assert observer.range(U8)[1] == pytest.approx((0.5 * 4 + 1) / 1.5)


@pytest.mark.parametrize("share", [90.0, 99.0, 99.9])
def test_percentile_cuts_equal_tails_to_within_a_bin(share: float) -> None:
    values = np.random.default_rng(0).gamma(2.0, size=100_000).astype(np.float32) - 3
    low, high = observe("percentile", values, percentile=share)
    tail = (100 - share) / 2
    width = 2 ** np.ceil(np.log2(np.abs(values).max())) / 2048
    assert abs(low - np.percentile(values, tail)) <= width
    assert abs(high - np.percentile(values, 100 - tail)) <= width


def test_percentile_of_few_elements_keeps_them_all() -> None:
    values = np.array([-3.0, 1.0, 7.0], np.float32)
    assert [float(end) for end in observe("percentile", values)] == [-3.0, 7.0]


def test_entropy_ignores_an_outlier() -> None:
    values = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    values[0] = 60.0
    _, high = observe("entropy", values)
    assert 2.0 < high < 10.0


def test_entropy_is_not_misled_by_the_zeros_of_a_relu() -> None:
    values = np.random.default_rng(0).standard_normal(200_000).astype(np.float32) * 2
    _, high = observe("entropy", np.maximum(values, 0))
    _, reference = observe("entropy", values)
    assert high > 0.7 * reference


def test_entropy_keeps_a_uniform_range() -> None:
    values = np.random.default_rng(0).uniform(-1, 1, 200_000).astype(np.float32)
    low, high = observe("entropy", values)
    assert low < -0.95
    assert high > 0.95


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("axis", [None, 1])
def test_weight_zero_equals_removing_the_row(method: str, axis: int | None) -> None:
    values = np.random.default_rng(3).standard_normal((5, 4, 7)).astype(np.float32)
    values[2] *= 100
    weights = np.ones(5, np.float32)
    weights[2] = 0
    weighted, removed = make(method, axis=axis), make(method, axis=axis)
    weighted.update(values, weights)
    removed.update(np.delete(values, 2, axis=0))
    np.testing.assert_array_equal(weighted.range(U8), removed.range(U8))


@pytest.mark.parametrize("method", METHODS)
def test_a_slice_observer_equals_one_observer_per_slice(method: str) -> None:
    values = np.random.default_rng(4).standard_normal((6, 3, 50)).astype(np.float32)
    values *= np.array([[[1], [5], [20]]], np.float32)
    low, high = observe(method, values[:3], values[3:], axis=1)
    for channel in range(3):
        one = observe(method, values[:3, channel], values[3:, channel])
        assert (low[channel], high[channel]) == tuple(one)


@pytest.mark.parametrize("method", METHODS)
def test_state_round_trip(method: str) -> None:
    values = np.random.default_rng(5).standard_normal((40, 30)).astype(np.float32)
    first, second = make(method), make(method)
    first.update(values)
    second.restore(copy.deepcopy(first.state()))
    np.testing.assert_array_equal(first.range(U8), second.range(U8))


@pytest.mark.parametrize("method", METHODS)
def test_merging_covers_both(method: str) -> None:
    generator = np.random.default_rng(6)
    small = generator.uniform(-1, 1, 10_000).astype(np.float32)
    large = generator.uniform(-4, 4, 10_000).astype(np.float32)
    one, two = make(method), make(method)
    one.update(small)
    two.update(large)
    one.merge(two)
    assert one.range(U8)[1] > 3.0
    assert two.range(U8)[1] == observe(method, large)[1]


@pytest.mark.parametrize("method", METHODS)
def test_nothing_seen_gives_zero(method: str) -> None:
    observer = make(method)
    observer.update(np.zeros((0, 3), np.float32))
    assert [float(end) for end in observer.range(U8)] == [0.0, 0.0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("axis", [None, 0])
def test_nan_is_refused(method: str, axis: int | None) -> None:
    with pytest.raises(NotFiniteError):
        make(method, axis=axis).update(np.array([[1.0, np.nan]], np.float32))


def test_mean_of_tensors_and_of_slices() -> None:
    values = np.random.default_rng(7).standard_normal((6, 3, 4)).astype(np.float32)
    whole, sliced = MeanObserver(), MeanObserver(axis=1)
    for row in values:
        whole.update(row[None])
        sliced.update(row[None])
    np.testing.assert_allclose(whole.mean(), values.mean(axis=0, dtype=np.float64)[None], rtol=1e-12)
    np.testing.assert_allclose(sliced.mean(), values.mean(axis=(0, 2), dtype=np.float64), rtol=1e-12)


def test_weighted_mean_ignores_rows_of_weight_zero() -> None:
    values = np.array([[[1.0], [9.0]], [[3.0], [5.0]]], np.float32)  # two samples of two rows
    observer = MeanObserver()
    observer.update(values[:1], np.array([[1.0, 0.0]]))
    observer.update(values[1:], np.array([[1.0, 1.0]]))
    np.testing.assert_array_equal(observer.mean(), [[[2.0], [5.0]]])


def test_a_mean_needs_one_shape() -> None:
    observer = MeanObserver()
    observer.update(np.zeros((1, 3)))
    with pytest.raises(UsageError, match="no common mean"):
        observer.update(np.zeros((1, 4)))


def test_half_precision_is_observed() -> None:
    low, high = observe("mse", np.array([-1.5, 2.0], np.float16))
    assert (float(low), float(high)) == (-1.5, 2.0)


def test_unknown_methods_and_options_are_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'minmax'"):
        make("min-max")
    with pytest.raises(UsageError, match="power of two"):
        make("percentile", bins=1000)
    with pytest.raises(UsageError, match="percentile"):
        make("percentile", percentile=20)
