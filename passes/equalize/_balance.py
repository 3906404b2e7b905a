"""Factors per channel that make the largest weights of two layers alike, by numbers alone.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, section 4.1: with
``r = max|w|`` per channel on both sides, ``s = sqrt(r_first / r_second)`` gives both sides ``sqrt(r_first r_second)``.
A layer in the middle of a chain belongs to two pairs, so pairs are visited in turn until nothing moves. A common
factor of all channels changes no precision; it is taken out, so that channels of a pair that is balanced have 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir import constants, patterns

__all__ = ["Link", "balance", "output_channels", "peaks"]

_SETTLED = 1e-4
"""Largest change of a factor in one sweep that counts as none."""
_NEXT_TO_NOTHING = 2.0**-20
"""Share of a layer's largest weight below which a channel counts as dead: no common scale could keep it, and its
factor would pull that of all others with it."""


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """A pair of layers as numbers.

    Attributes:
        first: Index of the layer before.
        second: Index of the layer behind.
        spread: Inputs of the layer behind per channel.
        applied: Factors that were moved before.
    """

    first: int
    second: int
    spread: int
    applied: NDArray[np.float64]


def peaks(node: ir.Node) -> NDArray[np.float64]:
    """Largest absolute weight over the taps of a kernel: ``[groups, outputs / group, inputs / group]``."""
    weight = constants.array(node.inputs[1])
    if weight is None:
        raise ValueError(f"the weight of {node.name} is not constant")
    size: NDArray[np.float64] = np.abs(weight).astype(np.float64)
    if node.op_type == "Gemm":
        return (size if patterns.integer(node, "transB", 0) else size.T)[None]
    groups = patterns.integer(node, "group", 1)
    split: NDArray[np.float64] = size.reshape(groups, size.shape[0] // groups, size.shape[1], -1).max(-1)
    return split if node.op_type == "Conv" else split.transpose(0, 2, 1)


def output_channels(peak: NDArray[np.float64]) -> int:
    """Number of output channels of a layer, from its ``peaks``."""
    groups, outputs, _ = peak.shape
    return int(groups * outputs)


def balance(
    layers: Sequence[NDArray[np.float64]], links: Sequence[Link], *, growth: float, sweeps: int = 100
) -> list[NDArray[np.float64]]:
    """Factors of every link: divide the outputs of its first layer by them, multiply the inputs of its second.

    Args:
        layers: ``peaks`` of every layer; left as they are.
        links: The pairs, in graph order; a layer is first of at most one and second of at most one.
        growth: How much larger a channel may become at most, counted from the original; ``inf`` sets no limit.
        sweeps: Most visits of every pair.

    Returns:
        What is still to be done: all 1 where earlier factors have balanced a pair.
    """
    scaled = [layer.copy() for layer in layers]
    total = [link.applied.copy() for link in links]
    for _ in range(sweeps):
        moved = 0.0
        for index, link in enumerate(links):
            step = _step(scaled[link.first], scaled[link.second], link.spread, total[index], growth)
            total[index] *= step
            moved = max(moved, float(np.abs(step - 1).max(initial=0.0)))
            _scale(scaled[link.first], scaled[link.second], link.spread, step)
        if moved < _SETTLED:
            break
    return [factors / link.applied for factors, link in zip(total, links, strict=True)]


def _step(
    first: NDArray[np.float64], second: NDArray[np.float64], spread: int, total: NDArray[np.float64], growth: float
) -> NDArray[np.float64]:
    """What the factors so far must be multiplied with to balance one pair; channels without weights keep theirs."""
    rows = first.max(axis=2, initial=0.0).ravel()
    columns = second.max(axis=1, initial=0.0).reshape(-1, spread).max(axis=1)
    live = (rows > _floor(rows)) & (columns > _floor(columns))
    wanted = total.copy()
    if live.any():
        wanted[live] = np.sqrt(rows[live] / columns[live]) * total[live]
        wanted[live] /= np.exp(np.log(wanted[live]).mean())
        wanted[live] = np.maximum(wanted[live], 1 / growth)
    return wanted / total


def _floor(sizes: NDArray[np.float64]) -> float:
    return float(sizes.max(initial=0.0)) * _NEXT_TO_NOTHING


def _scale(first: NDArray[np.float64], second: NDArray[np.float64], spread: int, factors: NDArray[np.float64]) -> None:
    first /= factors.reshape(first.shape[0], first.shape[1], 1)
    second *= np.repeat(factors, spread).reshape(second.shape[0], 1, second.shape[2])
