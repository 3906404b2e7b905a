"""Requantize by native kernels equals its specification."""

from __future__ import annotations

import os

import numpy as np
import pytest

from qcompiler.errors import ModelError
from qcompiler.quant.functions import catalogue
from qcompiler.runtime.library import library_path
from qcompiler.runtime.native_operator import NativeOperator, instruction_sets
from tests.runtime.native.cases_requantize import case

pytestmark = pytest.mark.skipif(library_path() is None, reason="the installation has no native kernels")

COUNT = 20000 if os.environ.get("QCOMPILER_NIGHTLY") else 400


@pytest.mark.parametrize("name", ["Requantize", "RequantizeShift"])
def test_equals_the_specification(name: str) -> None:
    random = np.random.default_rng(0)
    for _ in range(COUNT):
        inputs, attributes, _ = case(name, random)
        expected = catalogue.operators()[name].specification(*inputs, **attributes)
        for isa in instruction_sets():
            found = NativeOperator(name, attributes, isa=isa).run(*inputs)
            np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize("isa", instruction_sets() if library_path() else ())
def test_a_row_of_factors_serves_many_rows(isa: str) -> None:
    random = np.random.default_rng(1)
    x = random.integers(-(1 << 20), 1 << 20, (70, 300)).astype(np.int32)
    multiplier = random.integers(1 << 30, 1 << 31, 300).astype(np.int32)
    shift = random.integers(30, 44, 300).astype(np.uint8)
    attributes = {"x_zero_point": 0, "y_zero_point": -5, "to": 3, "low": -128, "high": 127}
    expected = catalogue.operators()["Requantize"].specification(x, multiplier, shift, **attributes)
    found = NativeOperator("Requantize", attributes, isa=isa).run(x, multiplier, shift, threads=3)
    np.testing.assert_array_equal(found, expected, strict=True)


def test_shapes_that_do_not_broadcast_are_refused() -> None:
    operator = NativeOperator("RequantizeShift", {"x_zero_point": 0, "y_zero_point": 0, "to": 3, "low": -1, "high": 1})
    with pytest.raises(ModelError, match="do not broadcast"):
        operator.run(np.zeros((2, 3), np.int8), np.full((2,), 17, np.uint8))
    with pytest.raises(ModelError, match="codes are int8, int16, int32 or int64, not uint8"):
        operator.run(np.zeros((2, 3), np.uint8), np.full((), 17, np.uint8))
