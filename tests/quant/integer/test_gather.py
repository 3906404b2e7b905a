"""Look-up of packed rows against one entry at a time."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import Any

import numpy as np
import pytest

from qcompiler.quant.integer import dyadic
from qcompiler.quant.integer.gather import CODE_LIMIT, WIDTHS, gather, gather_weight_only
from qcompiler.quant.packing import pack

BYTE = {"y_zero_point": -3, "to": 3, "low": -128, "high": 127}
WORD = {"y_zero_point": 77, "to": 5, "low": -32768, "high": 32767}


def table(bits: int, rows: int, depth: int) -> np.ndarray[Any, np.dtype[np.int8]]:
    half = 1 << (bits - 1)
    codes = np.random.default_rng(bits).integers(-half, half, (rows, depth)).astype(np.int8)
    codes[0, :2] = -half, half - 1
    return codes


@pytest.mark.parametrize("clamp", [BYTE, WORD])
@pytest.mark.parametrize("bits", WIDTHS)
def test_every_entry_is_the_formula(bits: int, clamp: dict[str, int]) -> None:
    codes = table(bits, 9, 13)
    factor = np.exp2(np.random.default_rng(1).uniform(-9, 9, 9))
    chosen = dyadic.choose(factor, 31, CODE_LIMIT)
    assert chosen.multiplier is not None
    indices = np.array([[0, -1, 8], [-9, 4, 4]])
    packed = {"bits": bits, "weight_shape": [9, 13]}
    found = gather(indices, pack(codes, bits), chosen.multiplier, chosen.shift, **packed, **clamp)
    assert found.shape == (2, 3, 13)
    for place, index in np.ndenumerate(indices):
        b, c = int(chosen.multiplier[index]), int(chosen.shift[index])
        for d in range(13):
            code = floor(Fraction(int(codes[index, d]) * b, 1 << c) + Fraction(1, 2)) + clamp["y_zero_point"]
            assert found[(*place, d)] == min(max(code, clamp["low"]), clamp["high"])


@pytest.mark.parametrize("multiplier_bits", [31, 16])
def test_a_result_is_at_most_one_code_from_the_real_one_rounded_once(multiplier_bits: int) -> None:
    codes = np.tile(np.arange(-128, 128).astype(np.int8), (400, 1))
    factor = np.random.default_rng(2).uniform(0.01, 255, 400)
    chosen = dyadic.choose(factor, multiplier_bits, CODE_LIMIT)
    assert chosen.multiplier is not None
    attributes = {"bits": 8, "weight_shape": [400, 256], **WORD}
    found = gather(np.arange(400), pack(codes, 8), chosen.multiplier, chosen.shift, **attributes)
    real = np.clip(np.floor(codes * factor[:, None] + 0.5) + 77, -32768, 32767)
    apart = np.abs(found.astype(np.int64) - real)
    assert apart.max() <= 1
    assert np.count_nonzero(apart) <= (0 if multiplier_bits == 31 else 0.06 * apart.size)


@pytest.mark.parametrize("bits", WIDTHS)
def test_real_rows_are_those_of_the_dequantized_table(bits: int) -> None:
    codes = table(bits, 6, 11)
    scale = np.random.default_rng(3).uniform(1e-6, 3, 6).astype(np.float32)
    indices = np.array([[5, -6], [-1, 2]], np.int32)
    found = gather_weight_only(indices, pack(codes, bits), scale, bits=bits, weight_shape=[6, 11])
    np.testing.assert_array_equal(found, (codes.astype(np.float32) * scale[:, None])[indices], strict=True)


def refused(index: int | None = None, array: Any = None, *, real: bool = False, **change: Any) -> str:
    inputs = [np.array([1]), pack(table(3, 4, 9), 3)]
    inputs += [np.ones(4, np.float32)] if real else [np.full(4, 5, np.int32), np.full(4, 5, np.uint8)]
    inputs = [array if place == index else item for place, item in enumerate(inputs)]
    attributes = {"bits": 3, "weight_shape": [4, 9], **({} if real else BYTE), **change}
    with pytest.raises(ValueError, match=r".") as error:
        (gather_weight_only if real else gather)(*inputs, **attributes)
    return str(error.value)


def test_what_is_out_of_range_is_refused() -> None:
    for index in (4, -5):
        assert "lie in -4 to 3" in refused(0, np.array([0, index]))
    assert "int32 or int64" in refused(0, np.array([1], np.int8))
    assert "(2, 3, 4, 8) bits, not 5" in refused(bits=5)
    assert "[rows, depth]" in refused(weight_shape=[4, 9, 1])
    assert "[rows, depth]" in refused(weight_shape=[4, 0])
    assert "packed in 3 bits" in refused(weight_shape=[4, 17])
    assert "packed in 3 bits" in refused(1, np.zeros((3, 6), np.uint8))
    assert "multiplier is int32 [4]" in refused(2, np.ones(3, np.int32))
    assert "a multiplier is negative" in refused(2, np.full(4, -1, np.int32))
    assert "shift is uint8 [4]" in refused(3, np.ones((4, 1), np.uint8))
    assert "shifts lie in" in refused(3, np.zeros(4, np.uint8))
    assert "do not fit int8" in refused(high=128)
    assert "scale is float32 [4]" in refused(2, np.ones(1, np.float32), real=True)
    for wrong in (0.0, -1.0, np.inf, np.nan, 1e-40):
        assert "scale lies in" in refused(2, np.full(4, wrong, np.float32), real=True)
