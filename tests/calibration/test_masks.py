"""Masked scores: the constant leaves the range, masked positions keep a negligible probability."""

import numpy as np
import pytest

from qcompiler.calibration.histogram import NotFiniteError
from qcompiler.calibration.masks import MARGIN, MaskedObserver
from qcompiler.calibration.observers import METHODS, make
from qcompiler.quant import arithmetic
from qcompiler.quant.format import QFormat
from qcompiler.quant.params import params_from_range

U8 = QFormat.parse("u8")


def scores(constant: float) -> np.ndarray:
    """Scores of 2 heads over 16 tokens with a causal mask."""
    values = np.random.default_rng(0).standard_normal((1, 2, 16, 16)).astype(np.float32) * 3
    return (values + np.triu(np.full((16, 16), constant, np.float32), 1)).astype(np.float32)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("constant", [-1e4, -1e9, float(np.finfo(np.float32).min), -np.inf])
@pytest.mark.parametrize("method", METHODS)
def test_masked_positions_get_no_probability_and_the_rest_keeps_its_resolution(constant: float, method: str) -> None:
    values = scores(constant)
    observer = MaskedObserver(make(method), constant)
    observer.update(values)
    low, high = observer.range(U8)
    unmasked = values[values > constant / 2] if np.isfinite(constant) else values[np.isfinite(values)]
    assert low >= unmasked.min() - MARGIN - 1e-6
    params = params_from_range(low, high, U8)
    safe = np.maximum(values, np.float32(-1e30))  # real scores are finite: −inf saturates
    back = arithmetic.dequantize(arithmetic.quantize(safe, params, U8), params, U8)
    probability = softmax(back)
    masked = np.triu(np.ones((16, 16), bool), 1)
    assert probability[..., masked].max() < 1e-6
    assert np.abs(probability - softmax(values.astype(np.float64))).max() < 0.1


def test_row_weights_and_mask_work_together() -> None:
    values = np.array([[[1.0, -1e4], [500.0, 2.0]]], np.float32)
    observer = MaskedObserver(make("minmax"), -1e4)
    observer.update(values, np.array([[1.0, 0.0]]))
    low, high = observer.range(U8)
    assert (float(low), float(high)) == (1.0 - MARGIN, 1.0)


def test_a_pure_mask_operand_keeps_its_exact_range() -> None:
    observer = MaskedObserver(make("minmax"), -1e4, operand=True)
    mask = np.array([[0.0, -1e4]], np.float32)
    observer.update(mask)
    low, high = observer.range(U8)
    params = params_from_range(low, high, U8)
    back = arithmetic.dequantize(arithmetic.quantize(mask, params, U8), params, U8)
    np.testing.assert_allclose(back, mask, rtol=1e-6)


def test_a_mask_operand_saturates_where_it_is_far_enough() -> None:
    observer = MaskedObserver(make("minmax"), -1e9, operand=True)
    observer.update(np.array([[0.0, -1e9]], np.float32))
    low, high = observer.range(U8)
    assert (float(low), float(high)) == (-1e4, 0.0)


def test_an_operand_with_a_bias_leaves_the_constant_out() -> None:
    observer = MaskedObserver(make("minmax"), -1e4, operand=True)
    observer.update(np.array([[0.5, -2.0, -1e4]], np.float32))
    low, high = observer.range(U8)
    assert (float(low), float(high)) == (-2.0 - MARGIN, 0.5)


def test_all_masked_is_survived() -> None:
    observer = MaskedObserver(make("mse"), -1e4)
    observer.update(np.full((2, 2), -1e4, np.float32))
    low, high = observer.range(U8)
    assert (float(low), float(high)) == (-MARGIN, 0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_real_faults_are_still_found(bad: float) -> None:
    with pytest.raises(NotFiniteError):
        MaskedObserver(make("minmax"), -np.inf).update(np.array([1.0, -np.inf, bad], np.float32))


def test_state_round_trip() -> None:
    first, second = MaskedObserver(make("percentile"), -1e4), MaskedObserver(make("percentile"), -1e4)
    first.update(scores(-1e4))
    second.restore(first.state())
    np.testing.assert_array_equal(first.range(U8), second.range(U8))
    assert second.masked == first.masked > 0
    assert first.settings() != MaskedObserver(make("percentile"), -1e9).settings()
