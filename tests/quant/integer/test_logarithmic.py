"""Codes on growing grids against one comparison at a time."""

from __future__ import annotations

import numpy as np
import pytest

from qcompiler.quant.integer.logarithmic import log_dequantize, log_quantize


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_encoding_counts_thresholds(dtype: type) -> None:
    random = np.random.default_rng(0)
    limits = np.iinfo(dtype)
    for number in (1, 3, 15, 127):
        thresholds = np.sort(random.integers(limits.min, limits.max, number, endpoint=True)).astype(dtype)
        thresholds[0], thresholds[-1] = limits.min if number > 1 else 0, limits.max
        x = random.integers(limits.min, limits.max, (3, 40), endpoint=True).astype(dtype)
        x[0, :2] = limits.min, limits.max
        expected = [[sum(int(border) <= int(code) for border in thresholds) for code in row] for row in x]
        np.testing.assert_array_equal(log_quantize(x, thresholds), np.array(expected, np.int8), strict=True)


def test_decoding_clamps_codes() -> None:
    values = np.array([-5, 0, 7, 32767], np.int16)
    codes = np.array([-128, -1, 0, 1, 2, 3, 4, 127], np.int8)
    assert log_dequantize(codes, values).tolist() == [-5, -5, -5, 0, 7, 32767, 32767, 32767]
    assert log_dequantize(codes, values).dtype == np.int16


def test_what_does_not_fit_is_refused() -> None:
    code, word = np.zeros(3, np.int8), np.zeros(3, np.int16)
    with pytest.raises(ValueError, match="both int8 or both int16"):
        log_quantize(code, word)
    with pytest.raises(ValueError, match="ascend"):
        log_quantize(word, np.array([3, 1], np.int16))
    with pytest.raises(ValueError, match="1 to 127 thresholds"):
        log_quantize(code, np.zeros(128, np.int8))
    with pytest.raises(ValueError, match="2 to 128 values"):
        log_dequantize(code, np.zeros(1, np.int16))
    with pytest.raises(ValueError, match="codes are int8"):
        log_dequantize(word, word)
