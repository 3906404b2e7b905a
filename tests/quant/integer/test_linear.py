from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.quant.functions import catalogue
from qcompiler.quant.integer import dyadic
from qcompiler.quant.integer.dyadic import Overflow
from qcompiler.quant.integer.linear import (
    WIDE_DEPTH,
    Linear,
    exact_matmul,
    gemm_accumulator,
    matmul_accumulator,
)

CLAMP = {"y_zero_point": 0, "to": 5, "low": -(2**15), "high": 2**15 - 1}


@given(st.integers(0, 2**32), st.sampled_from([2**6, 2**11, 2**20, 2**28]))
@settings(max_examples=40, deadline=None)
def test_products_are_exact_in_whatever_unit_they_are_done(seed: int, limit: int) -> None:
    random = np.random.default_rng(seed)
    a = random.integers(-limit, limit, (3, 9), endpoint=True)
    b = random.integers(-limit, limit, (9, 4), endpoint=True)
    if seed % 2:
        a[:], b[:] = limit, -limit
    wanted = [[sum(int(x) * int(w) for x, w in zip(row, column, strict=True)) for column in b.T] for row in a]
    assert exact_matmul(a, b).tolist() == wanted


def test_a_sum_beyond_62_bits_is_an_overflow() -> None:
    with pytest.raises(Overflow):
        exact_matmul(np.full((1, 4), 2**31), np.full((4, 1), 2**31))


def test_a_product_of_nothing_is_zero() -> None:
    assert exact_matmul(np.zeros((2, 0), np.int8), np.zeros((0, 3), np.int8)).tolist() == [[0] * 3] * 2


@given(st.integers(0, 2**32), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_gemm_is_within_one_code_of_the_real_layer_rounded_once(seed: int, wide: bool) -> None:
    """Weights and activations as codes, a real bias: the layer in exact rationals against the operator."""
    random = np.random.default_rng(seed)
    depth, outputs = int(random.integers(1, 20)), int(random.integers(1, 5))
    limits = np.iinfo(np.int16 if wide else np.int8)
    x = random.integers(limits.min, limits.max, (3, depth), limits.dtype, endpoint=True)
    w = random.integers(-128, 127, (depth, outputs), np.int8, endpoint=True)
    zero_x, zero_y = int(random.integers(limits.min, limits.max, endpoint=True)), int(random.integers(-128, 128))
    scale_x, scale_y = float(np.exp(random.uniform(-9, 0))), float(np.exp(random.uniform(-5, 0)))
    scale_w = np.exp(random.uniform(-9, -3, outputs))
    real_bias = random.normal(0, 1, outputs)
    folded = np.rint(real_bias / (scale_x * scale_w)).astype(np.int64) - zero_x * w.sum(axis=0, dtype=np.int64)
    chosen = dyadic.choose(scale_x * scale_w / scale_y, 31, 2 ** (34 if wide else 27))
    assert chosen.multiplier is not None
    found = Linear(gemm_accumulator, wide)(
        x,
        w,
        folded.astype(np.int64 if wide else np.int32),
        chosen.multiplier,
        chosen.shift,
        y_zero_point=zero_y,
        to=5,
        low=-(2**15),
        high=2**15 - 1,
    )
    for row in range(3):
        for column in range(outputs):
            total = sum((int(q) - zero_x) * int(k) for q, k in zip(x[row], w[:, column], strict=True))
            factor = Fraction(scale_x) * Fraction(float(scale_w[column])) / Fraction(scale_y)
            rounded_bias = round(
                Fraction(float(real_bias[column])) / Fraction(scale_x) / Fraction(float(scale_w[column]))
            )
            real = (total + rounded_bias) * factor
            code = min(max(round(real) + zero_y, -(2**15)), 2**15 - 1)
            assert abs(int(found[row, column]) - code) <= 1


@given(st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_a_product_of_two_activations_subtracts_both_zero_points(seed: int) -> None:
    random = np.random.default_rng(seed)
    types = random.choice([np.int8, np.int16], 2)
    a = random.integers(np.iinfo(types[0]).min, np.iinfo(types[0]).max, (2, 3, 7), types[0], endpoint=True)
    b = random.integers(np.iinfo(types[1]).min, np.iinfo(types[1]).max, (7, 4), types[1], endpoint=True)
    found = matmul_accumulator(a, b, wide=True, a_zero_point=-128, b_zero_point=77)
    np.testing.assert_array_equal(found, (a.astype(np.int64) + 128) @ (b.astype(np.int64) - 77))


def test_an_accumulator_that_leaves_32_bits_is_an_overflow_only_with_its_bias() -> None:
    x, w = np.full((1, 4), 127, np.int8), np.full((4, 1), 127, np.int8)
    most = 2**31 - 1 - 4 * 127 * 127
    assert gemm_accumulator(x, w, np.array([most], np.int32), wide=False).tolist() == [[2**31 - 1]]
    with pytest.raises(Overflow, match="32 bits"):
        gemm_accumulator(x, w, np.array([most + 1], np.int32), wide=False)


REFUSED: list[tuple[str, list[Any], str]] = [
    (
        "activations of another type",
        [np.zeros((1, 2), np.int16), np.zeros((2, 1), np.int8), np.zeros(1, np.int32)],
        "int8",
    ),
    (
        "a bias of another type",
        [np.zeros((1, 2), np.int8), np.zeros((2, 1), np.int8), np.zeros(1, np.int64)],
        "bias is",
    ),
    ("a bias that widens", [np.zeros((1, 2), np.int8), np.zeros((2, 1), np.int8), np.zeros(3, np.int32)], "widens"),
]


@pytest.mark.parametrize(("inputs", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_operands_of_the_wrong_kind_are_refused(inputs: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gemm_accumulator(*inputs, wide=False)


def test_the_depth_over_16_bit_codes_is_limited() -> None:
    assert WIDE_DEPTH * 255 * 128 < 2**31 <= (WIDE_DEPTH + 1) * 255 * 128
    x, w = np.zeros((1, WIDE_DEPTH + 1), np.int16), np.zeros((WIDE_DEPTH + 1, 1), np.int8)
    with pytest.raises(ValueError, match="at most 65793"):
        gemm_accumulator(x, w, np.zeros(1, np.int64), wide=True)


def test_a_zero_point_outside_its_type_is_refused() -> None:
    with pytest.raises(ValueError, match="zero point"):
        matmul_accumulator(
            np.zeros((1, 1), np.int8), np.zeros((1, 1), np.int8), wide=False, a_zero_point=128, b_zero_point=0
        )


def test_a_bias_that_leaves_no_room_is_an_overflow() -> None:
    with pytest.raises(Overflow, match="bias"):
        gemm_accumulator(np.zeros((1, 1), np.int16), np.zeros((1, 1), np.int8), np.array([2**62]), wide=True)


def test_packed_weights_have_output_channels_as_rows() -> None:
    from qcompiler.quant.packing import pack

    w = np.array([[1, -2, 3], [-4, 5, -6]], np.int8)  # [channels, depth]
    x, bias = np.array([[1, 10, 100]], np.int8), np.zeros(2, np.int32)
    one = np.asarray(2, np.int32), np.asarray(1, np.uint8)
    packed = catalogue.operators()["QGemmPacked"].specification
    found = packed(x, pack(w, 4), bias, *one, bits=4, weight_shape=[2, 3], **CLAMP)
    assert found.tolist() == [[281, -554]]
