"""Random pooling problems, and sums of their windows by plain loops."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

CODES = {3: np.int8, 5: np.int16}


def codes(random: np.random.Generator, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """Codes of a type: any, only extremes, or all at one end."""
    limits = np.iinfo(dtype)
    kind = random.integers(4)
    if kind == 0:
        return random.choice([limits.min, limits.max], shape).astype(dtype)
    if kind == 1:
        return np.full(shape, random.choice([limits.min, limits.max]), dtype)
    return random.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)


def output(random: np.random.Generator, to: int) -> dict[str, int]:
    """Attributes of a rescale."""
    limits = np.iinfo(CODES[to])
    low, high = sorted(int(item) for item in random.integers(limits.min, limits.max, 2, endpoint=True))
    if random.random() < 0.7:
        low, high = int(limits.min), int(limits.max)
    zero = int(random.integers(limits.min, limits.max, endpoint=True))
    return {"y_zero_point": zero, "to": to, "low": low, "high": high}


def window(random: np.random.Generator, rank: int) -> tuple[tuple[int, ...], dict[str, list[int]]]:
    """Spatial sizes, and attributes of windows that fit them."""
    kernel, strides, dilations = (random.integers(1, top, rank, endpoint=True) for top in (4, 3, 2))
    reach = (kernel - 1) * dilations + 1
    pads = np.concatenate([random.integers(0, reach), random.integers(0, reach)])
    sizes = tuple(int(item) for item in reach + random.integers(0, 5, rank))
    lists = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads}
    return sizes, {name: [int(item) for item in values] for name, values in lists.items()}


def windows(shape: tuple[int, ...], attributes: dict[str, list[int]]) -> Iterator[tuple[tuple[int, ...], list[Any]]]:
    """Output positions, and the input positions that each window reads inside the input."""
    rank = len(shape)
    counts = [
        (size + attributes["pads"][axis] + attributes["pads"][rank + axis] - (kernel - 1) * dilation - 1) // stride + 1
        for axis, (size, kernel, stride, dilation) in enumerate(
            zip(shape, attributes["kernel_shape"], attributes["strides"], attributes["dilations"], strict=True)
        )
    ]
    for position in np.ndindex(*counts):
        read = []
        for offset in np.ndindex(*attributes["kernel_shape"]):
            place = tuple(
                position[axis] * attributes["strides"][axis]
                + offset[axis] * attributes["dilations"][axis]
                - attributes["pads"][axis]
                for axis in range(rank)
            )
            if all(0 <= item < size for item, size in zip(place, shape, strict=True)):
                read.append(place)
        yield position, read
