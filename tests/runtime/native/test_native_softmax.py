"""QSoftmax and QSoftmaxShift by native kernels equal their specifications."""

from __future__ import annotations

import os

import numpy as np
import pytest

from qcompiler.errors import ModelError
from qcompiler.quant.functions import catalogue
from qcompiler.runtime.library import library_path
from qcompiler.runtime.native_operator import NativeOperator, instruction_sets
from tests.runtime.native.cases_softmax import case

pytestmark = pytest.mark.skipif(library_path() is None, reason="the installation has no native kernels")

COUNT = 20000 if os.environ.get("QCOMPILER_NIGHTLY") else 150
FACTORS = [
    np.array(item, kind) for item, kind in ((1 << 20, "int32"), (32, "uint8"), (1 << 24, "int32"), (40, "uint8"))
]
CLAMP = {"y_zero_point": -128, "to": 3, "low": -128, "high": 127}


@pytest.mark.parametrize("name", ["QSoftmax", "QSoftmaxShift"])
def test_equals_the_specification(name: str) -> None:
    random = np.random.default_rng(0)
    for index in range(COUNT):
        inputs, attributes, constant = case(name, random)
        expected = catalogue.operators()[name].specification(*inputs, **attributes)
        for isa in instruction_sets():
            made = NativeOperator(name, attributes, {place: inputs[place] for place in constant}, isa=isa)
            found = made.run(*inputs, threads=1 + 2 * (index % 2))
            np.testing.assert_array_equal(found, expected, strict=True)


def test_the_longest_row_is_exact() -> None:
    attributes = {"axis": -1, "y_zero_point": 0, "to": 5, "low": -32768, "high": 32767}
    for x in (np.full((1, 1 << 16), 5, np.int8), np.arange(1 << 16).astype(np.int16).reshape(1, -1)):
        expected = catalogue.operators()["QSoftmax"].specification(x, *FACTORS, **attributes)
        for isa in instruction_sets():
            found = NativeOperator("QSoftmax", attributes, isa=isa).run(x, *FACTORS)
            np.testing.assert_array_equal(found, expected, strict=True)


def test_operands_that_do_not_fit_are_refused() -> None:
    made = NativeOperator("QSoftmax", {"axis": 1, **CLAMP})
    row = np.zeros((2, 3), np.int8)
    with pytest.raises(ModelError, match="a row of 65537 terms"):
        made.run(np.zeros((1, (1 << 16) + 1), np.int8), *FACTORS)
    with pytest.raises(ModelError, match="a factor of a softmax is one number"):
        made.run(row, np.ones(2, np.int32), *FACTORS[1:])
    with pytest.raises(ModelError, match="a multiplier is negative"):
        made.run(row, np.array(-1, np.int32), *FACTORS[1:])
    with pytest.raises(ModelError, match="a shift is outside 1 to 62"):
        made.run(row, FACTORS[0], np.array(0, np.uint8), *FACTORS[2:])
    with pytest.raises(ModelError, match="axis"):
        made.run(np.zeros(3, np.int8), *FACTORS)
    with pytest.raises(ModelError, match="a softmax gives int8 or int16"):
        NativeOperator("QSoftmax", {"axis": 1, **CLAMP, "to": 6})
