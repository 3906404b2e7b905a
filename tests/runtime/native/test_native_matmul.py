"""Matrix products by native kernels equal their specification, and refuse what it refuses."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from qcompiler.errors import ModelError
from qcompiler.quant.functions import catalogue
from qcompiler.quant.packing import pack
from qcompiler.runtime.library import library_path
from qcompiler.runtime.native_operator import NativeOperator, instruction_sets, native_operators
from tests.runtime.native.cases_matmul import case, codes

pytestmark = pytest.mark.skipif(library_path() is None, reason="the installation has no native kernels")

NAMES = [
    *("QGemm" + ending + shift for ending in ("", "Wide", "Packed", "WidePacked") for shift in ("", "Shift")),
    *("QMatMul" + ending for ending in ("", "Wide", "Shift", "WideShift")),
]
COUNT = 400 if os.environ.get("QCOMPILER_NIGHTLY") else 25
PLAIN: dict[str, Any] = {"y_zero_point": 0, "to": 3, "low": -128, "high": 127}


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_specification(name: str) -> None:
    random = np.random.default_rng([NAMES.index(name), 6])
    assert name in native_operators()
    for _ in range(COUNT):
        inputs, attributes, constants = case(name, random)
        expected = catalogue.operators()[name].specification(*inputs, **attributes)
        given = {index: inputs[index] for index in constants}
        for isa in instruction_sets():
            packs, threads = bool(random.integers(2)), int(random.choice([1, 3]))
            found = NativeOperator(name, attributes, given, isa=isa, pack=packs).run(*inputs, threads=threads)
            shapes = [(item.dtype, item.shape) for item in inputs]
            np.testing.assert_array_equal(found, expected, strict=True, err_msg=f"{isa} {shapes} {attributes}")


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("rows", [1, 7])
def test_deep_sums_of_extremes(bits: int, rows: int) -> None:
    """Sums scaled by the place of a code in its byte do not leave 32 bits up to the depth at which bytes are used."""
    for depth in (1 << 16, (1 << 16) + 5):
        weight = np.full((3, depth), -(1 << (bits - 1)), np.int8)
        weight[1] = (1 << (bits - 1)) - 1
        x = np.full((rows, depth), -128, np.int8)
        inputs = [x, pack(weight, bits), np.zeros(3, np.int32), np.int32(1), np.uint8(12)]
        attributes = PLAIN | {"to": 5, "low": -32768, "high": 32767, "bits": bits, "weight_shape": [3, depth]}
        expected = catalogue.operators()["QGemmPacked"].specification(*inputs, **attributes)
        for isa in instruction_sets():
            found = NativeOperator("QGemmPacked", attributes, {1: inputs[1]}, isa=isa).run(*inputs)
            np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize("name", ["QGemm", "QGemmWide", "QGemmPacked", "QGemmWidePackedShift"])
def test_many_rows_of_deep_sums(name: str) -> None:
    """Panels are cut into blocks of depths, rows into bands, packed weights expanded."""
    random = np.random.default_rng(NAMES.index(name))
    for rows, depth, outputs in ((47, 900, 65), (48, 770, 33), (300, 1025, 80)):
        wide, bits = "Wide" in name, int(random.choice([2, 3, 4])) if "Packed" in name else 8
        weight = codes(random, (outputs, depth), np.int8) >> (8 - bits)
        x = codes(random, (rows, depth), np.int16 if wide else np.int8)
        bias = np.arange(outputs).astype(np.int64 if wide else np.int32)
        factors = (
            [np.uint8(30 if wide else 20)] if name.endswith("Shift") else [np.int32(9), np.uint8(26 if wide else 18)]
        )
        packed = {"bits": bits, "weight_shape": [outputs, depth]} if bits != 8 else {}
        inputs = [x, pack(weight, bits) if packed else np.ascontiguousarray(weight.T), bias, *factors]
        expected = catalogue.operators()[name].specification(*inputs, **PLAIN, **packed)
        for isa in instruction_sets():
            native = NativeOperator(name, PLAIN | packed, {1: inputs[1]}, isa=isa)
            np.testing.assert_array_equal(native.run(*inputs, threads=3), expected, strict=True, err_msg=isa)


def _operands() -> list[Any]:
    return [np.ones((2, 5), np.int8), np.ones((5, 4), np.int8), np.zeros(4, np.int32), np.int32(1), np.uint8(1)]


@pytest.mark.parametrize(
    ("attributes", "position", "operand", "words"),
    [
        ({"to": 6}, 0, None, "int32"),
        ({}, 0, np.ones((2, 5), np.int16), "activations are int16"),
        ({}, 0, np.ones((2, 6), np.int8), "does not end in the weight's depth of 5"),
        ({}, 0, np.int8(1), "does not end in the weight's depth of 5"),
        ({}, 1, np.ones((5, 4), np.uint8), "the weight is uint8"),
        ({}, 1, np.ones((5, 4, 1), np.int8), "is no matrix"),
        ({}, 2, np.zeros(3, np.int32), "the bias of shape"),
        ({}, 3, np.int32(-1), "a multiplier is negative"),
        ({}, 4, np.uint8(0), "a shift is outside"),
    ],
)
def test_gemm_refuses(attributes: dict[str, Any], position: int, operand: Any, words: str) -> None:
    operands = _operands()
    if operand is not None:
        operands[position] = operand
    with pytest.raises(ModelError, match=words):
        NativeOperator("QGemm", PLAIN | attributes, dict(enumerate(operands[1:], 1))).run(*operands)


@pytest.mark.parametrize(
    ("bits", "shape", "words"),
    [
        (4, [4, 40], "not the packed form of 4-bit codes"),
        (5, [4, 5], "bits"),
        (4, [4, 5, 1], "weight_shape"),
        (4, [1 << 39, 1 << 39], "2\\^40|elements"),
    ],
)
def test_packed_gemm_refuses(bits: int, shape: list[int], words: str) -> None:
    attributes = PLAIN | {"bits": bits, "weight_shape": shape}
    with pytest.raises(ModelError, match=words):
        NativeOperator("QGemmPacked", attributes, {1: np.zeros((4, 4), np.uint8)})


@pytest.mark.parametrize(
    ("name", "shapes", "dtype", "words"),
    [
        ("QMatMul", [(2, 3), (4, 5)], np.int8, "have no product"),
        ("QMatMul", [(), (1,)], np.int8, "is a scalar"),
        ("QMatMul", [(2, 2, 3), (3, 3, 5)], np.int8, "broadcast"),
        ("QMatMul", [(2, 3), (3, 5)], np.int16, "a is int16; here it is int8"),
        ("QMatMulWide", [(1, 65794), (65794, 1)], np.int16, "at most 65793"),
    ],
)
def test_matmul_refuses(name: str, shapes: list[tuple[int, ...]], dtype: Any, words: str) -> None:
    attributes = PLAIN | {"a_zero_point": 0, "b_zero_point": 0}
    operands = [np.zeros(shape, dtype) for shape in shapes]
    with pytest.raises(ModelError, match=words):
        NativeOperator(name, attributes).run(*operands, np.int32(1), np.uint8(1))
