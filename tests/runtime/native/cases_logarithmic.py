"""Random instances of codes on growing grids."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["case"]


def case(name: str, random: np.random.Generator) -> tuple[list[NDArray[Any]], dict[str, Any], tuple[int, ...]]:
    """Inputs, attributes, and positions of constant inputs."""
    rank = int(random.integers(0, 4))
    shape = tuple(int(size) for size in random.choice([0, 1, 3, 31, 32, 33, 64, 100], rank, p=[0.02, *[0.14] * 7]))
    constants = (1,) if random.random() < 0.7 else ()
    if name == "QLogDequantize":
        size = int(random.choice([2, 3, 8, 15, 16, 17, 100, 128]))
        values = random.integers(-32768, 32767, size, endpoint=True).astype(np.int16)
        return [random.integers(-128, 127, shape, endpoint=True).astype(np.int8), values], {}, constants
    dtype = [np.int8, np.int16][random.integers(2)]
    limits = np.iinfo(dtype)
    number = int(random.choice([1, 3, 7, 15, 16, 127]))
    thresholds = np.sort(random.integers(limits.min, limits.max, number, endpoint=True)).astype(dtype)
    if random.random() < 0.3:
        thresholds[[0, -1]] = limits.min, limits.max
    x = random.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)
    if x.size and random.random() < 0.5:  # right on a border
        x.reshape(-1)[:: max(x.size // 9, 1)] = thresholds[random.integers(number)]
    return [x, np.sort(thresholds)], {}, constants
