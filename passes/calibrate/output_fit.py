"""Scale and shift per output channel that bring the outputs of quantized layers closest to the float model's.

For outputs ``y`` and what the quantized layer gives, ``z``, the least of ``E (y - a z - d)²`` over ``a`` and ``d`` is
at ``a = cov(y, z) / var(z)`` and ``d = E y - a E z`` (least squares): on the samples it was found on it is never above
what ``a = 1, d = 0`` leaves. Layers are visited in graph order with everything before already corrected, as in
``bias_sequential``; weights of samples that are padding are 0. A channel of which ``z`` hardly moves keeps ``a = 1``,
and so does one whose bias would have no room at the finer scale (``bias_room``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.passes.calibrate.bias_room import least_factor
from qcompiler.passes.calibrate.linear import Layer
from qcompiler.passes.calibrate.side_by_side import at_outputs
from qcompiler.pipeline.base import Context

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset

__all__ = ["Fit", "Sums", "fits"]

_LEAST: Final = 0.5
_MOST: Final = 2.0
"""Bounds of ``a``: beyond them the samples of a channel say nothing about it."""
_STILL: Final = 1e-12
"""Share of its mean square below which the variance of ``z`` counts as none."""

Scaled = Literal["no", "tensor", "channel"]
"""Whether ``a`` is 1, one number for a layer, or one per channel."""


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """``a`` and ``d`` of one layer, shape ``(output channels,)`` each."""

    scale: NDArray[np.float64]
    shift: NDArray[np.float64]


@dataclass(slots=True, eq=False)
class Sums:
    """Weighted sums over samples and positions, per channel.

    Attributes:
        axis: The channel axis.
        weight: Sum of weights; so follow those of ``y``, ``z``, ``y z`` and ``z z`` with them.
    """

    axis: int
    weight: NDArray[np.float64] | float = 0.0
    sums: list[NDArray[np.float64] | float] = field(default_factory=lambda: [0.0] * 4)

    def add(self, wanted: NDArray[Any], found: NDArray[Any], weights: NDArray[Any] | None) -> None:
        """Count ``y`` and ``z`` of one sample; ``weights`` broadcasts to them."""
        others = tuple(i for i in range(wanted.ndim) if i != self.axis)
        share = np.ones((), np.float64) if weights is None else np.asarray(weights, np.float64)
        y, z = wanted.astype(np.float64), found.astype(np.float64)
        self.weight = self.weight + np.broadcast_to(share, y.shape).sum(axis=others)
        for index, product in enumerate((y, z, y * z, z * z)):
            self.sums[index] = self.sums[index] + (product * share).sum(axis=others)

    def fit(self, scaled: Scaled, least: NDArray[np.float64] | float = 0.0) -> Fit:
        """The best scale and shift; a scale below ``least`` (one number, or one per channel) becomes 1."""
        total = np.maximum(np.asarray(self.weight, np.float64), 1e-12)
        y, z, yz, zz = (np.asarray(item, np.float64) / total for item in self.sums)
        covariance, variance = yz - y * z, np.maximum(zz - z * z, 0)
        scale = np.ones(y.size)
        if scaled == "tensor" and variance.sum() > 0:
            scale[:] = (covariance * total).sum() / (variance * total).sum()
        elif scaled == "channel":
            moving = variance > _STILL * np.maximum(zz, 1e-300)
            scale[moving] = covariance[moving] / variance[moving]
        least = np.maximum(np.max(least) if scaled == "tensor" else least, _LEAST)
        scale = np.where((scale >= least) & (scale <= _MOST), scale, 1.0)
        return Fit(scale, y - scale * z)


def fits(
    model: ir.Model, layers: Sequence[Layer], scaled: Sequence[Scaled], dataset: Dataset, ctx: Context
) -> list[Fit]:
    """The fit of every layer, in graph order."""
    found = []
    for kind, stop in zip(scaled, at_outputs(model, layers, dataset, ctx, "correct outputs"), strict=True):
        sums = Sums(stop.axis)
        for index, (wanted, have) in enumerate(zip(stop.wanted, stop.found, strict=True)):
            sums.add(wanted, have, stop.weights(index))
        room = least_factor(stop.layer.node)
        fit = sums.fit(kind, 0.0 if room is None else room)
        stop.correct(fit.scale, fit.shift)
        found.append(fit)
    return found
