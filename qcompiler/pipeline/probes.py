"""Inputs to try a model on when nobody gave any: calibration samples, else seeded random tensors."""

from __future__ import annotations

import itertools
from typing import Any, Final, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.errors import UsageError
from qcompiler.pipeline.base import Context

__all__ = ["Probe", "probes"]

Probe: TypeAlias = dict[str, NDArray[Any]]

_COUNT: Final = 2
_UNKNOWN: Final = 4
"""Stands for a dimension that is not known, but for the first, which is 1."""


def probes(model: ir.Model, ctx: Context) -> list[Probe]:
    """Two feeds for the inputs of ``model``.

    Raises:
        UsageError: There is no calibration data and an input is no tensor of numbers.
    """
    if ctx.calibration is not None:
        return [dict(feed) for feed in itertools.islice(iter(ctx.calibration), _COUNT)]
    random = np.random.default_rng(0)
    return [
        {str(value.name): _random(value, random) for value in model.graph.inputs if not value.is_initializer()}
        for _ in range(_COUNT)
    ]


def _random(value: ir.Value, random: np.random.Generator) -> NDArray[Any]:
    """Normal numbers for float inputs; 0 and 1 for the others, which are often indices or masks."""
    dtype = value.dtype
    if dtype is None or value.shape is None or dtype in (ir.DataType.STRING, ir.DataType.UNDEFINED):
        raise UsageError(
            f"input '{value.name}' cannot be made up: its type or rank is not known",
            hint="give --calibration data",
        )
    shape = [size if isinstance(size, int) else (1 if axis == 0 else _UNKNOWN) for axis, size in enumerate(value.shape)]
    if dtype.is_floating_point():
        return random.standard_normal(shape).astype(dtype.numpy())
    return random.integers(0, 2, shape).astype(dtype.numpy())
