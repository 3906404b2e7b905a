"""Random instances of QGather and QGatherWeightOnly: every width, tails, extremes, negative and no indices."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.quant.integer import dyadic
from qcompiler.quant.integer.gather import CODE_LIMIT, WIDTHS
from qcompiler.quant.packing import pack

__all__ = ["CLAMPS", "case", "make"]

CLAMPS = (
    {"y_zero_point": -3, "to": 3, "low": -128, "high": 127},
    {"y_zero_point": 5, "to": 5, "low": -32768, "high": 32767},
    {"y_zero_point": 0, "to": 5, "low": -100, "high": 900},
)
SHAPES = ((), (1,), (7,), (2, 3), (0,), (2, 0, 3), (1, 1, 4))


def case(name: str, random: np.random.Generator) -> tuple[list[NDArray[Any]], dict[str, Any]]:
    """Inputs and attributes of a random instance."""
    return make(
        name,
        random,
        bits=int(random.choice(WIDTHS)),
        rows=int(random.integers(1, 40)),
        depth=int(random.integers(1, 70)),
        shape=SHAPES[random.integers(len(SHAPES))],
        dtype=[np.int32, np.int64][random.integers(2)],
    )


def make(
    name: str, random: np.random.Generator, *, bits: int, rows: int, depth: int, shape: tuple[int, ...], dtype: type
) -> tuple[list[NDArray[Any]], dict[str, Any]]:
    """An instance of a given shape."""
    half = 1 << (bits - 1)
    codes = random.integers(-half, half, (rows, depth)).astype(np.int8)
    if random.integers(4) == 0:
        codes = random.choice([-half, half - 1], (rows, depth)).astype(np.int8)
    indices = random.integers(-rows, rows, shape).astype(dtype)
    if indices.size > 1:
        indices.flat[:2] = -rows, rows - 1
    packed = {"bits": bits, "weight_shape": [rows, depth]}
    if name == "QGatherWeightOnly":
        limits = np.finfo(np.float32)
        scale = np.exp2(random.uniform(-100, 100, rows)).astype(np.float32)
        scale[0] = random.choice([limits.tiny, limits.max, scale[0]])
        return [indices, pack(codes, bits), scale], packed
    factor = np.exp2(random.uniform(-20, 6, rows))
    chosen = dyadic.choose(factor, int(random.choice([8, 16, 31])), CODE_LIMIT)
    assert chosen.multiplier is not None
    if random.integers(4) == 0:  # what no factor gives, but the operator is defined for
        chosen.multiplier[0], chosen.shift[0] = (1 << 31) - 1, random.choice([1, 62])
    return [indices, pack(codes, bits), chosen.multiplier, chosen.shift], {**packed, **CLAMPS[random.integers(3)]}
