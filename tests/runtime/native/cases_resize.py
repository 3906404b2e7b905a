"""Random instances of QResize: any taps and weights that fit, along any axis."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.quant.integer.pooling_cases import codes
from tests.runtime.native.cases_requantize import clamp, factors

__all__ = ["case"]

_BITS = {np.int8: 30, np.int16: 55, np.int32: 55}
"""Bits of a weighted sum that this module allows itself."""


def case(name: str, random: np.random.Generator) -> tuple[list[NDArray[Any]], dict[str, Any], tuple[int, ...]]:
    """Inputs, attributes, and positions of constant inputs."""
    dtype = [np.int8, np.int16, np.int32][random.integers(3)]
    rank = int(random.integers(1, 5))
    shape = [int(size) for size in random.choice([1, 2, 3, 5, 17, 40], rank)]
    if random.random() < 0.03:
        shape[-1] = 530
    axis, count, taps = int(random.integers(rank)), int(random.integers(0, 40)), int(random.integers(1, 6))
    x = codes(random, dtype, tuple(shape))
    bits = 8 * x.itemsize
    zero = int(random.integers(-128, 128)) if random.random() < 0.7 else int(codes(random, dtype, ())[()])
    total = min(_BITS[dtype], 43) if name.endswith("Shift") else _BITS[dtype]
    most = min(31, total - bits - 1 - taps.bit_length())
    weight = random.integers(-(1 << most), 1 << most, (count, taps, *[1] * (rank - axis - 1))).astype(np.int32)
    if random.random() < 0.2:
        weight[random.random(weight.shape) < 0.5] = 0
    index = random.integers(0, shape[axis], (count, taps))
    attributes = {"axis": axis, "x_zero_point": zero, **clamp(random, types=(3, 5, 6))}
    bound = (1 << (bits + 1)) * max(int(np.abs(weight.astype(np.int64)).sum(axis=1).max(initial=1)), 1)
    multiplier, shift = factors(random, bound)
    factor = [shift] if name.endswith("Shift") else [multiplier, shift]
    inputs = [x, index, weight, *factor]
    return inputs, attributes, tuple(range(1, len(inputs))) if random.random() < 0.7 else ()
