"""Tables of codes by native kernels equal their specifications."""

from __future__ import annotations

import os

import numpy as np
import pytest

from qcompiler.errors import ModelError
from qcompiler.quant.functions import catalogue
from qcompiler.runtime.library import library_path
from qcompiler.runtime.native_operator import NativeOperator, instruction_sets
from tests.runtime.native.cases_lookup import case

pytestmark = pytest.mark.skipif(library_path() is None, reason="the installation has no native kernels")

COUNT = 10000 if os.environ.get("QCOMPILER_NIGHTLY") else 200
ISAS = instruction_sets() if library_path() else ()


@pytest.mark.parametrize("name", ["QLookup", "QLookupInterpolated"])
def test_equals_the_specification(name: str) -> None:
    random = np.random.default_rng(0)
    for _ in range(COUNT):
        inputs, attributes, constants = case(name, random)
        expected = catalogue.operators()[name].specification(*inputs, **attributes)
        for isa in ISAS:
            operator = NativeOperator(name, attributes, {index: inputs[index] for index in constants}, isa=isa)
            np.testing.assert_array_equal(operator.run(*inputs, threads=2), expected, strict=True)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_every_code_finds_its_entry(isa: str, dtype: type) -> None:
    table = np.random.default_rng(2).permutation(256).astype(dtype)
    codes = np.arange(-128, 128).astype(np.int8)
    for shift in range(70):  # every code at every place of a vector
        found = NativeOperator("QLookup", {}, isa=isa).run(np.roll(codes, shift), table)
        np.testing.assert_array_equal(found, np.roll(table, shift), strict=True)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("curved", [0, 1])
def test_every_16_bit_code_is_interpolated_exactly(isa: str, curved: int) -> None:
    codes = np.arange(-32768, 32768).astype(np.int16)
    table = np.rint(np.tanh(np.linspace(-4, 4, 513)) * (1 << 21)).astype(np.int32)
    attributes = {"curved": curved, "to": 5, "low": -32000, "high": 32000}
    expected = catalogue.operators()["QLookupInterpolated"].specification(codes, table, **attributes)
    found = NativeOperator("QLookupInterpolated", attributes, {1: table}, isa=isa).run(codes, table, threads=3)
    np.testing.assert_array_equal(found, expected, strict=True)


def test_tables_that_do_not_fit_are_refused() -> None:
    code = np.zeros(3, np.int8)
    with pytest.raises(ModelError, match="a table has 256 entries of int8 or int16"):
        NativeOperator("QLookup", {}).run(code, np.zeros(255, np.int8))
    attributes = {"curved": 1, "to": 5, "low": -5, "high": 5}
    table = np.zeros(513, np.int32)
    table[7] = 1 << 20
    with pytest.raises(ModelError, match="bends too much"):
        NativeOperator("QLookupInterpolated", attributes, {1: table})
    with pytest.raises(ModelError, match="exceeds 2\\^22"):
        NativeOperator("QLookupInterpolated", attributes).run(code.astype(np.int16), table * 5)
