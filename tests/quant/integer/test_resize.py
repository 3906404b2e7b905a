from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.quant.integer import dyadic
from qcompiler.quant.integer.resampling import Axis, taps
from qcompiler.quant.integer.resize import quantized_taps, resize, resize_shift
from tests.quant.integer.pooling_cases import codes, output

MODES = ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")


@given(st.integers(0, 2**32), st.sampled_from(MODES), st.booleans())
@settings(max_examples=120, deadline=None)
def test_linear_interpolation_of_one_axis_is_within_one_code(seed: int, mode: str, wide: bool) -> None:
    random = np.random.default_rng(seed)
    size, result = (int(item) for item in random.integers(1, 20, 2))
    index, weight = taps(Axis(size, result, float(np.float32(result) / np.float32(size))), mode, "linear")
    bits = 20 if wide else 12
    x = codes(random, np.int16 if wide else np.int8, (2, size, 3))
    zero, out = int(codes(random, x.dtype, ())[()]), output(random, 5 if wide else 3)
    ratio = float(np.exp(random.uniform(-1, 1)))
    integers = quantized_taps(weight, bits)
    bound = (65535 if wide else 255) << bits
    chosen = dyadic.choose(ratio * 2.0**-bits, 31, bound)
    assert chosen.multiplier is not None
    given_ = (x, index, integers[..., None], chosen.multiplier, chosen.shift)
    found = resize(*given_, axis=1, x_zero_point=zero, **out)
    real = np.einsum("nmtc,mt->nmc", x[:, index].astype(np.float64) - zero, weight) * ratio
    wanted = np.clip(np.rint(real) + out["y_zero_point"], out["low"], out["high"])
    assert np.abs(found - wanted).max() <= 1


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(4, 24))
def test_quantized_rows_keep_their_sum(seed: int, count: int, bits: int) -> None:
    weight = np.random.default_rng(seed).normal(size=(7, count))
    weight /= weight.sum(axis=1, keepdims=True)
    weight = weight[np.abs(weight).max(axis=1) < 32]
    integers = quantized_taps(weight, bits)
    assert (integers.sum(axis=1, dtype=np.int64) == 1 << bits).all()
    assert np.abs(integers - weight * 2.0**bits).max(initial=0) <= count / 2 + 0.5


def test_weights_of_doubling_are_exact() -> None:
    weight = taps(Axis(6, 12, 2.0), "half_pixel", "linear")[1]
    np.testing.assert_array_equal(quantized_taps(weight, 12), weight * 4096)


def test_rows_outside_are_zero() -> None:
    assert not quantized_taps(np.zeros((3, 2)), 12).any()


def test_a_rescale_without_multiplier_is_the_same_for_powers_of_two() -> None:
    random = np.random.default_rng(0)
    x = codes(random, np.int8, (4, 6))
    index, weight = taps(Axis(6, 9, 1.5), "half_pixel", "linear")
    shared = {"axis": 1, "x_zero_point": 5, "y_zero_point": -3, "to": 3, "low": -128, "high": 127}
    given_ = (x, index, quantized_taps(weight, 12))
    with_multiplier = resize(*given_, np.int32(1 << 10), np.uint8(22), **shared)
    np.testing.assert_array_equal(resize_shift(*given_, np.uint8(28), **shared), with_multiplier)


ONE = {"axis": 1, "x_zero_point": 0, "y_zero_point": 0, "to": 3, "low": -128, "high": 127}


@pytest.mark.parametrize(
    ("change", "index", "weight", "message"),
    [
        ({"axis": 2}, [[0]], [[1]], "axis 2"),
        ({}, [[4]], [[1]], "taps from 4"),
        ({}, [[-1]], [[1]], "taps from -1"),
        ({}, [[0, 1]], [[1]], "weights of shape"),
        ({"low": 9, "high": 3}, [[0]], [[1]], "bounds"),
    ],
)
def test_parameters_outside_their_range_are_refused(
    change: dict[str, int], index: Any, weight: Any, message: str
) -> None:
    tables = (np.array(index, np.int64), np.array(weight, np.int32))
    with pytest.raises(ValueError, match=message):
        resize(np.zeros((2, 4), np.int8), *tables, np.int32(1), np.uint8(1), **{**ONE, **change})


def test_codes_of_other_types_are_refused() -> None:
    with pytest.raises(ValueError, match="not float64"):
        resize(np.zeros((2, 4)), np.zeros((1, 1), int), np.zeros((1, 1), np.int32), np.int32(1), np.uint8(1), **ONE)


def test_a_weighted_sum_of_8_bit_codes_beyond_32_bits_is_an_overflow() -> None:
    x, index = np.full((1, 4), -128, np.int8), np.array([[0, 1]])
    with pytest.raises(dyadic.Overflow):
        resize(x, index, np.full((1, 2), 1 << 24, np.int32), np.int32(1), np.uint8(1), **ONE)
