"""The text form of formats."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcompiler.errors import UsageError
from qcompiler.quant.format import QFormat


@given(
    bits=st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 16, 32]),
    signed=st.booleans(),
    symmetric=st.booleans(),
    narrow=st.booleans(),
    axis=st.none() | st.integers(-4, 4),
    block=st.none() | st.integers(2, 256),
)
def test_round_trip(bits, signed, symmetric, narrow, axis, block):
    form = QFormat(bits, signed, symmetric, narrow and signed, axis, block if axis is not None else None)
    assert QFormat.parse(str(form)) == form


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7])
def test_log_formats_count_along_a_grid(bits):
    form = QFormat.parse(f"log{bits}")
    assert str(form) == f"log{bits}"
    assert form == QFormat(bits, logarithmic=True)
    assert form.per_tensor


@pytest.mark.parametrize("text", ["log1", "log8", "log16", "log4/sym", "log4/axis=0", "log4/pot", "4log", "log"])
def test_log_formats_that_do_not_exist(text):
    with pytest.raises(UsageError):
        QFormat.parse(text)


@pytest.mark.parametrize("text", ["", "x8", "i9", "u8/odd", "i4/block=32", "i8/axis=a", "u8/narrow", "i8/sym=1"])
def test_nonsense_is_refused(text):
    with pytest.raises(UsageError):
        QFormat.parse(text)


@pytest.mark.parametrize(
    ("text", "low", "high", "storage"),
    [
        ("u8", 0, 255, 8),
        ("i8", -128, 127, 8),
        ("i8/sym/narrow", -127, 127, 8),
        ("i7", -64, 63, 8),
        ("i3", -4, 3, 4),
        ("u2", 0, 3, 4),
        ("i16", -32768, 32767, 16),
        ("log2", 0, 3, 8),
        ("log7", 0, 127, 8),
    ],
)
def test_codes(text, low, high, storage):
    form = QFormat.parse(text)
    assert (form.minimum, form.maximum, form.storage_bits) == (low, high, storage)
