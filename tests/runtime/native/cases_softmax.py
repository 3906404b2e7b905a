"""Random instances of QSoftmax and QSoftmaxShift: any axis, rows of 0 to 2000 terms, masks, extreme factors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.quant.integer import dyadic
from tests.runtime.native.cases_requantize import clamp

__all__ = ["case"]


def _shape(random: np.random.Generator) -> tuple[tuple[int, ...], int]:
    """A shape and the axis that sums to one."""
    rank = int(random.integers(1, 5))
    shape = [int(size) for size in random.choice([0, 1, 2, 3, 5, 8], rank, p=[0.02, *[0.98 / 5] * 5])]
    axis = int(random.integers(rank)) if random.random() < 0.5 else rank - 1
    if random.random() < 0.9:
        shape[axis] = int(random.choice([1, 7, 8, 15, 16, 17, 31, 33, 50, 64, 65, 127, 197, 257]))
    if random.random() < 0.02:
        shape, axis = [1, 2000], 1
    return tuple(shape), axis


def _codes(random: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    limits = np.iinfo(dtype)
    kind = random.integers(4)
    if kind == 0:
        return np.asarray(random.integers(limits.min, limits.max, shape, endpoint=True)).astype(dtype)
    if kind == 1:
        return np.asarray(random.choice([limits.min, limits.max], shape)).astype(dtype)
    spread = np.exp(random.uniform(0, math.log(limits.max)))
    x = np.clip(random.normal(random.integers(limits.min, limits.max), spread, shape), limits.min, limits.max)
    if kind == 2:
        x[random.random(shape) < 0.4] = limits.min  # a mask
    return x.astype(dtype)


def case(name: str, random: np.random.Generator) -> tuple[list[NDArray[Any]], dict[str, Any], tuple[int, ...]]:
    """Inputs, attributes, and positions of constant inputs."""
    dtype = [np.int8, np.int16][random.integers(2)]
    shape, axis = _shape(random)
    x = _codes(random, shape, dtype)
    attributes = {"axis": axis - len(shape) if random.random() < 0.5 else axis, **clamp(random)}
    span = float(np.iinfo(dtype).max) * 2 + 1
    if name.endswith("Shift"):
        # distances of up to 2^16 codes times log2(e) 2^28 are shifted left by 16
        x_shift = random.integers(20 if random.random() < 0.7 else 1, 62)
        shift = random.integers(18, 62)
        factors: list[Any] = [np.array(x_shift, np.uint8), np.array(shift, np.uint8)]
    else:
        scale = min(float(np.exp(random.uniform(math.log(1e-3), math.log(60)))) / span * 4, 31.0)
        first = dyadic.choose(scale * math.log2(math.e), 31, int(span) << 16)
        last = dyadic.choose(2.0 ** -float(random.uniform(2, 24)), int(random.integers(8, 32)), 1 << 30)
        factors = [first.multiplier, first.shift, last.multiplier, last.shift]
    constants = tuple(range(1, 1 + len(factors))) if random.random() < 0.7 else ()
    return [x, *(np.asarray(item) for item in factors)], attributes, constants
