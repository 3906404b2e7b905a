"""From a range to scales that the target can hold."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from qcompiler.quant.format import QFormat
from qcompiler.quant.params import QParams, params_from_range

if TYPE_CHECKING:
    from qcompiler.target.schema import Target

__all__ = ["revive_dead", "scales_for"]


def scales_for(low: ArrayLike, high: ArrayLike, form: QFormat, target: Target | None) -> QParams:
    """Parameters for a range, within the target's limits on scales."""
    if target is None:
        return params_from_range(low, high, form)
    if target.power_of_two_scales:
        form = replace(form, power_of_two=True)
    return params_from_range(low, high, form, scale_floor=target.scale_floor)


def revive_dead(params: QParams, low: ArrayLike, high: ArrayLike) -> QParams:
    """Give slices that are all zero the least scale of the others.

    Any scale represents zeros exactly, but the scale of a bias is the product of this one and the input's: a scale
    of 1 among scales of 1e-3 would round the bias of that channel away.
    """
    dead = (np.asarray(low) == 0) & (np.asarray(high) == 0)
    if not dead.any() or dead.all():
        return params
    return QParams(np.where(dead, params.scale[~dead].min(), params.scale).astype(np.float32), params.zero_point)
