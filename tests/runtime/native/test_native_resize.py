"""Resizes by native kernels equal their specifications."""

from __future__ import annotations

import os

import numpy as np
import pytest

from qcompiler.errors import ModelError
from qcompiler.quant.functions import catalogue
from qcompiler.runtime.library import library_path
from qcompiler.runtime.native_operator import NativeOperator, instruction_sets
from tests.runtime.native.cases_resize import case

pytestmark = pytest.mark.skipif(library_path() is None, reason="the installation has no native kernels")

COUNT = 10000 if os.environ.get("QCOMPILER_NIGHTLY") else 120


@pytest.mark.parametrize("name", ["QResize", "QResizeShift"])
def test_equals_the_specification(name: str) -> None:
    random = np.random.default_rng(0)
    for _ in range(COUNT):
        inputs, attributes, _ = case(name, random)
        expected = catalogue.operators()[name].specification(*inputs, **attributes)
        for isa in instruction_sets():
            found = NativeOperator(name, attributes, isa=isa).run(*inputs, threads=int(random.integers(1, 4)))
            np.testing.assert_array_equal(found, expected, strict=True)


def test_taps_outside_the_axis_are_refused() -> None:
    attributes = {"axis": 1, "x_zero_point": 0, "y_zero_point": 0, "to": 3, "low": -128, "high": 127}
    rest = [np.ones((1, 1), np.int32), np.array(1, np.int32), np.array(17, np.uint8)]
    for tap in (-1, 3):
        with pytest.raises(ModelError, match="a tap lies outside the axis"):
            NativeOperator("QResize", attributes).run(np.zeros((2, 3), np.int8), np.array([[tap]]), *rest)
    with pytest.raises(ModelError, match="weights of shape"):
        NativeOperator("QResize", {**attributes, "axis": 0}).run(np.zeros((2, 3), np.int8), np.array([[1]]), *rest)
