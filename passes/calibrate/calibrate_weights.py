"""calibrate-weights: give every constant scale and zero point, from its own values.

One tensor is looked at at a time and nothing of it is kept, so memory peaks at the largest tensor. ``minmax`` covers
every value; ``mse`` takes for each scale (tensor, channel or block) the range at which the squared error of all its
values is least, ``hessian`` that at which their products with the calibration inputs err least (``importance.py``). In
weight-only formats scales of blocks become multiples of one per row (``quant/weight_scales.py``), before codes are
rounded. The search evaluates the true error of every candidate and starts at the full range, so it is never worse.
Behind ``calibrate`` scales are widened where a bias would not fit 32 bits (``bias_room``).
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.errors import ModelError, PassError
from qcompiler.ir.constants import is_constant
from qcompiler.passes.calibrate.bias_room import make_room
from qcompiler.passes.calibrate.calibrate import Wish, wishes
from qcompiler.passes.calibrate.clip_search import least_squares, squared_error
from qcompiler.passes.calibrate.importance import importance, observe
from qcompiler.passes.calibrate.scales import revive_dead, scales_for
from qcompiler.pipeline.base import Context, Fact, Pass
from qcompiler.quant import state
from qcompiler.quant.format import BYTE, QFormat
from qcompiler.quant.operators import WEIGHT_INPUT
from qcompiler.quant.params import QParams
from qcompiler.quant.weight_scales import neighbours

__all__ = ["CalibrateWeights", "in_groups"]


@dataclass(frozen=True)
class CalibrateWeights(Pass):
    """Find scales of weights and other constants.

    Attributes:
        method: ``minmax`` covers every value; ``mse`` clips where that lowers the squared error; ``auto`` does so below
            8 bits, where a clipped outlier costs less than coarse steps for all others, and where scales are powers of
            two, the least of which that covers every value may be twice as coarse as needed. ``hessian`` clips where
            that lowers the squared error of the layer's output to first order: errors count by the mean square of
            what the weight is multiplied with. It needs calibration samples, and is ``mse`` without. ``auto`` does so
            for weights of few bits beside real activations: measured to help language models, and to harm
            convolutions, whose inputs behind a Relu are correlated.
    """

    name: ClassVar[str] = "calibrate-weights"
    before: ClassVar[frozenset[Fact]] = frozenset({Fact.QDQ})
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.FORMATS})
    provides: ClassVar[frozenset[Fact]] = frozenset({Fact.CALIBRATED})

    method: Literal["auto", "minmax", "mse", "hessian"] = "auto"

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Complete the decisions on initializers."""
        pending: dict[ir.Value, list[Wish]] = defaultdict(list)
        for wish in wishes(model.graph):
            if is_constant(wish.value) and wish.quant.params is None:
                pending[wish.value].append(wish)
        seen = observe(model, self._weighted(pending, ctx), ctx)
        ranges: dict[tuple[str, QFormat], list[Wish]] = defaultdict(list)
        for index, (value, group) in enumerate(pending.items()):
            ctx.progress("weights", index, len(pending))
            found: dict[QFormat, QParams] = {}
            for wish in group:
                form = wish.quant.format
                if form not in found:
                    costs = importance(value, seen)
                    found[form] = self._params(value, form, ctx, costs, whole_multiples=_beside_real_activations(wish))
                wish.grant(wish.quant.with_params(found[form]))
                ctx.edit.count += 1
                if wish.quant.tie is not None:
                    ranges[wish.quant.tie, form].append(Wish(value, wish.quant.with_params(found[form]), wish.edge))
        for tied in ranges.values():
            _share_widest(tied)
        make_room(model.graph, ctx)

    def _params(
        self,
        value: ir.Value,
        form: QFormat,
        ctx: Context,
        costs: NDArray[np.float32] | None = None,
        *,
        whole_multiples: bool = False,
    ) -> QParams:
        groups, shape = in_groups(_floats(value), form, str(value.name))
        weights = None if costs is None else in_groups(costs, form, str(value.name))[0]
        with np.errstate(invalid="ignore"):
            low = groups.min(axis=1, initial=0.0).astype(np.float64)
            high = groups.max(axis=1, initial=0.0).astype(np.float64)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise ModelError("holds NaN or infinity", where=f"weight '{value.name}'", hint="the float model is broken")
        whole = form.along(None)
        params = scales_for(low, high, whole, ctx.target)
        if self._searches(form):
            make = partial(scales_for, form=whole, target=ctx.target)
            params = least_squares(groups, low, high, params, make, whole, weights)
        params = revive_dead(params, low, high)
        if whole_multiples and form.block is not None:
            params = _multiples(groups, params, form, shape, weights)
        return QParams(params.scale.reshape(shape), params.zero_point.reshape(shape))

    def _weighted(self, pending: dict[ir.Value, list[Wish]], ctx: Context) -> list[ir.Value]:
        """Constants whose errors count by what they cost."""
        if self.method == "hessian":
            return list(pending)
        if self.method != "auto" or ctx.calibration is None:
            return []
        return [
            value
            for value, group in pending.items()
            if any(_beside_real_activations(wish) and self._searches(wish.quant.format) for wish in group)
        ]

    def _searches(self, form: QFormat) -> bool:
        return self.method in ("mse", "hessian") or (self.method == "auto" and (form.bits < BYTE or form.power_of_two))


def _beside_real_activations(wish: Wish) -> bool:
    """Whether a weight is multiplied by real activations."""
    return wish.edge is not None and wish.edge[1] == WEIGHT_INPUT and state.edge_quant(wish.edge[0], 0) is None


def _multiples(
    groups: NDArray[Any], params: QParams, form: QFormat, shape: tuple[int, ...], weights: NDArray[Any] | None
) -> QParams:
    """The parameters with scales that are multiples of their row's: of both neighbours the one with less error."""
    axis = (form.axis or 0) % len(shape)

    def flat(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.moveaxis(rows, -1, axis).reshape(-1)

    rows = np.moveaxis(params.scale.reshape(shape), axis, -1)
    candidates = [QParams(flat(scale), params.zero_point) for scale in neighbours(rows)]
    lower, upper = (squared_error(groups, candidate, form.along(None), weights) for candidate in candidates)
    scale = np.where(upper <= lower, candidates[1].scale, candidates[0].scale)
    return QParams(scale.astype(np.float32), params.zero_point)


def _floats(value: ir.Value) -> NDArray[np.float32]:
    tensor = value.const_value
    if tensor is None:
        raise PassError("has no content", where=f"weight '{value.name}'")
    if not tensor.dtype.is_floating_point():
        raise PassError(f"is {tensor.dtype.name.lower()}, only floats are quantized", where=f"weight '{value.name}'")
    return np.asarray(tensor.numpy(), np.float32)


def in_groups(array: NDArray[Any], form: QFormat, name: str = "") -> tuple[NDArray[Any], tuple[int, ...]]:
    """Values that share a scale as the rows of a matrix, and the shape of the scales.

    A short last block is filled up with zeros, which every range holds and every format represents exactly.

    Raises:
        PassError: The tensor has no such axis.
    """
    if form.axis is None:
        return array.reshape(1, -1), ()
    if not -array.ndim <= form.axis < array.ndim:
        raise PassError(f"of shape {array.shape} has no axis {form.axis}", where=f"weight '{name}'")
    axis = form.axis % array.ndim
    if form.block is None:
        channels = array.shape[axis]
        return np.moveaxis(array, axis, 0).reshape(channels, array.size // max(channels, 1)), (channels,)
    count = -(-array.shape[axis] // form.block)
    missing = count * form.block - array.shape[axis]
    if missing:
        array = np.pad(array, [(0, missing if i == axis else 0) for i in range(array.ndim)])
    split = array.reshape(*array.shape[:axis], count, form.block, *array.shape[axis + 1 :])
    scales = (*array.shape[:axis], count, *array.shape[axis + 1 :])
    return np.moveaxis(split, axis + 1, -1).reshape(math.prod(scales), form.block), scales


def _share_widest(tied: list[Wish]) -> None:
    """Constants tied together (and to nothing computed) take the widest of their scales."""
    if len(tied) < 2:
        return
    found = [wish.quant.params for wish in tied if wish.quant.params is not None]
    widest = max(found, key=lambda params: float(params.scale.max(initial=0.0)))
    for wish in tied:
        wish.grant(wish.quant.with_params(widest))
