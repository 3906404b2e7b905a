from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.quant.integer.dyadic import Overflow
from qcompiler.quant.integer.tables import ENTRY_BITS, lookup, lookup_interpolated

WIDE = {"to": 5, "low": -32768, "high": 32767}
EVERY = np.arange(-32768, 32768).astype(np.int16)


def test_a_lookup_is_the_entry_of_the_code() -> None:
    table = np.arange(256, dtype=np.int16) * 7 - 900
    assert lookup(np.array([[-128, 0], [1, 127]], np.int8), table).tolist() == [[-900, -4], [3, 885]]
    assert lookup(np.zeros((0, 3), np.int8), table.astype(np.int8)).shape == (0, 3)


@given(st.integers(0, 2**32), st.booleans())
@settings(max_examples=30, deadline=None)
def test_interpolation_is_the_exact_curve_rounded(seed: int, curved: bool) -> None:
    random = np.random.default_rng(seed)
    table = np.clip(np.cumsum(random.integers(-9000, 9000, 513)), -(1 << 21), 1 << 21).astype(np.int32)
    x = random.integers(-32768, 32768, 20).astype(np.int16)
    x[:3] = [-32768, 32767, -1]
    found = lookup_interpolated(x, table, curved=int(curved), **WIDE)
    for code, got in zip(x.tolist(), found.tolist(), strict=True):
        index, part = (code + 32768) // 128, Fraction((code + 32768) % 128, 128)
        exact = (1 - part) * int(table[index]) + part * int(table[index + 1])
        if curved:
            exact -= part * (1 - part) / 2 * (second(table, index) + second(table, index + 1)) / 2
        wanted = min(max(exact / 2**ENTRY_BITS, -32768), 32767)
        assert abs(got - wanted) <= Fraction(1, 2) + Fraction(1, 2**13)


def second(table: np.ndarray, index: int) -> int:
    middle = min(max(index, 1), 511)
    return int(table[middle - 1]) - 2 * int(table[middle]) + int(table[middle + 1])


def test_a_parabola_through_samples_of_a_parabola_is_that_parabola() -> None:
    entries = np.rint(np.square(np.linspace(-1, 1, 513)) * 2000 * 64).astype(np.int32)
    wanted = np.square(EVERY / 32768) * 2000
    assert np.abs(lookup_interpolated(EVERY, entries, curved=1, **WIDE) - wanted).max() < 0.53


def test_results_saturate() -> None:
    entries = np.linspace(-300 * 64, 300 * 64, 513).astype(np.int32)
    found = lookup_interpolated(EVERY, entries, curved=0, to=3, low=-100, high=90)
    assert found.dtype == np.int8
    assert (found.min(), found.max()) == (-100, 90)


def test_wrong_types_sizes_and_parameters_are_refused() -> None:
    table, wide = np.zeros(256, np.int8), np.zeros(513, np.int32)
    byte, word = np.zeros(2, np.int8), np.zeros(2, np.int16)
    with pytest.raises(ValueError, match="for int8"):
        lookup(word, table)
    with pytest.raises(ValueError, match="256 entries"):
        lookup(byte, table[:255])
    with pytest.raises(ValueError, match="256 entries"):
        lookup(byte, table.astype(np.int32))
    with pytest.raises(ValueError, match="for int16"):
        lookup_interpolated(byte, wide, curved=0, **WIDE)
    with pytest.raises(ValueError, match="513 entries"):
        lookup_interpolated(word, wide[1:], curved=0, **WIDE)
    with pytest.raises(ValueError, match="curved"):
        lookup_interpolated(word, wide, curved=2, **WIDE)
    with pytest.raises(ValueError, match="do not fit"):
        lookup_interpolated(word, wide, curved=0, to=3, low=-129, high=0)


def test_entries_that_32_bits_cannot_hold_are_an_overflow() -> None:
    table = np.zeros(513, np.int32)
    table[7] = (1 << 22) + 1
    with pytest.raises(Overflow, match="an entry"):
        lookup_interpolated(EVERY, table, curved=0, **WIDE)
    table[7] = 1 << 19
    lookup_interpolated(EVERY, table, curved=0, **WIDE)
    with pytest.raises(Overflow, match="bends too much"):
        lookup_interpolated(EVERY, table, curved=1, **WIDE)
