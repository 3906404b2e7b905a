"""Feeds made of random numbers, for trying a compile out without data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.checks import InputSpec, spec_text

__all__ = ["feeds", "notes"]


def feeds(inputs: Mapping[str, InputSpec], count: int, seed: int) -> list[dict[str, NDArray[Any]]]:
    """``count`` feeds, the same for the same seed."""
    generator = np.random.default_rng(seed)
    return [
        {name: _draw(generator, name, spec.dtype, _concrete(spec)) for name, spec in inputs.items()}
        for _ in range(count)
    ]


def notes(inputs: Mapping[str, InputSpec]) -> tuple[str, ...]:
    """Which lengths were chosen for dynamic axes other than the batch."""
    return tuple(
        f"input '{name}' is {spec_text(spec)}: random data takes {_concrete(spec)}"
        for name, spec in inputs.items()
        if any(not isinstance(item, int) for item in (spec.shape or ())[1:])
    )


def _concrete(spec: InputSpec) -> tuple[int, ...]:
    shape = spec.shape or (1,)
    unknown = 224 if len(shape) == 4 else 16
    return tuple(item if isinstance(item, int) else (1 if axis == 0 else unknown) for axis, item in enumerate(shape))


def _draw(generator: np.random.Generator, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if dtype == np.bool_ or "mask" in name.lower():
        return np.ones(shape, dtype)
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        low, high = (int(info.min), int(info.max) + 1) if info.bits == 8 else (0, 10)
        return generator.integers(low, high, shape).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)
