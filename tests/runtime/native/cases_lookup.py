"""Random instances of tables of codes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["case"]

_CLAMPS = {3: 128, 5: 32768}


def _table(random: np.random.Generator, *, curved: bool) -> NDArray[np.int32]:
    """513 entries whose magnitudes, and whose second differences, are as large as they may be, or smooth."""
    limit = 1 << 22
    if not curved:
        return random.integers(-limit, limit, 513, endpoint=True).astype(np.int32)
    if random.random() < 0.5:
        bend = random.integers(-(1 << 15), 1 << 15, 513).cumsum() // 60
        return np.clip(bend, -limit, limit).astype(np.int32)
    return (random.integers(-1, 1, 513, endpoint=True) * ((1 << 15) - 1)).astype(np.int32)


def case(name: str, random: np.random.Generator) -> tuple[list[NDArray[Any]], dict[str, Any], tuple[int, ...]]:
    """Inputs, attributes, and positions of constant inputs."""
    rank = int(random.integers(0, 4))
    shape = tuple(int(size) for size in random.choice([0, 1, 3, 15, 16, 33, 64, 100], rank, p=[0.02, *[0.14] * 7]))
    constants = (1,) if random.random() < 0.7 else ()
    if name == "QLookup":
        dtype = [np.int8, np.int16][random.integers(2)]
        limits = np.iinfo(dtype)
        x = random.integers(-128, 127, shape, endpoint=True).astype(np.int8)
        return [x, random.integers(limits.min, limits.max, 256, endpoint=True).astype(dtype)], {}, constants
    x = random.integers(-32768, 32767, shape, endpoint=True).astype(np.int16)
    curved, to = int(random.integers(2)), int(random.choice([3, 5]))
    low, high = sorted(int(item) for item in random.integers(-_CLAMPS[to], _CLAMPS[to], 2))
    if random.random() < 0.7:
        low, high = -_CLAMPS[to], _CLAMPS[to] - 1
    return [x, _table(random, curved=bool(curved))], {"curved": curved, "to": to, "low": low, "high": high}, constants
