"""Every operator on every instruction set, packed or not, on one thread or three, equals its specification bit for bit.

500 cases, or at least 10,000 with ``QCOMPILER_NIGHTLY=1``: a case is one run of one operator.
"""

from __future__ import annotations

import itertools
import os
from typing import Final

import numpy as np
import pytest

from qcompiler.quant.functions import catalogue
from qcompiler.runtime.library import library_path
from qcompiler.runtime.native_operator import NativeOperator, instruction_sets, native_operators
from tests.runtime.native.any_case import case

pytestmark = pytest.mark.skipif(library_path() is None, reason="the installation has no native kernels")

TOTAL: Final = 12000 if os.environ.get("QCOMPILER_NIGHTLY") else 500
NAMES: Final = native_operators() if library_path() else ()
MODES: Final = tuple(itertools.product((True, False), (1, 3)))


def test_no_operator_lacks_a_kernel() -> None:
    assert set(native_operators()) == set(catalogue.operators())


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_specification(name: str) -> None:
    """Instances take turns with the modes: all of a few instances would leave the others out."""
    random = np.random.default_rng([1, *name.encode()])
    sets = instruction_sets()
    instances = -(-TOTAL // (len(NAMES) * len(sets)))
    for index in range(instances):
        inputs, attributes, constants = case(name, random)
        operands = [np.asarray(array, order="C") for array in inputs]
        expected = catalogue.operators()[name].specification(*operands, **attributes)
        for place, isa in enumerate(sets):
            pack, threads = MODES[(index + place) % len(MODES)]
            kept = {position: operands[position] for position in constants}
            made = NativeOperator(name, attributes, kept, isa=isa, pack=pack)
            found = made.run(*operands, threads=threads)
            text = f"instance {index} on {isa}, pack={pack}, threads={threads}"
            np.testing.assert_array_equal(found, expected, text, strict=True)
