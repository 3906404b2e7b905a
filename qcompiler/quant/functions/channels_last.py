"""What the bodies of channels-last operators share: codes with channels first inside, channels last outside.

The number of spatial axes is not written in a body, and a Transpose must know its axes: all positions are one axis
while channels move. Sizes of 0 stay 0 (``allowzero``).
"""

from __future__ import annotations

from typing import Final

from qcompiler.quant.functions.definition import Dimension

__all__ = ["CHANNELS_FIRST", "as_channels_first", "as_channels_last", "channels_last"]

CHANNELS_FIRST: Final = """
samples = Shape <end = 1> (x)
extents = Shape <start = 1, end = -1> (x)
channels = Shape <start = -1> (x)
points = ReduceProd <keepdims = 1> (extents)
rows_shape = Concat <axis = 0> (samples, points, channels)
rows_of_x = Reshape <allowzero = 1> (x, rows_shape)
columns_of_x = Transpose <perm = [0, 2, 1]> (rows_of_x)
first_shape = Concat <axis = 0> (samples, channels, extents)
first = Reshape <allowzero = 1> (columns_of_x, first_shape)
"""
"""From ``x`` ``[batch, spatial..., channels]`` to ``first`` ``[batch, channels, spatial...]``."""

_CHANNELS_LAST: Final = """
results = Shape <start = 1, end = 2> (FIRST)
result_extents = Shape <start = 2> (FIRST)
result_points = ReduceProd <keepdims = 1> (result_extents)
columns_shape = Concat <axis = 0> (samples, results, result_points)
columns = Reshape <allowzero = 1> (FIRST, columns_shape)
lines = Transpose <perm = [0, 2, 1]> (columns)
last_shape = Concat <axis = 0> (samples, result_extents, results)
LAST = Reshape <allowzero = 1> (lines, last_shape)
"""


def channels_last(first: str, last: str) -> str:
    """Statements from ``first`` ``[batch, channels, spatial...]`` to ``last``, behind :data:`CHANNELS_FIRST`."""
    return _CHANNELS_LAST.replace("FIRST", first).replace("LAST", last)


def as_channels_first(shape: tuple[Dimension, ...]) -> tuple[Dimension, ...]:
    """The shape of channels-last codes once their channels are axis 1."""
    return (shape[0], shape[-1], *shape[1:-1])


def as_channels_last(shape: tuple[Dimension, ...]) -> tuple[Dimension, ...]:
    """The shape of channels-first codes once their channels are the last axis."""
    return (shape[0], *shape[2:], shape[1])
