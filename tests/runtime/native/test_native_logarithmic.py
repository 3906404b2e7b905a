"""Codes on growing grids by native kernels equal their specifications."""

from __future__ import annotations

import os

import numpy as np
import pytest

from qcompiler.errors import ModelError
from qcompiler.quant.functions import catalogue
from qcompiler.runtime.library import library_path
from qcompiler.runtime.native_operator import NativeOperator, instruction_sets
from tests.runtime.native.cases_logarithmic import case

pytestmark = pytest.mark.skipif(library_path() is None, reason="the installation has no native kernels")

COUNT = 10000 if os.environ.get("QCOMPILER_NIGHTLY") else 200
ISAS = instruction_sets() if library_path() else ()


@pytest.mark.parametrize("name", ["QLogQuantize", "QLogDequantize"])
def test_equals_the_specification(name: str) -> None:
    random = np.random.default_rng(0)
    for _ in range(COUNT):
        inputs, attributes, constants = case(name, random)
        expected = catalogue.operators()[name].specification(*inputs, **attributes)
        for isa in ISAS:
            operator = NativeOperator(name, attributes, {index: inputs[index] for index in constants}, isa=isa)
            np.testing.assert_array_equal(operator.run(*inputs, threads=2), expected, strict=True)


@pytest.mark.parametrize("isa", ISAS)
def test_every_16_bit_code(isa: str) -> None:
    codes = np.arange(-32768, 32768).astype(np.int16)
    thresholds = np.array([-32768, -300, -299, 0, 1, 5, 17, 80, 800, 2000, 9000, 9000, 20000, 32766, 32767], np.int16)
    expected = catalogue.operators()["QLogQuantize"].specification(codes, thresholds)
    found = NativeOperator("QLogQuantize", {}, isa=isa).run(codes, thresholds, threads=3)
    np.testing.assert_array_equal(found, expected, strict=True)


def test_constants_that_do_not_fit_are_refused() -> None:
    code = np.zeros(3, np.int8)
    with pytest.raises(ModelError, match="thresholds must ascend"):
        NativeOperator("QLogQuantize", {}, {1: np.array([2, 1], np.int8)})
    with pytest.raises(ModelError, match="both int8 or both int16"):
        NativeOperator("QLogQuantize", {}).run(code, np.zeros(3, np.int16))
    with pytest.raises(ModelError, match="1 to 127 thresholds"):
        NativeOperator("QLogQuantize", {}).run(code, np.zeros(128, np.int8))
    with pytest.raises(ModelError, match="2 to 128 values"):
        NativeOperator("QLogDequantize", {}).run(code, np.zeros(1, np.int16))
    with pytest.raises(ModelError, match="codes are int8"):
        NativeOperator("QLogDequantize", {}).run(code.astype(np.int16), np.zeros(2, np.int16))
