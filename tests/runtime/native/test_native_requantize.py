"""Requantize by native kernels equals its specification."""

from __future__ import annotations

import numpy as np
import pytest

from qcompiler.quant.functions import catalogue
from qcompiler.runtime.library import library_path
from qcompiler.runtime.native_operator import NativeOperator, instruction_sets
from tests.quant.functions.every_case import CASES

pytestmark = pytest.mark.skipif(library_path() is None, reason="the installation has no native kernels")


@pytest.mark.parametrize("name", ["Requantize", "RequantizeShift"])
def test_equals_the_specification(name: str) -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        inputs, attributes = CASES["Requantize"](name, random)
        expected = catalogue.operators()[name].specification(*inputs, **attributes)
        for isa in instruction_sets():
            found = NativeOperator(name, attributes, isa=isa).run(*inputs)
            np.testing.assert_array_equal(found, expected, strict=True)
