"""Random instances of QAdd, QSub, QMul and QConcat: every mixture of types, broadcasting and size of factors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.runtime.native.cases_requantize import clamp, factors

__all__ = ["case"]

_SIZES = [0, 1, 2, 3, 5, 8, 16, 31, 33, 64, 97]
_CHANCES = [0.02, *[0.98 / 10] * 10]


def _codes(random: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    limits = np.iinfo(dtype)
    if random.random() < 0.2:
        return np.asarray(random.choice([limits.min, limits.max], shape)).astype(dtype)
    return np.asarray(random.integers(limits.min, limits.max, shape, endpoint=True)).astype(dtype)


def _zero(random: np.random.Generator, dtype: Any) -> int:
    limits = np.iinfo(dtype)
    return int(
        random.choice([0, limits.min, limits.max, random.integers(limits.min, limits.max)], p=[0.5, 0.1, 0.1, 0.3])
    )


def _shapes(random: np.random.Generator) -> tuple[tuple[int, ...], tuple[int, ...]]:
    rank = int(random.integers(0, 4))
    whole = tuple(int(size) for size in random.choice(_SIZES, rank, p=_CHANCES))
    if random.random() < 0.2:
        whole = (*whole[:1], int(random.integers(500, 1100)))
    shapes = [whole, whole]
    if random.random() < 0.5:
        shapes = [tuple(size if random.random() < 0.7 else 1 for size in whole) for _ in shapes]
        shapes = [
            shape[int(random.integers(0, len(shape) + 1)) :] if random.random() < 0.3 else shape for shape in shapes
        ]
    return shapes[0], shapes[1]


def _reach(dtype: Any, zero: int) -> int:
    limits = np.iinfo(dtype)
    return max(int(limits.max) - zero, zero - int(limits.min))


def _left(random: np.random.Generator, a: int, b: int) -> list[NDArray[Any]]:
    left = random.integers(0, 41 if random.random() < 0.2 else 12, 2)
    total = (a << int(left[0])) + (b << int(left[1]))
    shift = total.bit_length() - int(random.integers(5, 18)) if random.random() < 0.7 else int(random.integers(1, 62))
    return [*(np.uint8(item)[()] for item in left), np.array(min(max(shift, 1), 61), np.uint8)]


def _parameters(name: str, random: np.random.Generator, a: int, b: int) -> list[Any]:
    multiplies = not name.endswith("Shift")
    if name.startswith("QConcat"):
        pairs = [factors(random, reach) for reach in (a, b)]
        if random.random() < 0.3:
            place = int(random.integers(1, 31))
            pairs[0] = (np.array(1 << place, np.int32), np.array(place, np.uint8))
        return [item for pair in pairs for item in (pair if multiplies else pair[1:])]
    if name.startswith("QMul"):
        if multiplies:
            return [*factors(random, a * b)]
        shift = (
            16 + (a * b).bit_length() - int(random.integers(5, 18)) if random.random() < 0.7 else random.integers(1, 62)
        )
        return [np.array(shift, np.uint8)]
    if not multiplies:
        return _left(random, a, b)
    first, shift = factors(random, a + b)
    second, _ = factors(random, a + b)
    ordered = (first, second) if random.random() < 0.5 else (second, first)
    return [*ordered, shift]


def case(name: str, random: np.random.Generator) -> tuple[list[NDArray[Any]], dict[str, Any], tuple[int, ...]]:
    """Inputs, attributes, and positions of constant inputs."""
    types = [[np.int8, np.int16][random.integers(2)] for _ in range(2)]
    shapes = list(_shapes(random))
    attributes: dict[str, Any] = {}
    if name.startswith("QConcat"):
        shape = [int(size) for size in random.choice(_SIZES, int(random.integers(1, 5)), p=_CHANCES)]
        axis = int(random.integers(len(shape)))
        shapes = [tuple(shape), tuple(shape)]
        shape[axis] = int(random.integers(0, 70))
        shapes[int(random.integers(2))] = tuple(shape)
        attributes = {"axis": axis - len(shape) if random.random() < 0.5 else axis}
    zeros = [_zero(random, dtype) for dtype in types]
    inputs = [_codes(random, shape, dtype) for shape, dtype in zip(shapes, types, strict=True)]
    parameters = _parameters(name, random, *(_reach(dtype, zero) for dtype, zero in zip(types, zeros, strict=True)))
    attributes |= {"a_zero_point": zeros[0], "b_zero_point": zeros[1]}
    attributes |= clamp(random, types=(3, 5) if random.random() < 0.9 else (6,))
    constants = tuple(range(2, 2 + len(parameters)))
    return [*inputs, *(np.asarray(item) for item in parameters)], attributes, constants if random.random() < 0.7 else ()
