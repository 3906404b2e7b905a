"""Factors per channel that make the largest weights of layers alike, by numbers alone.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, section 4.1: with
``r = max|w|`` per channel on both sides, ``s = sqrt(r_first / r_second)`` gives both sides ``sqrt(r_first r_second)``.
Where several layers make a channel (a residual stream) or several read it, the largest of each side counts, each in
units of its layer's largest weight: what stands out decides the layer's one scale. A layer in the middle of a chain
belongs to two streams, so streams are visited in turn until nothing moves. A common factor of all channels changes no
precision; it is taken out, so that channels of a stream that is balanced have 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Side", "Stream", "balance"]

_SETTLED = 1e-4
"""Largest change of a factor in one sweep that counts as none."""
_NEXT_TO_NOTHING = 2.0**-20
"""Share of a layer's largest weight below which a channel counts as dead: no common scale could keep it, and its
factor would pull that of all others with it."""


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """A layer that makes or reads channels of a stream.

    Attributes:
        layer: Its index.
        channels: For each of its output (input) channels, the index within the stream; -1 where it is not of it.
    """

    layer: int
    channels: NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """Channels that layers make and others read.

    Attributes:
        makers: Layers whose output channels they are.
        readers: Layers whose input channels they are.
        applied: Factors by which the channels were divided before.
    """

    makers: Sequence[Side]
    readers: Sequence[Side]
    applied: NDArray[np.float64]


def balance(
    layers: Sequence[NDArray[np.float64]], streams: Sequence[Stream], *, growth: float, sweeps: int = 100
) -> list[NDArray[np.float64]]:
    """Factors of every stream: divide the outputs of its makers by them, multiply the inputs of its readers.

    Args:
        layers: Largest absolute weights of every layer, ``[groups, outputs / group, inputs / group]``.
        streams: The streams, in graph order.
        growth: How much larger a channel may become at most, counted from the original; ``inf`` sets no limit.
        sweeps: Most visits of every stream.

    Returns:
        What is still to be done: all 1 where earlier factors have balanced a stream.
    """
    scaled = [layer.copy() for layer in layers]
    total = [stream.applied.copy() for stream in streams]
    for _ in range(sweeps):
        moved = 0.0
        for index, stream in enumerate(streams):
            step = _step(scaled, stream, total[index], growth)
            total[index] *= step
            moved = max(moved, float(np.abs(step - 1).max(initial=0.0)))
            _scale(scaled, stream, step)
        if moved < _SETTLED:
            break
    return [factors / stream.applied for factors, stream in zip(total, streams, strict=True)]


def _step(
    layers: Sequence[NDArray[np.float64]], stream: Stream, total: NDArray[np.float64], growth: float
) -> NDArray[np.float64]:
    """What the factors so far must be multiplied with to balance a stream; channels without weights keep theirs."""
    rows, columns = np.zeros(total.size), np.zeros(total.size)
    for side in stream.makers:
        _raise(rows, side, layers[side.layer].max(axis=2, initial=0.0).ravel())
    for side in stream.readers:
        _raise(columns, side, layers[side.layer].max(axis=1, initial=0.0).ravel())
    live = (rows > _floor(rows)) & (columns > _floor(columns))
    wanted = total.copy()
    if live.any():
        wanted[live] = np.sqrt(rows[live] / columns[live]) * total[live]
        wanted[live] /= np.exp(np.log(wanted[live]).mean())
        wanted[live] = np.maximum(wanted[live], 1 / growth)
    return wanted / total


def _raise(sizes: NDArray[np.float64], side: Side, weights: NDArray[np.float64]) -> None:
    """Let every channel of the stream be at least as large as its weights in a layer, in units of the largest."""
    largest = weights.max(initial=0.0)
    if largest > 0:
        inside = side.channels >= 0
        np.maximum.at(sizes, side.channels[inside], weights[inside] / largest)


def _floor(sizes: NDArray[np.float64]) -> float:
    return float(sizes.max(initial=0.0)) * _NEXT_TO_NOTHING


def _scale(layers: Sequence[NDArray[np.float64]], stream: Stream, factors: NDArray[np.float64]) -> None:
    with_others = np.append(factors, 1.0)  # index -1 takes the 1
    for side in stream.makers:
        layer = layers[side.layer]
        layer /= with_others[side.channels].reshape(layer.shape[0], layer.shape[1], 1)
    for side in stream.readers:
        layer = layers[side.layer]
        layer *= with_others[side.channels].reshape(layer.shape[0], 1, layer.shape[2])
