"""Random instances of Requantize: every type, form of broadcasting and size of shift."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["case", "clamp", "factors"]


def clamp(random: np.random.Generator, *, types: tuple[int, ...] = (3, 5)) -> dict[str, Any]:
    """Zero point, type and bounds of a result; often the whole range of the type."""
    to = int(random.choice(types))
    limit = {3: 1 << 7, 5: 1 << 15, 6: 1 << 31}[to]
    low, high = -limit, limit - 1
    if random.random() < 0.3:
        low, high = sorted(int(item) for item in random.integers(-limit, limit, 2))
    zero = int(random.choice([0, -limit, limit - 1, random.integers(-limit, limit)]))
    return {"y_zero_point": zero, "to": to, "low": low, "high": high}


def factors(
    random: np.random.Generator, bound: int, shape: tuple[int, ...] = ()
) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Multipliers and shifts whose products with numbers up to ``bound`` stay in 62 bits.

    Often results as large as codes, else anything.
    """
    most = min(31, 61 - int(bound).bit_length())
    bits = random.integers(0, most + 1, shape) if random.random() < 0.5 else np.full(shape, most)
    multiplier = np.floor(random.random(shape) * (2.0**bits))
    if random.random() < 0.1:
        multiplier = np.full(shape, (1 << most) - 1)
    near = bits + int(bound).bit_length() - random.integers(5, 18)
    shift = near if random.random() < 0.7 else random.integers(1, 63, shape)
    return np.asarray(multiplier, np.int32), np.clip(shift, 1, 62).astype(np.uint8)


def _shapes(random: np.random.Generator) -> tuple[tuple[int, ...], ...]:
    """Of codes, of multipliers, of shifts."""
    rank = int(random.integers(0, 5))
    whole = tuple(int(size) for size in random.choice([0, 1, 2, 3, 5, 7, 16, 17, 33], rank, p=[0.03, *[0.97 / 8] * 8]))
    if random.random() < 0.3:
        whole = (*whole[:1], int(random.integers(500, 1100)))
    kept = [tuple(size if random.random() < 0.6 else 1 for size in whole) for _ in range(2)]
    kept = [shape[int(random.integers(0, len(shape) + 1)) :] for shape in kept]
    if random.random() < 0.4:
        kept = [(), ()]
    elif random.random() < 0.4:
        kept[1] = kept[0]
    codes = whole if random.random() < 0.8 else tuple(size if random.random() < 0.7 else 1 for size in whole)
    return codes, kept[0], kept[1]


def case(name: str, random: np.random.Generator) -> tuple[list[NDArray[Any]], dict[str, Any], tuple[int, ...]]:
    """Inputs, attributes, and positions of constant inputs."""
    dtype = [np.int8, np.int16, np.int32, np.int64][random.integers(4)]
    bits = int(random.integers(1, np.iinfo(dtype).bits)) if random.random() < 0.5 else np.iinfo(dtype).bits - 1
    bound = min((1 << bits) - 1, (1 << 44) - 1)
    shape, *kept = _shapes(random)
    x = random.integers(-bound - 1, bound, shape, endpoint=True).astype(dtype)
    if x.size and random.random() < 0.5:
        x.flat[random.integers(0, x.size, 3)] = [-bound - 1, bound, 0]
    zero = 0 if random.random() < 0.5 else int(random.integers(-bound - 1, bound, endpoint=True))
    zero = max(-(1 << 31), min(zero, (1 << 31) - 1))
    reach = bound + 1 + abs(zero)
    attributes = {"x_zero_point": zero, **clamp(random)}
    if name.endswith("Shift"):
        x = np.clip(x, -(1 << 43), 1 << 43).astype(dtype)
        near = 16 + reach.bit_length() - random.integers(5, 18, kept[1])
        shift = near if random.random() < 0.7 else random.integers(1, 63, kept[1])
        return [x, np.clip(shift, 1, 62).astype(np.uint8)], attributes, (1,)
    multiplier, _ = factors(random, reach, kept[0])
    _, shift = factors(random, reach, kept[1])
    return [x, multiplier, shift], attributes, (1, 2) if random.random() < 0.7 else ()
