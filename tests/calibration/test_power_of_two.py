"""Power-of-two scales by least squares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcompiler.calibration.observers import make
from qcompiler.calibration.power_of_two import windows
from qcompiler.quant import arithmetic
from qcompiler.quant.format import QFormat
from qcompiler.quant.params import QParams, params_from_range

FORMS = ["i8/pot", "i8/sym/pot", "u8/pot", "i4/sym/narrow/pot", "u4/sym/pot"]
ENDS = st.floats(-1e4, 1e4, width=32).filter(lambda x: x == 0 or abs(x) > 1e-10)


def error(values: np.ndarray, params: QParams, form: QFormat) -> float:
    back = arithmetic.dequantize(arithmetic.quantize(values, params, form), params, form)
    return float(np.square(back.astype(np.float64) - values).sum())


def found(values: np.ndarray, form: QFormat) -> QParams:
    observer = make("mse")
    observer.update(values.astype(np.float32))
    return params_from_range(*observer.range(form), form)


@given(ENDS, ENDS, st.sampled_from(FORMS).map(QFormat.parse))
def test_windows_name_their_scale_and_zero_point(first: float, second: float, form: QFormat) -> None:
    full = params_from_range(min(first, second), max(first, second), form)
    for low, high in windows(min(first, second), max(first, second), form):
        params = params_from_range(low, high, form)
        ratio = float(full.scale / params.scale)
        assert ratio in (1, 2, 4, 8)
        middle = 0 if form.signed else (form.maximum + 1) // 2
        least = 2 * middle - form.maximum if form.symmetric else form.minimum
        zero = int(params.zero_point)
        assert (low, high) == ((least - zero) * float(params.scale), (form.maximum - zero) * float(params.scale))


@pytest.mark.parametrize("text", FORMS)
def test_of_all_exponents_the_best_is_found(text: str) -> None:
    form = QFormat.parse(text)
    values = np.random.default_rng(3).laplace(size=20_000).astype(np.float32)
    middle = 0 if form.signed else (form.maximum + 1) // 2
    zeros = [middle] if form.symmetric else range(form.minimum, form.maximum + 1, 4)
    every = [
        error(values, QParams(np.array(2.0**k, np.float32), np.array(zero, np.int32)), form)
        for k in range(-8, 3)
        for zero in zeros
    ]
    assert error(values, found(values, form), form) <= 1.02 * min(every)


def test_an_outlier_is_clipped_and_a_relu_keeps_its_zero() -> None:
    values = np.append(np.abs(np.random.default_rng(0).standard_normal(100_000)), 8.1)
    params = found(values, QFormat.parse("i8/pot"))
    assert (float(params.scale), int(params.zero_point)) == (2.0**-5, -128)  # 8.1 alone asks for 2^-4
