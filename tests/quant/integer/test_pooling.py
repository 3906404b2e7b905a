from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, reject, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qcompiler.quant.integer import dyadic, pooling
from qcompiler.quant.integer.digits import choose_digits
from tests.quant.integer.pooling_cases import CODES, codes, output, window, windows

SEEDS = st.integers(0, 2**32)


def reference(real: NDArray[Any], out: dict[str, int]) -> NDArray[Any]:
    """The real result in units of the output scale, rounded once."""
    return np.clip(np.rint(real) + out["y_zero_point"], out["low"], out["high"])


def within(found: NDArray[Any], real: NDArray[Any], out: dict[str, int], lsb: int = 1) -> None:
    assert found.dtype == CODES[out["to"]]
    assert np.abs(found.astype(np.int64) - reference(real, out)).max(initial=0) <= lsb


@example(1640140, 3, 2, True)
@given(SEEDS, st.sampled_from([3, 5]), st.integers(1, 2), st.booleans())
@settings(max_examples=120, deadline=None)
def test_average_pool_is_within_one_code_of_the_mean_of_each_window(seed: int, to: int, rank: int, wide: bool) -> None:
    random = np.random.default_rng(seed)
    sizes, attributes = window(random, rank)
    x = codes(random, np.int16 if wide else np.int8, (2, 2, *sizes))
    out, zero = output(random, to), int(codes(random, x.dtype, ())[()])
    ratio = float(np.exp(random.uniform(-2, 1)))
    places = list(windows(sizes, attributes))
    shape = tuple(index + 1 for index in places[-1][0])
    sums, counts = np.zeros((2, 2, *shape)), np.ones(shape)
    for position, read in places:
        counts[position] = max(len(read), 1)
        sums[(..., *position)] = sum((x[(..., *place)].astype(np.float64) - zero for place in read), start=0.0)
    factor = ratio / counts if random.random() < 0.5 else ratio / np.prod(attributes["kernel_shape"])
    bound = int(np.prod(attributes["kernel_shape"])) * 2**17
    chosen = dyadic.choose(factor, 31, bound)
    assert chosen.multiplier is not None
    found = pooling.average_pool(x, chosen.multiplier, chosen.shift, **attributes, x_zero_point=zero, **out)
    within(found, sums * factor, out)
    try:
        digits = choose_digits(factor, bound if wide else bound >> 8)
    except ValueError:  # so wide a window leaves too few bits for a sum of shifts, which the lowering is told
        reject()
    found = pooling.average_pool_shift(
        x, digits.left, digits.negative, digits.shift, **attributes, x_zero_point=zero, **out
    )
    within(found, sums * factor, out)


@given(SEEDS, st.sampled_from([3, 5]), st.booleans())
@settings(max_examples=100, deadline=None)
def test_means_over_areas_and_axes_are_within_one_code(seed: int, to: int, wide: bool) -> None:
    random = np.random.default_rng(seed)
    x = codes(random, np.int16 if wide else np.int8, tuple(random.integers(1, 6, 4)))
    out, zero = output(random, to), int(codes(random, x.dtype, ())[()])
    axes = sorted(random.choice(4, random.integers(1, 5), replace=False).tolist())
    keep = int(random.integers(2))
    centred = x.astype(np.float64) - zero
    shared = {"x_zero_point": zero, **out}
    for over in (tuple(axes), (2, 3)):
        count = int(np.prod([x.shape[axis] for axis in over]))
        factor = float(np.exp(random.uniform(-2, 1))) / count
        chosen = dyadic.choose(factor, 31, count * 2**17)
        assert chosen.multiplier is not None
        given_ = (x, chosen.multiplier, chosen.shift)
        found = pooling.reduce_mean(*given_, axes=over, keepdims=keep, **shared)
        within(found, centred.sum(axis=over, keepdims=bool(keep)) * factor, out)
        if over == (2, 3):
            kept = pooling.reduce_mean(*given_, axes=over, keepdims=1, **shared)
            np.testing.assert_array_equal(pooling.global_average_pool(*given_, **shared), kept)


@given(SEEDS)
@settings(max_examples=60, deadline=None)
def test_sums_of_shifts_give_means_within_one_code(seed: int) -> None:
    random = np.random.default_rng(seed)
    x = codes(random, np.int8, tuple(random.integers(1, 8, 4)))
    out, zero = output(random, 3), int(random.integers(-128, 128))
    factor = 1 / (x.shape[2] * x.shape[3])
    digits = choose_digits(factor, 255 * x.shape[2] * x.shape[3])
    given_ = (x, digits.left, digits.negative, digits.shift)
    real = (x.astype(np.float64) - zero).sum(axis=(2, 3), keepdims=True) * factor
    within(pooling.global_average_pool_shift(*given_, x_zero_point=zero, **out), real, out)
    again = pooling.reduce_mean_shift(*given_, axes=[2, 3], keepdims=1, x_zero_point=zero, **out)
    within(again, real, out)


@given(SEEDS, st.sampled_from([np.int8, np.int16]))
@settings(max_examples=80, deadline=None)
def test_max_pool_is_the_greatest_code_of_each_window(seed: int, dtype: Any) -> None:
    random = np.random.default_rng(seed)
    sizes, attributes = window(random, 1)
    x = codes(random, dtype, (3, *sizes, 2))
    step = {"kernel": attributes["kernel_shape"][0], "stride": attributes["strides"][0]}
    step |= {"dilation": attributes["dilations"][0], "begin": attributes["pads"][0], "end": attributes["pads"][1]}
    found = pooling.max_pool(x, axis=1, **step, to=3 if dtype is np.int8 else 5)
    for (position,), read in windows(sizes, attributes):
        wanted = np.max([x[:, place] for (place,) in read], axis=0) if read else np.iinfo(dtype).min
        np.testing.assert_array_equal(found[:, position], np.broadcast_to(wanted, (3, 2)))


ONE = {"x_zero_point": 0, "y_zero_point": 0, "to": 3, "low": -128, "high": 127}
WINDOW = {"kernel_shape": [2, 2], "strides": [1, 1], "dilations": [1, 1], "pads": [0, 0, 0, 0]}
FACTOR = (np.int32(1), np.uint8(1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel_shape": [2]}, "spatial axes"),
        ({"strides": [0, 1]}, "start at 1"),
        ({"pads": [-1, 0, 0, 0]}, "pads at 0"),
        ({"kernel_shape": [9, 2]}, "exceeds"),
        ({"x_zero_point": 128}, "no code"),
        ({"low": 5, "high": 4}, "bounds"),
        ({"to": 2}, "no signed integer"),
    ],
)
def test_parameters_outside_their_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pooling.average_pool(np.zeros((1, 1, 4, 4), np.int8), *FACTOR, **{**WINDOW, **ONE, **change})


def test_axes_outside_the_tensor_and_codes_of_other_types_are_refused() -> None:
    x = np.zeros((1, 1, 4, 4), np.int8)
    for axes in ([], [4], [-1], [1, 1]):
        with pytest.raises(ValueError, match="axes"):
            pooling.reduce_mean(x, *FACTOR, axes=axes, keepdims=1, **ONE)
    with pytest.raises(ValueError, match="int8 or int16"):
        pooling.global_average_pool(x.astype(np.int32), *FACTOR, **ONE)
    with pytest.raises(ValueError, match="axis 4"):
        pooling.max_pool(x, axis=4, kernel=1, stride=1, dilation=1, begin=0, end=0, to=3)
    with pytest.raises(ValueError, match="stay"):
        pooling.max_pool(x, axis=1, kernel=1, stride=1, dilation=1, begin=0, end=0, to=5)


def test_a_sum_beyond_32_bits_of_8_bit_codes_is_an_overflow() -> None:
    x = np.broadcast_to(np.int8(-128), (1, 1, 1 << 12, 1 << 12))
    with pytest.raises(dyadic.Overflow):
        pooling.global_average_pool(x, *FACTOR, **{**ONE, "x_zero_point": 127})
