"""QMatMulWeightOnly by native kernels equals its specification to the last bit, and refuses what it refuses."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from qcompiler.errors import ModelError
from qcompiler.quant.functions import catalogue
from qcompiler.runtime.library import library_path
from qcompiler.runtime.native_operator import NativeOperator, instruction_sets
from tests.quant.functions import weight_only_cases
from tests.runtime.native.cases_weight_only import case

pytestmark = pytest.mark.skipif(library_path() is None, reason="the installation has no native kernels")

NAME = "QMatMulWeightOnly"
COUNT = 2000 if os.environ.get("QCOMPILER_NIGHTLY") else 120


def _check(inputs: list[Any], attributes: dict[str, Any], constants: tuple[int, ...], **options: Any) -> None:
    expected = catalogue.operators()[NAME].specification(*inputs, **attributes)
    threads = options.pop("threads", 1)
    for isa in instruction_sets():
        native = NativeOperator(NAME, attributes, {index: inputs[index] for index in constants}, isa=isa, **options)
        found = native.run(*inputs, threads=threads)
        assert found.dtype == np.float32
        assert found.shape == expected.shape
        shapes = [item.shape for item in inputs]
        same = (found.view(np.uint32) == expected.view(np.uint32)) | (np.isnan(found) & np.isnan(expected))
        assert same.all(), f"{isa} {shapes} {attributes}"


def test_equals_the_specification() -> None:
    random = np.random.default_rng(7)
    for _ in range(COUNT):
        inputs, attributes, constants = case(NAME, random)
        _check(inputs, attributes, constants, pack=bool(random.integers(2)), threads=int(random.choice([1, 3])))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("block", [32, 128, 4096])
def test_extremes(bits: int, block: int) -> None:
    """The longest sums there are: all codes, multipliers and activations at one end."""
    half, depth, rows = 1 << (bits - 1), 4096, 17
    for code, zero in ((-half, half - 1), (half - 1, -half), (-half, 0), (half - 1, 0), (-half, -half)):
        for form in ((rows, -(-depth // block)), (1, 1)):
            inputs = [
                np.full((3, depth), 5.5, np.float32),
                weight_only_cases.pack(np.full((rows, depth), code), bits),
                np.full((rows, -(-depth // block)), 2047, np.uint16),
                np.full(rows, 0.25, np.float32),
                np.full(form, zero, np.int8),
            ]
            _check(inputs, {"bits": bits, "block": block, "weight_shape": [rows, depth]}, (1, 2, 3, 4))


PLAIN: dict[str, Any] = {"bits": 4, "block": 16, "weight_shape": [3, 40]}


def _operands() -> list[Any]:
    ones = np.ones((3, 3), np.uint16)
    return [np.ones((2, 40), np.float32), np.zeros((3, 20), np.uint8), ones, np.ones(3, np.float32), np.int8([[0]])]


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize(
    ("attributes", "position", "operand", "words"),
    [
        ({"bits": 5}, 0, None, "'bits' is 5"),
        ({"block": 20}, 0, None, "'block' is 20"),
        ({"block": 8}, 0, None, "'block' is 8"),
        ({"weight_shape": [3, 65794]}, 0, None, "at most 65793"),
        ({}, 0, np.ones((2, 41), np.float32), "does not end in the weight's depth of 40"),
        ({}, 0, np.ones((2, 40), np.int8), "x is int8"),
        ({}, 1, np.zeros((3, 19), np.uint8), "not the packed form of 4-bit codes"),
        ({}, 2, np.ones((3, 2), np.uint16), "block_multiplier is uint16"),
        ({}, 2, np.ones((3, 3), np.int16), "block_multiplier is int16"),
        ({}, 2, np.zeros((3, 3), np.uint16), "outside 1 to 2047"),
        ({}, 2, np.full((3, 3), 2048, np.uint16), "outside 1 to 2047"),
        ({}, 3, np.ones((3, 1), np.float32), "scale is float"),
        ({}, 3, np.float32([1, 0, 1]), "no positive normal number"),
        ({}, 3, np.float32([1, np.nan, 1]), "no positive normal number"),
        ({}, 4, np.zeros((1, 3), np.int8), "zero_point is int8"),
        ({}, 4, np.int8([[8]]), "no code of 4 bits"),
    ],
)
def test_refuses(attributes: dict[str, Any], position: int, operand: Any, words: str, constant: bool) -> None:
    operands = _operands()
    if operand is not None:
        operands[position] = operand
    constants = dict(enumerate(operands[1:], 1)) if constant else {}
    with pytest.raises(ModelError, match=words):
        NativeOperator(NAME, PLAIN | attributes, constants).run(*operands)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_products_with_a_large_vocabulary(bits: int) -> None:
    """More outputs than 16 bits count, and no whole panel at the end: the last layer of a language model."""
    random = np.random.default_rng(bits)
    outputs, depth, half = 66_001, 32, 1 << (bits - 1)
    inputs = [
        random.normal(0, 1, (1, depth)).astype(np.float32),
        weight_only_cases.pack(random.integers(-half, half, (outputs, depth)), bits),
        random.integers(1, 2048, (outputs, 1)).astype(np.uint16),
        random.uniform(1e-6, 1e-3, outputs).astype(np.float32),
        np.int8([[0]]),
    ]
    attributes = {"bits": bits, "block": depth, "weight_shape": [outputs, depth]}
    _check(inputs, attributes, (1, 2, 3, 4), threads=2)
