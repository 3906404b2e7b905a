"""Feeds made of random numbers, for trying a compile out without data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.checks import InputSpec, spec_text

__all__ = ["MADE_UP", "feeds", "notes", "shapes"]

MADE_UP: Final = "random data"
"""What a data set of such feeds calls its source."""

_IMAGE = 224
_SEQUENCE = 16


def feeds(inputs: Mapping[str, InputSpec], count: int, seed: int) -> list[dict[str, NDArray[Any]]]:
    """``count`` feeds, the same for the same seed."""
    generator = np.random.default_rng(seed)
    sizes = shapes(inputs)
    return [
        {name: _draw(generator, name, spec.dtype, sizes[name]) for name, spec in inputs.items()} for _ in range(count)
    ]


def notes(inputs: Mapping[str, InputSpec]) -> tuple[str, ...]:
    """Which lengths were chosen for dynamic axes other than the batch."""
    sizes = shapes(inputs)
    return tuple(
        f"input '{name}' is {spec_text(spec)}: random data takes {sizes[name]}"
        for name, spec in inputs.items()
        if any(not isinstance(item, int) for item in (spec.shape or ())[1:])
    )


def shapes(inputs: Mapping[str, InputSpec]) -> dict[str, tuple[int, ...]]:
    """A shape for every input; axes of the same name get the same length, the least that any of them asks for."""
    lengths: dict[str, int] = {}
    for spec in inputs.values():
        for axis, item in enumerate(spec.shape or ()):
            if isinstance(item, str):
                lengths[item] = min(lengths.get(item, _IMAGE), _length(axis, spec))
    return {
        name: tuple(
            item if isinstance(item, int) else lengths.get(str(item), _length(axis, spec))
            for axis, item in enumerate(spec.shape or (1,))
        )
        for name, spec in inputs.items()
    }


def _length(axis: int, spec: InputSpec) -> int:
    """The length of a dynamic axis by itself: the batch is 1."""
    if axis == 0:
        return 1
    return _IMAGE if len(spec.shape or ()) == 4 else _SEQUENCE


def _draw(generator: np.random.Generator, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if dtype == np.bool_ or "mask" in name.lower():
        return np.ones(shape, dtype)
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        low, high = (int(info.min), int(info.max) + 1) if info.bits == 8 else (0, 10)
        return generator.integers(low, high, shape).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)
