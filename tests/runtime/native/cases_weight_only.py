"""Random instances of QMatMulWeightOnly: those of the catalogue's tests, and deeper ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.quant.integer.weight_only import BITS
from tests.quant.functions import weight_only_cases

__all__ = ["case"]


def case(name: str, random: np.random.Generator) -> tuple[list[NDArray[Any]], dict[str, Any], tuple[int, ...]]:
    """Inputs, attributes and positions of the constant inputs of one instance."""
    assert name == "QMatMulWeightOnly"
    made = weight_only_cases.case(random)
    if random.random() < 0.5:
        depth = int(random.choice([1, 31, 64, 129, 1024, 1025, 2100]))
        block = int(random.choice([16, 24, 32, 40, 64, 128, 256, depth, 1 << 20]))
        made = weight_only_cases.make(
            random,
            lead=[(), (1,), (2,), (5,), (9,), (17,)][random.integers(6)],
            depth=depth,
            rows=int(random.choice([1, 15, 16, 17, 33, 40])),
            bits=int(random.choice(BITS)),
            block=block,
            zero_points=bool(random.integers(2)),
            finite=bool(random.integers(2)),
        )
    constants = tuple(index for index in range(1, 5) if random.random() < 0.9)
    return made.inputs, made.attributes, constants
