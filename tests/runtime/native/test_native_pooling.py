"""Pools and means by native kernels equal their specifications."""

from __future__ import annotations

import os

import numpy as np
import pytest

from qcompiler.errors import ModelError
from qcompiler.quant.functions import catalogue
from qcompiler.runtime.library import library_path
from qcompiler.runtime.native_operator import NativeOperator, instruction_sets
from tests.runtime.native.cases_pooling import case

pytestmark = pytest.mark.skipif(library_path() is None, reason="the installation has no native kernels")

COUNT = 10000 if os.environ.get("QCOMPILER_NIGHTLY") else 50
FAMILIES = ("QAveragePool", "QAveragePoolChannelsLast", "QGlobalAveragePool", "QReduceMean")
NAMES = [*(f"{family}{wide}{end}" for family in FAMILIES for wide in ("", "Wide") for end in ("", "Shift")), "QMaxPool"]
CLAMP = {"y_zero_point": 0, "to": 3, "low": -128, "high": 127}


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_specification(name: str) -> None:
    random = np.random.default_rng(0)
    for _ in range(COUNT):
        inputs, attributes, _ = case(name, random)
        expected = catalogue.operators()[name].specification(*inputs, **attributes)
        for isa in instruction_sets():
            found = NativeOperator(name, attributes, isa=isa).run(*inputs, threads=int(random.integers(1, 4)))
            np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize("isa", instruction_sets() if library_path() else ())
@pytest.mark.parametrize("axis", [1, 2])
def test_more_codes_than_32_bits_hold(isa: str, axis: int) -> None:
    x = np.full((1, 66000, 3) if axis == 1 else (1, 3, 66000), -32768, np.int16)
    factors = [np.array(1 << 20, np.int32), np.array(32, np.uint8)]
    attributes = {"axes": [axis], "keepdims": 0, "x_zero_point": 32767, **CLAMP, "to": 5, "low": -32768, "high": 32767}
    expected = catalogue.operators()["QReduceMeanWide"].specification(x, *factors, **attributes)
    found = NativeOperator("QReduceMeanWide", attributes, isa=isa).run(x, *factors)
    np.testing.assert_array_equal(found, expected, strict=True)
    window = {"kernel_shape": [33000], "strides": [7], "dilations": [1], "pads": [5, 5]}
    name = "QAveragePoolChannelsLastWide" if axis == 1 else "QAveragePoolWide"
    attributes = {**window, **{key: value for key, value in attributes.items() if key not in ("axes", "keepdims")}}
    found = NativeOperator(name, attributes, isa=isa).run(x, *factors, threads=2)
    expected = catalogue.operators()[name].specification(x, *factors, **attributes)
    np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize("isa", instruction_sets() if library_path() else ())
def test_many_rows_of_extreme_bytes_do_not_overflow(isa: str) -> None:
    x = np.full((2, 1000, 70), -128, np.int8)
    factors = [np.array(1 << 20, np.int32), np.array(30, np.uint8)]
    attributes = {"axes": [1], "keepdims": 1, "x_zero_point": 0, **CLAMP}
    expected = catalogue.operators()["QReduceMean"].specification(x, *factors, **attributes)
    found = NativeOperator("QReduceMean", attributes, isa=isa).run(x, *factors)
    np.testing.assert_array_equal(found, expected, strict=True)


def test_what_does_not_fit_is_refused() -> None:
    window = {"kernel_shape": [3], "strides": [1], "dilations": [2], "pads": [0, 1], "x_zero_point": 0, **CLAMP}
    factors = [np.array(1, np.int32), np.array(17, np.uint8)]
    with pytest.raises(ModelError, match="a window over 5 elements exceeds the padded input of 4"):
        NativeOperator("QAveragePool", window).run(np.zeros((1, 1, 3), np.int8), *factors)
    with pytest.raises(ModelError, match="attribute 'pads' has 1 values; it needs 2"):
        NativeOperator("QAveragePool", {**window, "pads": [0]})
    per_position = [np.ones(4, np.int32), np.array(17, np.uint8)]
    with pytest.raises(ModelError, match="do not"):
        NativeOperator("QAveragePool", window).run(np.zeros((1, 1, 9), np.int8), *per_position)
