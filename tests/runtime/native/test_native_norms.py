"""LayerNorm and RMSNorm by native kernels equal their specifications."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from qcompiler.errors import ModelError
from qcompiler.quant.functions import catalogue
from qcompiler.runtime.library import library_path
from qcompiler.runtime.native_operator import NativeOperator, instruction_sets
from tests.quant.integer import norm_cases
from tests.runtime.native.cases_norms import case

pytestmark = pytest.mark.skipif(library_path() is None, reason="the installation has no native kernels")

COUNT = 20000 if os.environ.get("QCOMPILER_NIGHTLY") else 200


@pytest.mark.parametrize("name", ["QLayerNormalization", "QRMSNormalization"])
def test_equals_the_specification(name: str) -> None:
    random = np.random.default_rng(0)
    for index in range(COUNT):
        inputs, attributes, constant = case(name, random)
        expected = catalogue.operators()[name].specification(*inputs, **attributes)
        for isa in instruction_sets():
            made = NativeOperator(name, attributes, {place: inputs[place] for place in constant}, isa=isa)
            found = made.run(*inputs, threads=1 + 2 * (index % 2))
            np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize("content", ["uniform", "extreme", "nearly constant", "peak"])
def test_the_longest_rows_of_words_are_exact(content: str) -> None:
    made = norm_cases.make(
        np.random.default_rng(1),
        rms=False,
        size=32767,
        types=(np.int16, np.int16),
        content=norm_cases.CONTENTS[content],
        epsilon=1e-5,
        scale=1e-3,
    )
    for isa in instruction_sets():
        found = NativeOperator(made.name, made.attributes, isa=isa).run(made.x, *made.inputs, threads=2)
        np.testing.assert_array_equal(found, made.run(), strict=True)


def _attributes(**changed: Any) -> dict[str, Any]:
    root = {"axes": [-1], "size": 4, "left": 3, "right": 0, "epsilon": 1, "root_shift": 40}
    return {**root, "y_zero_point": 0, "to": 3, "low": -128, "high": 127, **changed}


def test_operands_that_do_not_fit_are_refused() -> None:
    factors = [np.ones(4, np.int32), np.zeros(4, np.int64), np.ones(4, np.uint8)]
    made = NativeOperator("QLayerNormalization", _attributes())
    with pytest.raises(ModelError, match="a row has 3 codes, not 4"):
        made.run(np.zeros((2, 3), np.int8), *factors)
    with pytest.raises(ModelError, match="do not broadcast to"):
        made.run(np.zeros((2, 4), np.int8), np.ones((3, 1, 4), np.int32), *factors[1:])
    with pytest.raises(ModelError, match="a bias is int32; it is int64"):
        made.run(np.zeros((2, 4), np.int8), factors[0], factors[1].astype(np.int32), factors[2])
    with pytest.raises(ModelError, match="a shift is outside 1 to 62"):
        made.run(np.zeros((2, 4), np.int8), *factors[:2], np.zeros(4, np.uint8))
    with pytest.raises(ModelError, match="does not name the last axes"):
        NativeOperator("QLayerNormalization", _attributes(axes=[-2]))
    with pytest.raises(ModelError, match="attribute 'epsilon' is 0"):
        NativeOperator("QLayerNormalization", _attributes(epsilon=0))
    with pytest.raises(ModelError, match="a normalization gives int8 or int16"):
        NativeOperator("QRMSNormalization", _attributes(to=6, x_zero_point=0))


def test_moments_outside_every_range_do_no_harm() -> None:
    """Attributes that no compiler writes: the result is some result, on every instruction set."""
    x = np.random.default_rng(2).integers(-128, 127, (5, 19), endpoint=True).astype(np.int8)
    factors = [np.full(19, 2**31 - 1, np.int32), np.full(19, 1 << 61), np.full(19, 62, np.uint8)]
    for changed in ({"left": 62}, {"left": 40, "right": 1}, {"epsilon": (1 << 62) - 1}, {"root_shift": 1}):
        for isa in instruction_sets():
            made = NativeOperator("QLayerNormalization", _attributes(size=19, **changed), isa=isa)
            assert made.run(x, *factors).shape == x.shape


@pytest.mark.parametrize("name", ["QLayerNormalization", "QRMSNormalization"])
@pytest.mark.parametrize("rows", [(1 << 24) + 1, 1 << 13])
def test_constants_too_large_to_lay_out_are_refused_only_where_they_do_not_fit(name: str, rows: int) -> None:
    """More than 2^24 factors, and few numbers that broadcast to more: 2^13 multipliers times 2^13 shifts."""
    columns = 1 if rows > 1 << 24 else rows
    factors = [np.ones((rows, 1), np.int32), np.zeros((1, 1), np.int64), np.full((1, columns), 20, np.uint8)]
    attributes = _attributes(axes=[-2, -1], size=3)
    if name == "QRMSNormalization":
        del factors[1]
        attributes |= {"x_zero_point": 0}
    made = NativeOperator(name, attributes, dict(enumerate(factors, 1)))
    with pytest.raises(ModelError, match="do not broadcast"):
        made.run(np.zeros((2, 3, 1), np.int8), *factors)
