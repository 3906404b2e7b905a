from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qcompiler.quant.functions import catalogue
from qcompiler.quant.integer import dyadic
from tests.quant.functions.running import run_body

ATTRIBUTES = {"x_zero_point": 3, "y_zero_point": -5, "to": 3, "low": -128, "high": 127}


def exact(x: int, factor: Fraction, zero_point: int) -> int:
    product = x * factor
    return (2 * product.numerator + product.denominator) // (2 * product.denominator) + zero_point


@given(st.integers(0, 2**32), st.sampled_from([8, 16, 31]), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_the_specification_is_the_exact_product_rounded_half_up(seed: int, bits: int, width: int) -> None:
    random = np.random.default_rng(seed)
    bound = 1 << min(width, 61 - bits)
    x = random.integers(-bound, bound, 20, endpoint=True)
    chosen = dyadic.choose(float(np.exp(random.uniform(-20, 1))), bits, bound)
    assert chosen.multiplier is not None
    factor = Fraction(int(chosen.multiplier)) / 2 ** int(chosen.shift)
    found = dyadic.requantize(
        x, chosen.multiplier, chosen.shift, x_zero_point=0, y_zero_point=7, to=6, low=-(2**31), high=2**31 - 1
    )
    wanted = [min(max(exact(int(item), factor, 7), -(2**31)), 2**31 - 1) for item in x]
    assert found.tolist() == wanted


@given(st.lists(st.floats(1e-12, 1e4), min_size=1, max_size=8), st.sampled_from([8, 16, 31]))
def test_a_chosen_factor_is_as_close_as_its_bits_allow(factors: list[float], bits: int) -> None:
    usable = np.array([item for item in factors if item < 2 ** (bits - 2)] or [1.0])
    chosen = dyadic.choose(usable, bits, 1 << 20)
    assert chosen.multiplier is not None
    tight = chosen.shift < 62
    assert np.all(np.abs(chosen.value() / usable - 1)[tight] <= 2.0**-bits)
    assert np.all(chosen.multiplier < 2**bits)
    assert np.all(chosen.multiplier[tight] >= 2 ** (bits - 1))


@pytest.mark.parametrize("factor", [0.0, -1.0, np.inf, np.nan])
def test_a_factor_that_is_no_scale_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        dyadic.choose(factor, 31, 100)


def test_a_factor_too_large_for_the_multiplier_is_refused() -> None:
    with pytest.raises(ValueError, match="too large"):
        dyadic.choose(300.0, 8, 100)


def test_a_wide_accumulator_takes_bits_from_the_multiplier() -> None:
    chosen = dyadic.choose(2.0**-20 * 1.3, 31, 2**45)
    assert chosen.multiplier is not None
    assert int(chosen.multiplier) < 2**15
    dyadic.requantize(
        np.array([2**45, -(2**45)]),
        chosen.multiplier,
        chosen.shift,
        x_zero_point=0,
        y_zero_point=0,
        to=5,
        low=-9,
        high=9,
    )


def test_terms_with_a_common_shift_keep_the_absolute_error_of_the_greatest() -> None:
    multipliers, shift = dyadic.choose_common([0.75, 3e-9], 31, 2**17)
    assert np.abs(multipliers * 2.0**-shift - [0.75, 3e-9]).max() <= 2.0 ** -(shift + 1)


def test_shifts_are_for_powers_of_two_only() -> None:
    assert dyadic.choose_shift(np.array([0.25, 1.0, 8.0])).value().tolist() == [0.25, 1.0, 8.0]
    with pytest.raises(ValueError, match="no power of two"):
        dyadic.choose_shift(0.3)
    with pytest.raises(ValueError, match="outside"):
        dyadic.choose_shift(2.0**-50)


def test_a_product_beyond_62_bits_is_an_overflow() -> None:
    with pytest.raises(dyadic.Overflow):
        dyadic.requantize(np.array([2**40]), np.int32(2**30), np.uint8(30), **{**ATTRIBUTES, "x_zero_point": 0})


@pytest.mark.parametrize("shift", [0, 63])
def test_a_shift_outside_its_range_is_refused(shift: int) -> None:
    with pytest.raises(ValueError, match="shifts lie in"):
        dyadic.requantize(np.array([1]), np.int32(5), np.uint8(shift), **ATTRIBUTES)


def extremes(dtype: type[np.signedinteger], random: np.random.Generator, limit: int) -> NDArray[np.signedinteger]:
    high = min(np.iinfo(dtype).max, limit)
    low = -high if limit < np.iinfo(dtype).max else np.iinfo(dtype).min
    values = random.integers(low, high, (5, 4), endpoint=True)
    values[0] = [low, high, 0, -1]
    return values.astype(dtype)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64])
@pytest.mark.parametrize("seed", range(4))
def test_the_body_of_requantize_is_the_specification(dtype: type[np.signedinteger], seed: int) -> None:
    random = np.random.default_rng(seed)
    x = extremes(dtype, random, 2**45)
    bound = int(np.abs(x.astype(np.int64)).max()) + 3
    chosen = dyadic.choose(np.exp(random.uniform(-18, 1, (5, 1))), 31, bound)
    assert chosen.multiplier is not None
    inputs = [x, chosen.multiplier, chosen.shift]
    wanted = catalogue.operators()["Requantize"].specification(*inputs, **ATTRIBUTES)
    for constants in ((), (1, 2)):
        np.testing.assert_array_equal(run_body("Requantize", inputs, ATTRIBUTES, constants=constants), wanted)


@pytest.mark.parametrize("seed", range(4))
def test_the_body_of_requantize_shift_is_the_specification(seed: int) -> None:
    random = np.random.default_rng(seed)
    x = extremes(np.int64, random, 2**44)
    inputs = [x, random.integers(1, 63, (5, 1)).astype(np.uint8)]
    wanted = catalogue.operators()["RequantizeShift"].specification(*inputs, **ATTRIBUTES)
    np.testing.assert_array_equal(run_body("RequantizeShift", inputs, ATTRIBUTES), wanted)
