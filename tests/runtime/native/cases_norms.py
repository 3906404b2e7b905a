"""Random instances of QLayerNormalization and QRMSNormalization: lengths, several axes, factors of all shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.quant.integer import norm_cases

__all__ = ["case"]

_SIZES = (1, 2, 3, 4, 6, 7, 8, 15, 16, 17, 24, 31, 33, 64, 65, 96, 257, 384, 768)


def _made(name: str, random: np.random.Generator, size: int) -> norm_cases.Case:
    """An instance; scales that are too fine for 30 bits are drawn again."""
    while True:
        try:
            return norm_cases.make(
                random,
                rms="RMS" in name,
                size=size,
                types=(_type(random), _type(random)),
                content=norm_cases.CONTENTS[str(random.choice(sorted(norm_cases.CONTENTS)))],
                epsilon=float(random.choice([1e-12, 1e-6, 1e-5, 1e-3, 1.0])),
                scale=float(np.float32(10 ** random.uniform(-7, 1))),
                bits=int(random.choice([31, 31, 16])),
            )
        except ValueError:
            continue


def _type(random: np.random.Generator) -> Any:
    return [np.int8, np.int16][random.integers(2)]


def _rows(random: np.random.Generator, size: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes before the row, and of the row's own axes."""
    before = ((3,), (1, 3), (3, 1), (3, 1, 1))[random.integers(4)]
    parts = [part for part in (2, 3, 4, 8) if size % part == 0]
    if parts and random.random() < 0.3:
        part = int(random.choice(parts))
        return before, (part, size // part)
    return before, (size,)


def _factors(
    random: np.random.Generator, arrays: list[NDArray[Any]], before: tuple[int, ...], row: tuple[int, ...]
) -> list[NDArray[Any]]:
    """One per element of a row, as compilers make them; or one for all; or different ones in every row."""
    kind = random.random()
    if kind < 0.1 and arrays[0].size:
        return [np.asarray(array.flat[0]) for array in arrays]
    shaped = [array.reshape(row) for array in arrays]
    if kind < 0.3:
        ones = (1,) * len(before)
        rows = [np.broadcast_to(array, (*before, *row)).copy() for array in shaped]
        rows[0][..., :1] *= -1
        rows[0] = rows[0] * np.where(np.arange(3).reshape(*before, *(1 for _ in row)) == 1, -1, 1).astype(np.int32)
        return [
            item if random.random() < 0.6 else array.reshape(*ones, *row)
            for item, array in zip(rows, shaped, strict=True)
        ]
    return shaped


def case(name: str, random: np.random.Generator) -> tuple[list[NDArray[Any]], dict[str, Any], tuple[int, ...]]:
    """Inputs, attributes, and positions of constant inputs."""
    size = int(random.choice(_SIZES))
    made = _made(name, random, size)
    x, arrays, attributes = made.x, list(made.inputs), dict(made.attributes)
    if random.random() < 0.03:
        size, x, arrays = 0, x[:, :0], [array[:0] for array in arrays]
        attributes |= {} if "RMS" in name else {"size": 0}
    before, row = _rows(random, size)
    attributes["axes"] = list(range(-len(row), 0))
    x = np.ascontiguousarray(x.reshape(*before, *row))
    factors = _factors(random, arrays, before, row)
    if random.random() < 0.03 and all(item.ndim <= len(row) for item in factors):
        x = x[:0]
    if random.random() < 0.3:
        low, high = sorted(int(item) for item in random.integers(attributes["low"], attributes["high"], 2))
        attributes |= {"low": low, "high": high}
    constants = tuple(range(1, 1 + len(factors))) if random.random() < 0.7 else ()
    return [x, *factors], attributes, constants
