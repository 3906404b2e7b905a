from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.quant.integer import dyadic
from qcompiler.quant.integer.digits import choose_digits, signed_sum


@given(st.floats(1e-7, 0.9), st.integers(1, 1 << 19))
@settings(max_examples=150, deadline=None)
def test_chosen_digits_are_within_a_64th_of_a_code(factor: float, bound: int) -> None:
    digits = choose_digits(factor, bound)
    assert abs(float(digits.value()) - factor) * bound <= 2.0**-6
    assert digits.left.shape == digits.negative.shape == (digits.left.size,)
    assert not digits.negative.all()


@given(st.integers(1, 1 << 16), st.integers(-3, 10))
def test_digits_are_canonical(number: int, exponent: int) -> None:
    digits = choose_digits(float(np.ldexp(number, -exponent - 16)), 1 << 8)
    places = np.sort(digits.left.astype(int))
    assert (np.diff(places) >= 2).all()  # no two of them adjacent: none can be spared


@pytest.mark.parametrize("exponent", [-12, -6, 0, 3])
def test_a_power_of_two_is_one_digit(exponent: int) -> None:
    digits = choose_digits(2.0**exponent, 1 << 12)
    assert digits.left.shape == (1,)
    assert float(digits.value()) == 2.0**exponent


@given(st.lists(st.integers(1, 60), min_size=2, max_size=6, unique=True), st.integers(8, 16))
@settings(deadline=None)
def test_factors_of_one_tensor_have_equally_many_digits(counts: list[int], bits: int) -> None:
    factors = 1 / np.array(counts, np.float64)
    digits = choose_digits(factors, 1 << bits)
    assert digits.left.shape[:1] == factors.shape
    assert np.abs(digits.value() - factors).max() * (1 << bits) <= 2.0**-6


@given(st.integers(0, 2**32), st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_a_rescale_by_digits_is_the_rational_product_rounded(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    bound = 255 * count
    digits = choose_digits(1 / count, bound)
    x = random.integers(-bound, bound, 30, endpoint=True)
    settings_ = {"x_zero_point": 0, "y_zero_point": 0, "to": 6, "low": -(2**31), "high": 2**31 - 1}
    found = dyadic.requantize_shift(signed_sum(x, digits.left, digits.negative), digits.shift, **settings_)
    exact = [Fraction(int(item), count) for item in x]
    off = [abs(int(code) - real) for code, real in zip(found, exact, strict=True)]
    assert max(off) <= Fraction(1, 2) + Fraction(1, 64)


def test_an_accumulator_that_leaves_too_little_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="leave"):
        choose_digits(0.7, 1 << 40)


@pytest.mark.parametrize("factor", [0.0, -0.5, np.inf, np.nan])
def test_a_factor_that_is_no_scale_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        choose_digits(factor, 100)


def test_a_sum_of_shifts_beyond_45_bits_is_an_overflow() -> None:
    with pytest.raises(dyadic.Overflow):
        signed_sum(np.array([1 << 30]), np.array([15], np.uint8), np.array([False]))


def test_malformed_digits_are_refused() -> None:
    with pytest.raises(ValueError, match="digits of shapes"):
        signed_sum(np.array([1]), np.array([1, 2], np.uint8), np.array([False]))
    with pytest.raises(ValueError, match="at most"):
        signed_sum(np.array([1]), np.array([60], np.uint8), np.array([False]))
