from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.quant.integer.dyadic import Overflow
from qcompiler.quant.integer.reciprocal_root import ROOT_BITS, TABLE, leading_pairs, reciprocal_root


def squared_ratio(value: int, root: int, pairs: int) -> Fraction:
    """``(root * 2^(k - 60) * sqrt(value))^2``, exactly."""
    return Fraction(root * root * value) * Fraction(4) ** (pairs - ROOT_BITS)


@given(st.lists(st.integers(1, 2**62 - 1), min_size=1, max_size=50))
@settings(max_examples=200, deadline=None)
def test_the_root_is_within_its_bound_of_the_truth(values: list[int]) -> None:
    roots, pairs = reciprocal_root(np.array(values))
    for value, root, count in zip(values, roots.tolist(), pairs.tolist(), strict=True):
        ratio = squared_ratio(value, root, count)
        assert (1 - Fraction(1, 2**25)) ** 2 < ratio < (1 + Fraction(1, 2**25)) ** 2


def test_the_bound_holds_at_the_ends_of_every_cell_of_the_table() -> None:
    ends = [(cell << 55) + offset for cell in range(32, 128) for offset in (0, 1, (1 << 31) - 1, (1 << 55) - 1)]
    roots, pairs = reciprocal_root(np.array(ends))
    assert not pairs.any()
    worst = max(abs(float(squared_ratio(v, int(r), 0)) - 1) for v, r in zip(ends, roots, strict=True))
    assert worst < 2 * 1.8e-8
    assert roots.min() >= 2**29 * (1 - 2.0**-25)
    assert roots.max() <= 2**30 * (1 + 2.0**-25)


@pytest.mark.parametrize("value", [1, 2, 3, 4, 5, 15, 16, 17, 2**60 - 1, 2**60, 2**62 - 1])
def test_leading_pairs_bring_the_number_into_the_top_two_bits(value: int) -> None:
    pairs = int(leading_pairs(np.array(value)))
    assert 2**60 <= value * 4**pairs < 2**62


def test_powers_of_four_all_give_the_same_root() -> None:
    roots, pairs = reciprocal_root(np.array([4**power for power in range(31)]))
    assert len(set(roots.tolist())) == 1
    assert pairs.tolist() == list(range(30, -1, -1))


def test_the_table_falls_and_has_an_entry_per_cell() -> None:
    assert len(TABLE) == 96
    assert all(later < earlier for earlier, later in itertools.pairwise(TABLE))


@pytest.mark.parametrize("value", [0, -1, 2**62])
def test_a_number_outside_its_range_is_an_overflow(value: int) -> None:
    with pytest.raises(Overflow):
        reciprocal_root(np.array([5, value]))


def test_nothing_gives_nothing() -> None:
    roots, pairs = reciprocal_root(np.zeros((0, 1), np.int64))
    assert roots.shape == pairs.shape == (0, 1)
