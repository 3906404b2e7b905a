"""Convolutions by native kernels equal their specification, and refuse what it refuses."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from qcompiler.errors import ModelError
from qcompiler.quant import packing
from qcompiler.quant.functions import catalogue
from qcompiler.runtime.library import library_path
from qcompiler.runtime.native_operator import NativeOperator, instruction_sets
from tests.runtime.native.cases_convolution import case

pytestmark = pytest.mark.skipif(library_path() is None, reason="the installation has no native kernels")

NAMES = [
    base + ending + shift
    for base in ("QConv", "QConvChannelsLast", "QConvTranspose")
    for ending in ("", "Wide", "Packed", "WidePacked")
    for shift in ("", "Shift")
]
COUNT = 200 if os.environ.get("QCOMPILER_NIGHTLY") else 8
PLAIN: dict[str, Any] = {
    "strides": [1, 1],
    "dilations": [1, 1],
    "pads": [0, 0, 0, 0],
    "group": 1,
    "x_zero_point": 0,
    "y_zero_point": 0,
    "to": 3,
    "low": -128,
    "high": 127,
}


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_specification(name: str) -> None:
    random = np.random.default_rng([NAMES.index(name), 5])
    for _ in range(COUNT):
        inputs, attributes, constants = case(name, random)
        expected = catalogue.operators()[name].specification(*inputs, **attributes)
        given = {index: inputs[index] for index in constants}
        pack, threads = bool(random.integers(2)), int(random.choice([1, 3]))
        for isa in instruction_sets():
            found = NativeOperator(name, attributes, given, isa=isa, pack=pack).run(*inputs, threads=threads)
            shapes = [(item.dtype, item.shape) for item in inputs]
            np.testing.assert_array_equal(found, expected, strict=True, err_msg=f"{isa} {shapes} {attributes}")


@pytest.mark.parametrize(
    ("shape", "weight", "group", "stride"),
    [
        ((2, 30, 31, 64), (130, 64, 3, 3), 1, 1),  # several bands of an image, and panels
        ((1, 40, 37, 96), (80, 96, 1, 1), 1, 1),  # several bands without an image
        ((1, 40, 37, 96), (80, 96, 1, 1), 1, 2),
        ((1, 9, 101, 64), (64, 1, 3, 3), 64, 1),  # rows that are rescaled in parts
        ((1, 9, 101, 40), (40, 1, 5, 3), 40, 1),
        ((1, 12, 75, 72), (72, 1, 3, 3), 72, 2),
    ],
)
@pytest.mark.parametrize("ending", ["", "WidePacked"])
def test_large_ones_equal_the_specification(
    shape: tuple[int, ...], weight: tuple[int, ...], group: int, stride: int, ending: str
) -> None:
    random = np.random.default_rng(3)
    name, bits = f"QConvChannelsLast{ending}", 3
    attributes = PLAIN | {"strides": [stride] * 2, "pads": [0 if weight[2] == 1 else 1] * 4, "group": group}
    codes = (
        random.integers(-4, 4, weight).astype(np.int8) if ending else random.integers(-128, 128, weight).astype(np.int8)
    )
    if ending:
        attributes |= {"bits": bits, "weight_shape": list(weight)}
    x = random.integers(-128, 128, shape).astype(np.int16 if ending else np.int8) * (250 if ending else 1)
    bias = random.integers(-1000, 1000, weight[0]).astype(np.int64 if ending else np.int32)
    multiplier = random.integers(1 << 20, 1 << 21, weight[0]).astype(np.int32)
    shift = random.integers(31, 35, weight[0]).astype(np.uint8)
    inputs = [x, packing.pack(codes, bits) if ending else codes, bias, multiplier, shift]
    expected = catalogue.operators()[name].specification(*inputs, **attributes)
    for isa in instruction_sets():
        native = NativeOperator(name, attributes, dict(enumerate(inputs[1:], 1)), isa=isa)
        for threads in (1, 3):
            np.testing.assert_array_equal(native.run(*inputs, threads=threads), expected, strict=True, err_msg=isa)


def _operands() -> list[Any]:
    codes = np.ones((1, 2, 3, 3), np.int8)
    return [codes, np.ones((4, 2, 3, 3), np.int8), np.zeros((4, 1, 1), np.int32), np.int32(1), np.uint8(1)]


@pytest.mark.parametrize(
    ("attributes", "position", "operand", "words"),
    [
        ({"strides": [1, 0]}, 0, None, "strides"),
        ({"dilations": [1, 2]}, 0, None, "does not fit into"),
        ({"pads": [0, 0, 0]}, 0, None, "pads"),
        ({"group": 2}, 0, None, "2 groups do not fit 2 channels"),
        ({"to": 6}, 0, None, "int32"),
        ({}, 0, np.ones((1, 2, 3, 3), np.int16), "activations are int16"),
        ({}, 0, np.ones((1, 2, 3), np.int8), "spatial axes"),
        ({}, 1, np.ones((4, 2, 3, 3), np.uint8), "the weight is uint8"),
        ({}, 2, np.zeros((4,), np.int32), "the bias of shape"),
        ({}, 2, np.zeros((4, 1, 1), np.int64), "the bias is int64"),
        ({}, 3, np.ones((3, 1, 1), np.int32), "the multiplier of shape"),
        ({}, 4, np.uint8(63), "a shift is outside"),
    ],
)
def test_refuses(attributes: dict[str, Any], position: int, operand: Any, words: str) -> None:
    operands = _operands()
    if operand is not None:
        operands[position] = operand
    with pytest.raises(ModelError, match=words):
        NativeOperator("QConv", PLAIN | attributes, dict(enumerate(operands[1:], 1))).run(*operands)


def test_refuses_a_packed_weight_of_another_size() -> None:
    operands = _operands()
    operands[1] = np.zeros((4, 8), np.uint8)
    attributes = PLAIN | {"bits": 4, "weight_shape": [4, 2, 3, 3]}
    with pytest.raises(ModelError, match="not the packed form of 4-bit codes"):
        NativeOperator("QConvPacked", attributes, {1: operands[1]})


def test_a_row_that_is_too_long_to_repeat_its_weights_is_exact() -> None:
    random = np.random.default_rng(5)
    x = random.integers(-128, 128, (1, 3, 30_000)).astype(np.int8)
    w = random.integers(-127, 128, (3, 1, 31)).astype(np.int8)
    bias = random.integers(-(1 << 15), 1 << 15, (3, 1)).astype(np.int32)
    inputs = [x, w, bias, np.array(1 << 20, np.int32), np.array(31, np.uint8)]
    attributes = {
        "strides": [1], "dilations": [1], "pads": [15, 15], "group": 3, "x_zero_point": 5, "y_zero_point": -3,
        "to": 3, "low": -128, "high": 127,
    }  # fmt: skip
    expected = catalogue.operators()["QConv"].specification(*inputs, **attributes)
    for isa in instruction_sets():
        found = NativeOperator("QConv", attributes, {1: w}, isa=isa).run(*inputs, threads=2)
        np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [((0, 1, 1 << 40), "the stretched input is too large"), ((0, 1, 1 << 20, 1 << 20), "more than 2\\^40 elements")],
)
def test_a_transposed_one_refuses_axes_that_no_memory_holds(sizes: tuple[int, ...], words: str) -> None:
    """Without a batch the operand has no elements, however long its axes are."""
    rank = len(sizes) - 2
    operands = [
        np.zeros(sizes, np.int8), np.ones((3, 1, *[3] * rank), np.int8), np.zeros((3, *[1] * rank), np.int32),
        np.int32(1), np.uint8(1),
    ]  # fmt: skip
    axes = {"strides": [7] * rank, "dilations": [1] * rank, "pads": [0] * 2 * rank, "output_padding": [0] * rank}
    made = NativeOperator("QConvTranspose", PLAIN | axes, {1: operands[1]})
    with pytest.raises(ModelError, match=words):
        made.elements(*operands)
