from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qcompiler.quant.integer import dyadic, elementwise

KINDS = {3: np.int8, 5: np.int16}
LIMITS = {3: (-128, 127), 5: (-32768, 32767)}

zero_points = st.sampled_from(["least", "middle", "greatest", "random"])
scales = st.floats(-12, 2).map(lambda power: float(np.float32(10.0**power)))


def zero_point(kind: int, where: str, random: np.random.Generator) -> int:
    low, high = LIMITS[kind]
    return {"least": low, "middle": 0, "greatest": high, "random": int(random.integers(low, high))}[where]


def codes(kind: int, shape: tuple[int, ...], random: np.random.Generator) -> NDArray[Any]:
    low, high = LIMITS[kind]
    found = random.integers(low, high, shape, endpoint=True).astype(KINDS[kind])
    found.reshape(-1)[:3] = [low, high, 0]
    return found


def clamp(to: int) -> dict[str, int]:
    return {"to": to, "low": LIMITS[to][0], "high": LIMITS[to][1]}


def half_up(number: Fraction) -> int:
    return (2 * number.numerator + number.denominator) // (2 * number.denominator)


def distance(found: NDArray[Any], exact: list[Fraction], zero: int, to: int) -> int:
    """Greatest distance from the exact numbers rounded once."""
    low, high = LIMITS[to]
    rounded = [min(max(half_up(number) + zero, low), high) for number in exact]
    return max(abs(int(one) - other) for one, other in zip(found.reshape(-1), rounded, strict=True))


@given(
    st.integers(0, 2**32),
    st.tuples(*[st.sampled_from([3, 5])] * 3),
    st.tuples(*[zero_points] * 3),
    st.tuples(scales, scales),
    st.floats(-3, 13),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_a_sum_is_within_one_code_of_the_exact_sum(
    seed: int,
    kinds: tuple[int, int, int],
    zeros: tuple[str, str, str],
    scale: tuple[float, float],
    finer: float,
    subtracts: bool,
) -> None:
    """Also where the result's step is 2^13 times finer than the operands'."""
    random = np.random.default_rng(seed)
    to = kinds[2]
    za, zb, zy = (zero_point(kind, where, random) for kind, where in zip(kinds, zeros, strict=True))
    y_scale = max(scale) * 2.0**-finer
    factors = [item / y_scale for item in scale]
    multipliers, shift = dyadic.choose_common(factors, 31, 2**17)
    a, b = codes(kinds[0], (3, 4), random), codes(kinds[1], (4,), random)
    b[1] = a[0, 1] if kinds[0] == kinds[1] else b[1]
    operation = elementwise.subtract if subtracts else elementwise.add
    zeros_of = {"a_zero_point": za, "b_zero_point": zb, "y_zero_point": zy}
    found = operation(a, b, multipliers[0], multipliers[1], np.uint8(shift), **zeros_of, **clamp(to))
    sign = -1 if subtracts else 1
    wide_a, wide_b = np.broadcast_arrays(a.astype(int) - za, b.astype(int) - zb)
    exact = [
        (int(one) * Fraction(scale[0]) + sign * int(other) * Fraction(scale[1])) / Fraction(y_scale)
        for one, other in zip(wide_a.reshape(-1), wide_b.reshape(-1), strict=True)
    ]
    assert found.dtype == KINDS[to]
    assert distance(found, exact, zy, to) <= 1


@pytest.mark.parametrize("factors", [(712 / 1310, 633 / 1310), (0.5435181260108948, 0.48169848322868347)])
def test_a_residual_stream_in_16_bits_differs_only_beside_ties(factors: tuple[float, float]) -> None:
    """The first factors have a small common denominator: one sum in 1310 is a tie. The second have none."""
    random = np.random.default_rng(0)
    a, b = codes(5, (400, 400), random), codes(5, (400, 400), random)
    multipliers, shift = dyadic.choose_common(factors, 31, 2**17)
    zeros_of = {"a_zero_point": 5, "b_zero_point": -9, "y_zero_point": 1}
    found = elementwise.add(a, b, multipliers[0], multipliers[1], np.uint8(shift), **zeros_of, **clamp(5))
    exact = (a.astype(float) - 5) * factors[0] + (b.astype(float) + 9) * factors[1]
    error = np.abs(found - np.clip(np.floor(exact + 0.5) + 1, -32768, 32767))
    from_tie = np.abs(exact - np.floor(exact) - 0.5)
    assert error.max() <= 1
    assert from_tie[error > 0].max(initial=0) < 2.0**-14
    assert np.mean((error > 0) & (from_tie > 1e-9)) < 1e-4


@pytest.mark.parametrize(("bits", "codes_off"), [(16, 1), (8, 3)])
def test_narrow_multipliers_cost_what_the_derivation_says(bits: int, codes_off: int) -> None:
    """8-bit operands, no step of the result finer than theirs: e < 2^(9 - m)."""
    random = np.random.default_rng(bits)
    a, b = codes(3, (1000,), random), codes(3, (1000,), random)
    for _ in range(30):
        factors = np.exp(random.uniform(-3, 0, 2)).tolist()
        multipliers, shift = dyadic.choose_common(factors, bits, 2**9)
        zeros_of = {"a_zero_point": 127, "b_zero_point": -128, "y_zero_point": 0}
        found = elementwise.add(a, b, multipliers[0], multipliers[1], np.uint8(shift), **zeros_of, **clamp(5))
        exact = np.floor((a.astype(float) - 127) * factors[0] + (b.astype(float) + 128) * factors[1] + 0.5)
        assert np.abs(found - exact).max() <= codes_off


def test_the_least_and_greatest_sums_do_not_overflow() -> None:
    extremes = np.array([-32768, 32767], np.int16)
    for a, b in itertools.product(extremes, extremes):
        for za, zb in itertools.product(extremes, extremes):
            total = (int(a) - int(za)) * (2**31 - 1) + (int(b) - int(zb)) * (2**31 - 1)
            zeros_of = {"a_zero_point": int(za), "b_zero_point": int(zb), "y_zero_point": 0}
            greatest = np.int32(2**31 - 1)
            found = elementwise.add(
                a.reshape(1), b.reshape(1), greatest, greatest, np.uint8(40), **zeros_of, **clamp(5)
            )
            assert found.tolist() == [min(max((total + 2**39) >> 40, -32768), 32767)]


@given(st.integers(0, 2**32), st.tuples(*[st.sampled_from([3, 5])] * 3), st.tuples(*[st.integers(-20, 12)] * 2))
@settings(max_examples=150, deadline=None)
def test_sums_by_shifts_are_exact_but_for_one_rounding(
    seed: int, kinds: tuple[int, int, int], powers: tuple[int, int]
) -> None:
    random = np.random.default_rng(seed)
    left, shift = elementwise.choose_left([2.0**power for power in powers])
    a, b = codes(kinds[0], (5,), random), codes(kinds[1], (5,), random)
    zeros_of = {"a_zero_point": -7, "b_zero_point": 11, "y_zero_point": 2}
    for operation, sign in ((elementwise.add_shift, 1), (elementwise.subtract_shift, -1)):
        found = operation(a, b, left[0], left[1], np.uint8(shift), **zeros_of, **clamp(kinds[2]))
        exact = [
            (int(one) + 7) * Fraction(2) ** powers[0] + sign * (int(other) - 11) * Fraction(2) ** powers[1]
            for one, other in zip(a, b, strict=True)
        ]
        assert distance(found, exact, 2, kinds[2]) == 0


@given(
    st.integers(0, 2**32),
    st.tuples(*[st.sampled_from([3, 5])] * 3),
    st.tuples(*[zero_points] * 3),
    st.floats(-16, 4),
)
@settings(max_examples=150, deadline=None)
def test_a_product_is_within_one_code_of_the_exact_product(
    seed: int, kinds: tuple[int, int, int], zeros: tuple[str, str, str], power: float
) -> None:
    random = np.random.default_rng(seed)
    to = kinds[2]
    za, zb, zy = (zero_point(kind, where, random) for kind, where in zip(kinds, zeros, strict=True))
    a, b = codes(kinds[0], (2, 3, 4), random), codes(kinds[1], (3, 1), random)
    factor = 2.0**power
    chosen = dyadic.choose(factor, 31, 2**32)
    assert chosen.multiplier is not None
    zeros_of = {"a_zero_point": za, "b_zero_point": zb, "y_zero_point": zy}
    found = elementwise.multiply(a, b, chosen.multiplier, chosen.shift, **zeros_of, **clamp(to))
    wide_a, wide_b = np.broadcast_arrays(a.astype(int) - za, b.astype(int) - zb)
    exact = [
        int(one) * int(other) * Fraction(factor)
        for one, other in zip(wide_a.reshape(-1), wide_b.reshape(-1), strict=True)
    ]
    assert distance(found, exact, zy, to) <= 1


def test_a_product_by_shifts_is_exact_but_for_one_rounding() -> None:
    random = np.random.default_rng(3)
    a, b = codes(5, (50,), random), codes(3, (50,), random)
    zeros_of = {"a_zero_point": -32768, "b_zero_point": 127, "y_zero_point": -4}
    found = elementwise.multiply_shift(a, b, np.uint8(16 + 9), **zeros_of, **clamp(5))
    exact = [(int(one) + 32768) * (int(other) - 127) * Fraction(1, 512) for one, other in zip(a, b, strict=True)]
    assert distance(found, exact, -4, 5) == 0


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_a_concatenation_rescales_each_operand_on_its_own(axis: int) -> None:
    random = np.random.default_rng(1)
    a, b = codes(5, (4, 6), random), codes(3, (4, 6), random)
    first, second = dyadic.choose(0.0051, 31, 2**16), dyadic.choose(1.7, 31, 2**8)
    assert first.multiplier is not None
    assert second.multiplier is not None
    found = elementwise.concat(
        a, b, first.multiplier, first.shift, second.multiplier, second.shift,
        axis=axis, a_zero_point=100, b_zero_point=-128, y_zero_point=-3, **clamp(3),
    )  # fmt: skip
    parts = [(a.astype(float) - 100) * 0.0051, (b.astype(float) + 128) * 1.7]
    wanted = np.clip(np.floor(np.concatenate(parts, axis) + 0.5) - 3, -128, 127)
    np.testing.assert_array_equal(found, wanted)
    shifted = elementwise.concat_shift(
        a, b, np.uint8(18), np.uint8(16),
        axis=axis, a_zero_point=0, b_zero_point=0, y_zero_point=0, **clamp(5),
    )  # fmt: skip
    np.testing.assert_array_equal(shifted, np.concatenate([np.floor(a / 4 + 0.5), b], axis))


class TestRefusals:
    ZEROS: ClassVar = {"a_zero_point": 0, "b_zero_point": 0, "y_zero_point": 0}
    A: ClassVar = np.array([1, 2], np.int8)

    def test_zero_points_belong_to_the_type_of_the_codes(self) -> None:
        one, shift = np.int32(1), np.uint8(1)
        with pytest.raises(ValueError, match="zero point 200 is no int8"):
            elementwise.add(self.A, self.A, one, one, shift, **{**self.ZEROS, "b_zero_point": 200}, **clamp(3))

    def test_operands_are_codes(self) -> None:
        wide = self.A.astype(np.int32)
        with pytest.raises(ValueError, match="int8 or int16"):
            elementwise.multiply(wide, self.A, np.int32(1), np.uint8(1), **self.ZEROS, **clamp(3))

    @pytest.mark.parametrize("multiplier", [np.int64(-1), np.int64(2**31)])
    def test_multipliers_have_31_bits(self, multiplier: np.int64) -> None:
        with pytest.raises(ValueError, match="a multiplier lies in"):
            elementwise.subtract(self.A, self.A, np.int32(1), multiplier, np.uint8(1), **self.ZEROS, **clamp(3))

    def test_multipliers_are_single_numbers(self) -> None:
        with pytest.raises(ValueError, match="one number"):
            elementwise.add(self.A, self.A, np.array([1, 2]), np.int32(1), np.uint8(1), **self.ZEROS, **clamp(3))

    @pytest.mark.parametrize("left", [41, 255])
    def test_shifts_to_the_left_end_at_40(self, left: int) -> None:
        with pytest.raises(ValueError, match="left lies in 0 to 40"):
            elementwise.add_shift(self.A, self.A, np.uint8(left), np.uint8(0), np.uint8(1), **self.ZEROS, **clamp(3))

    @pytest.mark.parametrize("shift", [0, 63])
    def test_shifts_to_the_right_lie_in_1_to_62(self, shift: int) -> None:
        with pytest.raises(ValueError, match="shifts lie in"):
            elementwise.add(self.A, self.A, np.int32(1), np.int32(1), np.uint8(shift), **self.ZEROS, **clamp(3))

    def test_factors_of_shifts_are_powers_of_two_that_are_near_each_other(self) -> None:
        with pytest.raises(ValueError, match="no power of two"):
            elementwise.choose_left([0.5, 0.3])
        with pytest.raises(ValueError, match="too far apart"):
            elementwise.choose_left([2.0**20, 2.0**-30])
