from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qcompiler.quant.integer import dyadic
from qcompiler.quant.integer.dyadic import Overflow
from qcompiler.quant.integer.softmax import powers, softmax, softmax_shift

BYTE = {"y_zero_point": -128, "to": 3, "low": -128, "high": 127}
WORD = {"y_zero_point": -32768, "to": 5, "low": -32768, "high": 32767}


def real_softmax(x: NDArray[np.integer], scale: float, axis: int = -1) -> NDArray[np.float64]:
    real = x.astype(np.float64) * scale
    terms = np.exp(real - real.max(axis=axis, keepdims=True))
    return np.asarray(terms / terms.sum(axis=axis, keepdims=True))


def factors(scale: float, result: float, bits: int = 31) -> list[NDArray[np.generic]]:
    first = dyadic.choose(min(scale * math.log2(math.e), 32.0), bits, 65535 << 16)
    last = dyadic.choose(2.0**-24 / result, bits, 1 << 30)
    assert first.multiplier is not None
    assert last.multiplier is not None
    return [first.multiplier, first.shift, last.multiplier, last.shift]


def distance(found: NDArray[np.integer], probability: NDArray[np.float64], scale: float, clamp: dict[str, int]) -> int:
    wanted = np.clip(np.rint(probability / scale) + clamp["y_zero_point"], clamp["low"], clamp["high"])
    return int(np.abs(found - wanted).max(initial=0))


def codes(random: np.random.Generator, shape: tuple[int, ...], dtype: type, spread: float) -> NDArray[np.integer]:
    limits = np.iinfo(dtype)
    x = np.clip(np.rint(random.normal(0, spread, shape)), limits.min, limits.max).astype(dtype)
    kind = random.integers(5)
    if kind == 0:
        x[..., shape[-1] // 2 :] = limits.min  # a mask
    if kind == 1:
        x[:] = limits.max
    if kind == 2:
        x[..., 0] = limits.max
    return np.asarray(x)


@given(
    st.integers(0, 2**32),
    st.sampled_from([1, 2, 3, 17, 128, 197, 1000, 4096]),
    st.sampled_from([np.int8, np.int16]),
    st.floats(-11, 4),
)
@settings(max_examples=150, deadline=None)
def test_softmax_is_within_one_code_of_the_real_one(seed: int, length: int, dtype: type, logarithm: float) -> None:
    random = np.random.default_rng(seed)
    scale = math.exp(logarithm)
    x = codes(random, (3, length), dtype, np.exp(random.uniform(0, 11)))
    real = real_softmax(x, scale)
    for result, clamp in ((1 / 255, BYTE), (1 / 65535, WORD)):
        found = softmax(x, *factors(scale, result), axis=-1, **clamp)
        assert distance(found, real, result, clamp) <= 1


@given(st.integers(0, 2**32), st.integers(2, 4096), st.floats(-11, -2))
@settings(max_examples=60, deadline=None)
def test_it_is_within_two_codes_where_the_scale_is_fine(seed: int, length: int, logarithm: float) -> None:
    random = np.random.default_rng(seed)
    scale = math.exp(logarithm)
    x = codes(random, (2, length), np.int16, np.exp(random.uniform(0, 9)))
    real = real_softmax(x, scale)
    result = max(real.max() / 65535, 2.0**-25)
    assert distance(softmax(x, *factors(scale, result), axis=-1, **WORD), real, result, WORD) <= 2


@pytest.mark.parametrize(
    ("scale", "zero_point", "result"),
    [  # calibrated: MiniLM, a vision transformer, a language model with a causal mask
        (1.739e-3, 6598, 1 / 255),
        (4.439e-4, 12982, 0.0039049),
        (2.136e-3, -1873, 1 / 255),
        (3.723e-3, 26264, 1 / 255),
    ],
)
def test_scales_of_attention(scale: float, zero_point: int, result: float) -> None:
    random = np.random.default_rng(1)
    x = np.clip(np.rint(random.normal(0, 2, (12, 64, 64)) / scale) + zero_point, -32768, 32767).astype(np.int16)
    x[:, np.triu(np.ones((64, 64), bool), 1)] = -32768
    found = softmax(x, *factors(scale, result), axis=-1, **BYTE)
    assert distance(found, real_softmax(x, scale), result, BYTE) <= 1


@given(st.integers(0, 2**32), st.integers(-12, 3), st.integers(-16, -6))
@settings(max_examples=60, deadline=None)
def test_powers_of_two_need_shifts_only(seed: int, power: int, fine: int) -> None:
    random = np.random.default_rng(seed)
    x = codes(random, (3, int(random.integers(1, 300))), np.int8 if fine > -9 else np.int16, 2.0 ** (2 - power))
    first, last = dyadic.choose_shift(2.0 ** (power - 12)), dyadic.choose_shift(2.0 ** (-24 - fine))
    clamp = WORD if fine < -8 else BYTE
    found = softmax_shift(x, first.shift, last.shift, axis=-1, **clamp)
    assert distance(found, real_softmax(x, 2.0**power), 2.0**fine, clamp) <= 1


def test_a_multiplier_of_eight_bits_is_good_for_eight_bits() -> None:
    random = np.random.default_rng(3)
    x = random.integers(-128, 128, (50, 40)).astype(np.int8)
    found = softmax(x, *factors(0.05, 1 / 255, bits=8), axis=-1, **BYTE)
    assert distance(found, real_softmax(x, 0.05), 1 / 255, BYTE) <= 1


@pytest.mark.parametrize("axis", [0, 1, -1, -2])
def test_any_axis(axis: int) -> None:
    x = np.random.default_rng(4).integers(-128, 128, (5, 6, 7)).astype(np.int8)
    found = softmax(x, *factors(0.07, 1 / 255), axis=axis, **BYTE)
    assert distance(found, real_softmax(x, 0.07, axis), 1 / 255, BYTE) <= 1


def test_equal_terms_of_the_longest_row_share_alike() -> None:
    found = softmax(np.full((1, 1 << 16), 9, np.int8), *factors(0.1, 1e-7), axis=-1, **WORD)
    assert set((found.astype(int) + 32768).reshape(-1)) == {153}  # 2^-16 / 1e-7 is 152.6


def test_the_table_of_powers_is_close_to_the_real_ones() -> None:
    exponent = np.arange(1 << 17)
    exact = np.ldexp(2.0 ** (-exponent / 65536), 30)
    assert np.abs(powers(exponent) / exact - 1).max() < 1.0e-6
    assert powers(np.array([0, (1 << 21) - 1])).tolist() == [1 << 30, 0]


def test_empty_and_refused() -> None:
    good = factors(0.1, 1 / 255)
    assert softmax(np.zeros((0, 4), np.int8), *good, axis=-1, **BYTE).shape == (0, 4)
    with pytest.raises(ValueError, match="int8 or int16"):
        softmax(np.zeros((1, 4), np.int32), *good, axis=-1, **BYTE)
    with pytest.raises(Overflow, match="65537"):
        softmax(np.zeros((1, 65537), np.int8), *good, axis=-1, **BYTE)
    with pytest.raises(Overflow, match="2\\^-25"):
        softmax(np.zeros((1, 4), np.int8), *factors(0.1, 2.0**-28), axis=-1, **WORD)
