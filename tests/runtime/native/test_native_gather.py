"""QGather and QGatherWeightOnly by native kernels equal their specification bit for bit, and refuse what it refuses."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from qcompiler.errors import ModelError
from qcompiler.quant.functions import catalogue
from qcompiler.quant.integer.gather import WIDTHS
from qcompiler.quant.packing import pack
from qcompiler.runtime.library import library_path
from qcompiler.runtime.native_operator import NativeOperator, instruction_sets
from tests.quant.functions import gather_cases

pytestmark = pytest.mark.skipif(library_path() is None, reason="the installation has no native kernels")

NAMES = ("QGather", "QGatherWeightOnly")
COUNT = 3000 if os.environ.get("QCOMPILER_NIGHTLY") else 60


def check(name: str, inputs: list[Any], attributes: dict[str, Any], constant: bool, threads: int) -> None:
    expected = catalogue.operators()[name].specification(*inputs, **attributes)
    kept = dict(enumerate(inputs[1:], 1)) if constant else {}
    for isa in instruction_sets():
        found = NativeOperator(name, attributes, kept, isa=isa).run(*inputs, threads=threads)
        np.testing.assert_array_equal(found, expected, f"{isa} {attributes}", strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_specification(name: str) -> None:
    random = np.random.default_rng(7)
    for index in range(COUNT):
        inputs, attributes = gather_cases.case(name, random)
        check(name, inputs, attributes, bool(index % 2), 1 + 2 * (index % 3 == 0))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bits", WIDTHS)
def test_many_rows_on_several_threads(name: str, bits: int) -> None:
    inputs, attributes = gather_cases.make(
        name, np.random.default_rng(bits), bits=bits, rows=500, depth=385, shape=(3, 70), dtype=np.int64
    )
    check(name, inputs, attributes, True, 3)


def operands(name: str) -> tuple[list[Any], dict[str, Any]]:
    codes = pack(np.zeros((3, 9), np.int8), 4)
    if name == "QGatherWeightOnly":
        return [np.array([0, -1]), codes, np.ones(3, np.float32)], {"bits": 4, "weight_shape": [3, 9]}
    clamp = {"y_zero_point": 0, "to": 3, "low": -128, "high": 127}
    factors = [np.ones(3, np.int32), np.ones(3, np.uint8)]
    return [np.array([0, -1]), codes, *factors], {"bits": 4, "weight_shape": [3, 9], **clamp}


@pytest.mark.parametrize(
    ("name", "attributes", "position", "operand", "words"),
    [
        ("QGather", {"bits": 5}, 0, None, "'bits' is 5"),
        ("QGather", {"weight_shape": [3, 0]}, 0, None, "weight_shape"),
        ("QGather", {"weight_shape": [3, 17]}, 0, None, "not the packed form of 4-bit codes"),
        ("QGather", {}, 0, np.array([3]), "index 3 is outside a table of 3 rows"),
        ("QGather", {}, 0, np.array([-4], np.int32), "index -4 is outside a table of 3 rows"),
        ("QGather", {}, 0, np.array([1], np.int8), "indices are int8"),
        ("QGather", {}, 2, np.ones(2, np.int32), "multiplier is int32"),
        ("QGather", {}, 2, np.full(3, -1, np.int32), "multiplier"),
        ("QGather", {}, 3, np.ones((3, 1), np.uint8), "shift is uint8"),
        ("QGather", {}, 3, np.zeros(3, np.uint8), "shift"),
        ("QGatherWeightOnly", {}, 0, np.array([3]), "index 3 is outside a table of 3 rows"),
        ("QGatherWeightOnly", {}, 2, np.ones(1, np.float32), "scale is float"),
        ("QGatherWeightOnly", {}, 2, np.float32([1, np.nan, 1]), "no positive normal number"),
    ],
)
def test_refuses(name: str, attributes: dict[str, Any], position: int, operand: Any, words: str) -> None:
    inputs, given = operands(name)
    if operand is not None:
        inputs[position] = operand
    with pytest.raises(ModelError, match=words):
        NativeOperator(name, given | attributes, {}).run(*inputs)
