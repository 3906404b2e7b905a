"""Sums, products and concatenations of codes by native kernels equal their specifications."""

from __future__ import annotations

import os

import numpy as np
import pytest

from qcompiler.errors import ModelError
from qcompiler.quant.functions import catalogue
from qcompiler.runtime.library import library_path
from qcompiler.runtime.native_operator import NativeOperator, instruction_sets
from tests.runtime.native.cases_elementwise import case

pytestmark = pytest.mark.skipif(library_path() is None, reason="the installation has no native kernels")

COUNT = 20000 if os.environ.get("QCOMPILER_NIGHTLY") else 120
NAMES = [f"{family}{ending}" for family in ("QAdd", "QSub", "QMul", "QConcat") for ending in ("", "Shift")]


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_specification(name: str) -> None:
    random = np.random.default_rng(0)
    for _ in range(COUNT):
        inputs, attributes, _ = case(name, random)
        expected = catalogue.operators()[name].specification(*inputs, **attributes)
        for isa in instruction_sets():
            found = NativeOperator(name, attributes, isa=isa).run(*inputs)
            np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize("isa", instruction_sets() if library_path() else ())
@pytest.mark.parametrize("bits", [8, 16])
def test_every_pair_of_codes_is_added_exactly(isa: str, bits: int) -> None:
    """Factors as compilers choose them, all codes of 8 bits against each other, samples of 16."""
    codes = np.arange(-128, 128) if bits == 8 else np.linspace(-32768, 32767, 401).astype(np.int64)
    a, b = codes[:, None].astype(f"int{bits}"), codes[None, :].astype(f"int{bits}")
    factors = [np.array(1_987_654_321, np.int32), np.array(876_543_210, np.int32), np.array(31, np.uint8)]
    attributes = {"a_zero_point": 3, "b_zero_point": -7, "y_zero_point": 11, "to": 3, "low": -128, "high": 127}
    attributes |= {} if bits == 8 else {"to": 5, "low": -32768, "high": 32767, "a_zero_point": 0, "b_zero_point": 0}
    for name in ("QAdd", "QSub"):
        expected = catalogue.operators()[name].specification(a, b, *factors, **attributes)
        full = np.ascontiguousarray(np.broadcast_to(b, expected.shape))
        for other in (b, full):
            found = NativeOperator(name, attributes, isa=isa).run(a, other, *factors, threads=3)
            np.testing.assert_array_equal(found, expected, strict=True)


def test_operands_that_do_not_fit_are_refused() -> None:
    attributes = {"a_zero_point": 0, "b_zero_point": 0, "y_zero_point": 0, "to": 3, "low": -128, "high": 127}
    factors = [np.array(1, np.int32), np.array(17, np.uint8)]
    code, operands = np.zeros(2, np.int8), [np.zeros((2, 3), np.int8), np.zeros((2, 2), np.int8), *factors, *factors]
    with pytest.raises(ModelError, match="do not broadcast"):
        NativeOperator("QMul", attributes).run(np.zeros((2, 3), np.int8), np.zeros(2, np.int8), *factors)
    with pytest.raises(ModelError, match="the zero point 128 is no int8"):
        NativeOperator("QMul", {**attributes, "a_zero_point": 128}).run(code, code, *factors)
    with pytest.raises(ModelError, match="do not join along axis 0"):
        NativeOperator("QConcat", {**attributes, "axis": 0}).run(*operands)
