"""Random instances of QMatMulWeightOnly: every width, tails, zero points, rows that are zero, tiny or not finite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.quant.integer.weight_only import BITS, GREATEST_MULTIPLIER, LEAST_MAGNITUDE, blocks
from qcompiler.quant.packing import pack

__all__ = ["SPECIAL", "Case", "case", "make"]

SPECIAL = np.float32(
    [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-39, 3.4028235e38, -3.4e38, LEAST_MAGNITUDE, LEAST_MAGNITUDE / 2]
)
"""Numbers that a row may hold and that are treated apart somewhere."""


@dataclass(frozen=True, slots=True)
class Case:
    """Inputs in order, and attributes."""

    inputs: list[NDArray[Any]]
    attributes: dict[str, Any]


def case(random: np.random.Generator, *, finite: bool = False, bits: int | None = None) -> Case:
    """An instance of random shape; extremes of all its integers are common."""
    depth, rows = int(random.integers(1, 160)), int(random.integers(1, 40))
    return make(
        random,
        lead=[(), (1,), (3,), (17,), (2, 3), (0,), (1, 0, 2)][random.integers(7)],
        depth=depth,
        rows=rows,
        bits=bits or int(random.choice(BITS)),
        block=int(random.choice([16, 24, 32, 64, 128, max(depth, 1), 1000])),
        zero_points=bool(random.integers(2)),
        finite=finite,
    )


def make(
    random: np.random.Generator,
    *,
    lead: tuple[int, ...],
    depth: int,
    rows: int,
    bits: int,
    block: int,
    zero_points: bool,
    finite: bool,
) -> Case:
    """An instance of a given shape."""
    half, per_block = 1 << (bits - 1), (rows, blocks(depth, block))
    codes = _integers(random, -half, half - 1, (rows, depth)).astype(np.int8)
    multiplier = _integers(random, 1, GREATEST_MULTIPLIER, per_block).astype(np.uint16)
    scale = np.exp2(random.uniform(-90, 20, rows)).astype(np.float32)
    zero = _integers(random, -half, half - 1, per_block if zero_points else (1, 1)).astype(np.int8)
    if not zero_points and random.integers(2):
        zero[:] = 0
    inputs = [activations(random, (*lead, depth), finite=finite), pack(codes, bits), multiplier, scale, zero]
    return Case(inputs, {"bits": bits, "block": block, "weight_shape": [rows, depth]})


def activations(random: np.random.Generator, shape: tuple[int, ...], *, finite: bool) -> NDArray[np.float32]:
    """Rows of very different magnitude; some zero, and unless ``finite`` some with numbers of :data:`SPECIAL`."""
    magnitudes = np.exp2(random.uniform(-60, 60, (*shape[:-1], 1)))
    x: NDArray[np.float32] = (random.normal(0, 1, shape) * magnitudes).astype(np.float32)
    for row in x.reshape(-1, shape[-1]) if x.size else ():
        kind = random.integers(8)
        if kind == 0:
            row[:] = 0
        elif kind == 1:
            row *= LEAST_MAGNITUDE / np.abs(row).max()
        elif kind == 2:
            row[:] = np.round(row / np.abs(row).max() * 127) / 2  # halves: ties to even
        elif kind == 3 and not finite:
            row[random.integers(row.size)] = random.choice(SPECIAL)
    return x


def _integers(random: np.random.Generator, low: int, high: int, shape: tuple[int, ...]) -> NDArray[np.int64]:
    if random.integers(4) == 0:
        return random.choice([low, high], shape)
    return random.integers(low, high, shape, endpoint=True)
