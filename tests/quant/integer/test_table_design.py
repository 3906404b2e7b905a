from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.quant.integer.table_design import Affine, Function, design_interpolated, design_table
from qcompiler.quant.integer.tables import lookup, lookup_interpolated

BYTES = np.arange(-128, 128).astype(np.int8)
WORDS = np.arange(-32768, 32768).astype(np.int16)


def erf(x: np.ndarray) -> np.ndarray:
    return np.array([math.erf(item) for item in x])


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + erf(x / math.sqrt(2)))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def dequantized(codes: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    real = np.float32(scale) * (codes.astype(np.int32) - zero_point).astype(np.float32)
    return np.asarray(real.astype(np.float64))


def words(scale: float, zero_point: int) -> Affine:
    return Affine(scale, zero_point, -32768, 32767)


@given(
    st.sampled_from([np.tanh, sigmoid, gelu, np.exp, np.sin]),
    st.floats(-9, 1),
    st.floats(-9, 1),
    st.integers(-128, 127),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_a_table_is_the_function_rounded_once(
    function: Function, scale: float, fine: float, zero_point: int, wide: bool
) -> None:
    source = Affine(math.exp(scale), zero_point, -128, 127)
    low, high = (-32768, 32767) if wide else (-128, 127)
    result = Affine(math.exp(fine), -zero_point, low, high)
    table = design_table(function, source, result, 5 if wide else 3)
    real = function(dequantized(BYTES, source.scale, zero_point)) / result.scale
    wanted = [min(max(round(item) - zero_point, low), high) for item in real]  # round is half_even
    assert lookup(BYTES, table).tolist() == wanted


def test_no_value_is_zero_and_infinity_the_nearest_code() -> None:
    table = design_table(np.log, Affine(0.1, 0, -128, 127), Affine(0.05, 3, -100, 100), 3)
    assert set(table[:128]) == {3}
    assert table[128] == -100


@pytest.mark.parametrize(
    ("function", "scale", "zero_point", "result"),
    [  # scales that calibration gave: gelu, erf of MiniLM, sigmoid of a language model
        (gelu, 6.39e-4, -5896, words(4.1e-4, -32353)),
        (gelu, 1.82e-4, 1628, words(9.0e-5, -30880)),
        (erf, 4.52e-4, -5896, words(3.052e-5, 0)),
        (erf, 1.29e-4, 1628, words(3.052e-5, 0)),
        (sigmoid, 1.544e-4, -312, words(1.517e-5, -32768)),
        (np.tanh, 3.0e-4, -320, words(3.052e-5, 0)),
        (lambda x: x * sigmoid(x), 1.5e-4, -312, words(8.0e-5, -29000)),
        (np.exp, 1.5e-4, 32767, words(1.526e-5, -32768)),
        (np.negative, 8.0e-4, -3201, words(8.0e-4, 3200)),
    ],
)
def test_smooth_functions_are_within_one_code(
    function: Function, scale: float, zero_point: int, result: Affine
) -> None:
    source = words(scale, zero_point)
    for to, target in ((5, result), (3, Affine(result.scale * 256, result.zero_point // 256, -128, 127))):
        design = design_interpolated(function, source, target, to)
        assert design.distance <= 1
        found = lookup_interpolated(
            WORDS, design.entries, curved=int(design.curved), to=to, low=target.low, high=target.high
        )
        real = function(dequantized(WORDS, scale, zero_point)) / target.scale + target.zero_point
        assert np.abs(found - np.clip(real, target.low, target.high)).max() <= design.error + 1e-6


def test_only_codes_that_the_input_has_count() -> None:
    def absolute(x: np.ndarray) -> np.ndarray:
        return np.abs(x)

    whole = design_interpolated(absolute, words(1e-3, 60), words(1e-3, -32768), 5)
    half = design_interpolated(absolute, Affine(1e-3, 60, 60, 32767), words(1e-3, -32768), 5)
    assert whole.distance > 30
    assert half.error < 0.01


def test_chosen_lines_err_half_as_much_as_sampled_ones() -> None:
    scale, step = 6e-4, 128 * 6e-4
    sampled = step**2 / 8 * 2 * math.pi**-0.5 * math.exp(-0.5) * 2**0.5 / 2**-8
    design = design_interpolated(erf, words(scale, 0), Affine(2.0**-8, 0, -32768, 32767), 5)
    assert not design.curved
    assert design.error <= 0.5 + sampled / 2 + 0.02
