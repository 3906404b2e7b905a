"""Which weights of a layer share a scale, and which scales its target can hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.passes.calibrate.bias_room import least_factor
from qcompiler.passes.round._layers import RoundLayer
from qcompiler.passes.round._scales import Parts
from qcompiler.quant import state
from qcompiler.quant.params import MINIMUM_SCALE, QParams
from qcompiler.quant.weight_scales import neighbours

if TYPE_CHECKING:
    from qcompiler.target.schema import Target

__all__ = ["ScaleMap"]


@dataclass(frozen=True, slots=True, eq=False)
class ScaleMap:
    """Between the parameters of a layer and ``(groups, parts, rows)``, in which scales are fitted.

    Attributes:
        layer: The layer.
        index: Which flattened parameter each entry is.
        parts: Which columns share a scale.
    """

    layer: RoundLayer
    index: NDArray[np.int64]
    parts: Parts

    @classmethod
    def of(cls, layer: RoundLayer, target: Target | None) -> ScaleMap:
        """Read it off the layer's format and the target's limits."""
        owners, form = layer.owners(), layer.quant.format
        columns = np.zeros(layer.columns, np.int64)
        if owners.shape[2] > 1:
            columns = np.unique(owners[0, 0], return_inverse=True)[1].reshape(-1)
        firsts = np.unique(columns, return_index=True)[1]
        power = form.power_of_two or (target is not None and target.power_of_two_scales)
        floor = max(MINIMUM_SCALE, 0.0 if target is None else target.scale_floor)
        shared = layer.quant.tie is not None  # with other tensors: such scales stay
        before = layer.params.scale.reshape(-1)[owners[:, :, firsts]].transpose(0, 2, 1).astype(np.float64)
        least = np.maximum(_bias_room(layer, before), floor)
        multiples = form.block is not None and state.edge_quant(layer.node, 0) is None

        def project(scale: NDArray[np.float64]) -> NDArray[np.float64]:
            if shared:
                return before
            held = np.maximum(scale, least)
            if power:
                nearest = np.exp2(np.rint(np.log2(held)))
                return np.where(nearest < least, 2 * nearest, nearest)
            held = held.astype(np.float32).astype(np.float64)
            return _multiples(held) if multiples else held

        parts = Parts(
            columns,
            firsts.size,
            form.axis is None,
            not form.symmetric and not shared,
            project,
            (form.minimum, form.maximum),
        )
        return cls(layer, owners[:, :, firsts].transpose(0, 2, 1), parts)

    def read(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Scales and zero points as they are."""
        params = self.layer.params
        scale, zero = (item.reshape(-1)[self.index].astype(np.float64) for item in (params.scale, params.zero_point))
        return scale, zero

    def write(self, scale: NDArray[Any], zero: NDArray[Any]) -> QParams:
        """The parameters of the layer's format that hold these scales and zero points."""
        old = self.layer.params
        flat_scale, flat_zero = old.scale.reshape(-1).copy(), old.zero_point.reshape(-1).copy()
        flat_scale[self.index] = scale
        flat_zero[self.index] = np.rint(zero)
        return QParams(flat_scale.reshape(old.scale.shape), flat_zero.reshape(old.zero_point.shape))


def _bias_room(layer: RoundLayer, scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """The least scales ``(groups, parts, rows)`` at which the layer's integer bias fits; 0 where there is none."""
    factor = least_factor(layer.node)
    if factor is None:
        return np.zeros_like(scale)
    if layer.quant.format.axis is None:
        factor = factor.max(keepdims=True)
    whole = np.broadcast_to(factor, (layer.groups * layer.rows,)).reshape(layer.groups, 1, layer.rows)
    least: NDArray[np.float64] = scale * whole
    return least


def _multiples(scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest multiples of one scale per output channel (``quant/weight_scales.py``)."""
    rows = np.moveaxis(scale, 1, 2).astype(np.float32)
    lower, upper = neighbours(rows.reshape(-1, rows.shape[2]))
    flat = rows.reshape(lower.shape)
    nearest = np.where(flat - lower < upper - flat, lower, upper)
    return np.moveaxis(nearest.reshape(rows.shape), 2, 1).astype(np.float64)
