"""Operators that multiply and shift each channel: BatchNormalization, and Mul, Div, Add, Sub with a constant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir.constants import array
from qcompiler.ir.operators import has_type
from qcompiler.ir.patterns import rank
from qcompiler.ir.statistics import set_statistics, statistics
from qcompiler.ir.uses import is_used

__all__ = ["Affine", "batch_norm", "elementwise", "keep_statistics"]

_Float: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Affine:
    """``y[:, c] = x[:, c] * scale[c] + shift[c]``, in float64.

    Attributes:
        scale: One factor per channel.
        shift: One offset per channel.
        mean: Mean of each channel of ``y``, where training left it.
        variance: Variance of each channel of ``y``.
    """

    scale: _Float
    shift: _Float
    mean: _Float | None = None
    variance: _Float | None = None

    def then(self, other: Affine) -> Affine:
        """This one, followed by ``other``."""
        mean, variance = other.mean, other.variance
        if mean is None and self.mean is not None and self.variance is not None:
            mean, variance = self.mean * other.scale + other.shift, self.variance * other.scale**2
        return Affine(self.scale * other.scale, self.shift * other.scale + other.shift, mean, variance)


def batch_norm(node: ir.Node) -> tuple[Affine | None, str]:
    """What a BatchNormalization computes, or why that is not fixed.

    ``y = gamma * (x - mean) / sqrt(variance + epsilon) + beta``. Over the training data ``y`` has the mean ``beta`` and
    the variance ``gamma² * variance / (variance + epsilon)``, which is ``gamma²`` except in channels without signal.
    """
    if node.attributes.get_int("training_mode", 0):
        return None, "it is in training mode"
    if any(is_used(output) for output in node.outputs[1:]):
        return None, "its further outputs are used"
    arrays = [array(value) for value in node.inputs[1:5]]
    if len(arrays) < 4 or any(item is None for item in arrays):
        return None, "its parameters are not constant"
    gamma, beta, mean, variance = (np.asarray(item, np.float64).reshape(-1) for item in arrays)
    spread = variance + float(node.attributes.get_float("epsilon", 1e-5) or 0.0)
    if not (spread > 0).all():
        return None, "a variance is not positive"
    scale = gamma / np.sqrt(spread)
    return Affine(scale, beta - mean * scale, beta, gamma**2 * np.maximum(variance, 0) / spread), ""


def elementwise(node: ir.Node, data: ir.Value, channels: int) -> Affine | None:
    """What Mul, Div, Add or Sub with one constant per channel computes; ``None`` for anything else.

    Args:
        node: The consumer.
        data: Its input whose axis 1 holds the channels.
        channels: How many there are.
    """
    if not has_type(node, "Mul", "Div", "Add", "Sub") or node.inputs[0] is node.inputs[1]:
        return None
    on_left = node.inputs[0] is data
    if not on_left and not has_type(node, "Mul", "Add"):
        return None
    constant = array(node.inputs[1 if on_left else 0])
    if constant is None or constant.dtype.kind != "f":
        return None
    values = _per_channel(constant, channels, rank(data))
    if values is None or (node.op_type == "Div" and not values.all()):
        return None
    one, zero = np.ones(channels), np.zeros(channels)
    return {
        "Mul": lambda: Affine(values, zero),
        "Div": lambda: Affine(1 / values, zero),
        "Add": lambda: Affine(one, values),
        "Sub": lambda: Affine(one, -values),
    }[node.op_type]()


def _per_channel(constant: NDArray[Any], channels: int, dimensions: int | None) -> _Float | None:
    """The constant as one number per channel, where it broadcasts along axis 1 alone."""
    if dimensions is None or dimensions < 2 or constant.size != channels or constant.ndim > dimensions:
        return None
    shape = (1,) * (dimensions - constant.ndim) + constant.shape
    if shape[1] != channels:
        return None
    return constant.astype(np.float64).reshape(-1)


def keep_statistics(value: ir.Value, affine: Affine) -> None:
    """Write what is known about the affine's result on the value that now holds it."""
    if affine.mean is not None and affine.variance is not None:
        set_statistics(value, affine.mean, affine.variance)
    elif (known := statistics(value)) is not None:
        set_statistics(value, known[0] * affine.scale + affine.shift, known[1] * affine.scale**2)
