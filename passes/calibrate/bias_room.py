"""Room for biases: no bias may overflow 32 bits at the scale ``s_x * s_w`` of its accumulator.

A channel whose weights are next to nothing (pruned, or folded with a vanishing BatchNorm factor) has a tiny ``s_w``, so
the code ``b / (s_x * s_w)`` of an ordinary bias needs more than 32 bits; saturated, the bias is gone. Such a channel
gets the least weight scale at which its bias stays below ``2^30``. What the weights lose by that is, times the largest
activation, some ``2^-22`` of the bias: nothing that the result's 8 or 16 bits could show. What fits scales later lets
none shrink below that (``least_factor``), and what changes biases makes room again.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir import constants
from qcompiler.passes.place.biases import accumulator_scale
from qcompiler.pipeline.base import Context
from qcompiler.quant import state
from qcompiler.quant.operators import BIAS_INPUT, WEIGHT_INPUT
from qcompiler.quant.params import QParams

__all__ = ["least_factor", "make_room"]

_LARGEST: Final = 2.0**30
"""Largest code of a bias: half of what 32 bits hold, because bias correction may still add to it."""
_LEAST: Final = 2.0**-126
"""Least normal float32: a product of scales below it cannot be stored to full precision."""


def make_room(graph: ir.Graph, ctx: Context) -> None:
    """Widen weight scales of the graph's integer nodes to where their biases fit."""
    for node in graph:
        factor = least_factor(node)
        if factor is not None and (factor > 1.0).any():
            _widen(node, np.maximum(factor, 1.0), ctx)


def least_factor(node: ir.Node) -> NDArray[np.float64] | None:
    """By what the scales of a node's weight may be multiplied at the least, so that its bias keeps its room.

    Shape ``(output channels,)``, or ``(1,)`` where one scale or one bias serves all. ``None`` where no bias is stored
    as an integer.
    """
    scale = accumulator_scale(node)
    bias = None if scale is None else constants.array(node.inputs[BIAS_INPUT])
    if scale is None or bias is None:
        return None
    least = np.maximum(np.abs(bias.astype(np.float64)).reshape(-1) / _LARGEST, _LEAST)
    return np.asarray(least / scale)


def _widen(node: ir.Node, factor: NDArray[np.float64], ctx: Context) -> None:
    """Multiply the weight's scales by at least ``factor``, shape ``(output channels,)`` or ``(1,)``."""
    quant = state.edge_quant(node, WEIGHT_INPUT)
    if quant is None or quant.params is None:
        return
    old = quant.params.scale.astype(np.float64)
    # Scales are as many as channels, one for all, or one for the same channel of every group.
    shared = factor.max() if old.ndim == 0 else np.broadcast_to(factor, (max(factor.size, old.size),))
    wider = old * (shared if old.ndim == 0 else np.reshape(shared, (-1, old.size)).max(axis=0))
    if ctx.target is not None and ctx.target.power_of_two_scales:
        wider = np.exp2(np.ceil(np.log2(wider)))
    # Zero stays the same code, and the range only grows: the zero point remains right.
    state.replace_edge_quant(
        node, WEIGHT_INPUT, quant.with_params(QParams(wider.astype(np.float32), quant.params.zero_point))
    )
    count = int((factor > 1.0).sum())
    ctx.note(f"{node.name}: weight scales widened for {count} of {factor.size} biases that would need over 32 bits")
