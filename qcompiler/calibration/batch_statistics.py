"""How far samples are from the statistics that BatchNormalization kept of the training data.

Each BatchNormalization holds the mean ``μ`` and the variance ``v`` of every channel of its input. For samples with mean
``m`` and deviation ``s`` the distance of a channel is ``((m - μ) / σ)² + ((s - √v) / σ)²`` with ``σ = √(v + ε)``, and
that of a model the sum over layers of the mean over channels (ZeroQ, arXiv 2001.00281, equation 3; divided by ``σ``, so
that channels count alike, and channels without signal not at all).

With ``n`` elements in a channel, ``∂m/∂x = 1/n`` and ``∂s/∂x = (x - m) / (n s)`` give the gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir.constants import array

__all__ = ["Target", "distance", "targets"]


@dataclass(frozen=True, eq=False)
class Target:
    """What one BatchNormalization knows of its input.

    Attributes:
        value: The input; channels lie along axis 1.
        mean: Mean of each channel.
        deviation: Standard deviation of each channel.
        unit: Deviation that the normalization divides by: never 0.
    """

    value: ir.Value
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    unit: NDArray[np.float64]


def targets(model: ir.Model) -> list[Target]:
    """The statistics in a model, in the order of the graph."""
    found = []
    for node in model.graph:
        if node.op_type != "BatchNormalization" or node.attributes.get_int("training_mode", False):
            continue
        kept = [array(value) for value in node.inputs[3:5]]
        data = node.inputs[0]
        if data is None or len(kept) < 2 or kept[0] is None or kept[1] is None:
            continue
        variance = np.maximum(kept[1].astype(np.float64).reshape(-1), 0.0)
        epsilon = float(node.attributes.get_float("epsilon", 1e-5) or 0.0)
        unit = np.sqrt(variance + max(epsilon, 1e-12))
        found.append(Target(data, kept[0].astype(np.float64).reshape(-1), np.sqrt(variance), unit))
    return found


def distance(
    wanted: Sequence[Target], tensors: Mapping[str, NDArray[Any]]
) -> tuple[float, dict[str, NDArray[np.float32]]]:
    """Distance of a batch, and its gradient with respect to each tensor.

    Args:
        wanted: The statistics.
        tensors: The input of each BatchNormalization, by name; shape ``(samples, channels, …)``.
    """
    total = 0.0
    gradients: dict[str, NDArray[np.float32]] = {}
    for target in wanted:
        name = str(target.value.name)
        loss, gradient = _layer(target, tensors[name])
        total += loss
        gradients[name] = gradients[name] + gradient if name in gradients else gradient
    return total, gradients


def _layer(target: Target, data: NDArray[Any]) -> tuple[float, NDArray[np.float32]]:
    others = (0, *range(2, data.ndim))
    channels = data.shape[1]
    count = data.size // channels
    shape = (1, channels, *(1 for _ in range(data.ndim - 2)))
    mean = data.mean(axis=others, dtype=np.float64)
    middle = data - mean.astype(data.dtype).reshape(shape)
    deviation = np.sqrt(np.square(middle).mean(axis=others, dtype=np.float64) + 1e-12)
    first, second = (mean - target.mean) / target.unit, (deviation - target.deviation) / target.unit
    scale = 2.0 / (channels * count) / target.unit
    gradient = (scale * second / deviation).astype(np.float32).reshape(shape) * middle
    gradient += (scale * first).astype(np.float32).reshape(shape)
    return float(np.mean(np.square(first) + np.square(second))), gradient
