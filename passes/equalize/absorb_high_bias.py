"""absorb-high-bias: what a channel never falls below is added by the next layer's bias, not carried by the activation.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, section 4.1.4: a channel
that stays above ``c`` behind its Relu wastes the codes below. ``Relu(x) = Relu(x - c) + c`` for ``x >= c >= 0``, so
``c`` leaves the bias of the layer and, multiplied by the weights that read it, joins the bias of the next one. Where no
activation lies in between the same holds for every ``c``, negative ones too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.analysis.intervals import Intervals
from qcompiler.ir import patterns
from qcompiler.ir.statistics import statistics
from qcompiler.passes.equalize._layers import LAYERS
from qcompiler.passes.equalize._names import rename
from qcompiler.passes.equalize._shifts import Path, path_behind
from qcompiler.passes.equalize._upper_bounds import set_bounds, why_no_bounds
from qcompiler.passes.normalize._affine import Affine, keep_statistics
from qcompiler.passes.normalize._linear import absorb_after, absorb_before
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves

__all__ = ["AbsorbHighBias"]

_SUFFIX: Final = "_absorbed"
_DONE: Final = "qcompiler.absorbed"
"""Key in the meta of a layer: the pass that shifted its channels. What rounding leaves of a shift is no new one."""
_WORTH: Final = 1e-3
"""Share of its range that a channel must lie away from 0 to be shifted."""
_Extent = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Where the channels of a tensor lie: least and largest, shape ``(channels,)`` each."""


@dataclass(frozen=True)
class AbsorbHighBias(Pass):
    """Shift channels that stay away from 0 towards it, and let the next bias add what they lost.

    Behind a Relu or Clip, ``by=proof`` shifts by the least value that interval analysis proves for every input within
    ``[input_low, input_high]``: outputs stay equal. ``by=statistics`` shifts by ``mean - sigmas * deviation`` of the
    kept BatchNormalization statistics, or by the least value of the calibration samples where there are none; a value
    below that is cut off, so outputs are *not* proven equal and the pass then promises nothing. Without an activation
    in between any shift is exact; its size comes from the same statistics either way.

    Attributes:
        by: What a shift behind an activation rests on.
        sigmas: How many standard deviations below its mean a channel is taken to reach; 3 in the paper, which cuts off
            too much of mobilenetv1_025 (edge-npu-per-tensor, 64 samples, 300 images: KL 0.065 without the pass, 0.087
            with 3, 0.065 with 6, 0.064 by proof).
        input_low: Smallest number any floating-point graph input takes.
        input_high: Largest number any floating-point graph input takes.
    """

    by: Literal["proof", "statistics"] = "proof"
    sigmas: float = 6.0
    input_low: float = -65536.0
    input_high: float = 65536.0

    name: ClassVar[str] = "absorb-high-bias"
    before: ClassVar[frozenset[Fact]] = frozenset({Fact.QDQ})
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.TYPED, Fact.SORTED, Fact.CANONICAL})
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def __post_init__(self) -> None:
        """Statistics are no proof: promise nothing then."""
        if self.by == "statistics":
            object.__setattr__(self, "preserves", Preserves.NOTHING)

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Apply; see the class."""
        paths = []
        for node in model.graph:
            if patterns.has_type(node, *LAYERS):
                path = path_behind(node)
                if isinstance(path, str):
                    ctx.skip(node, path)
                else:
                    paths.append(path)
        if not paths:
            return
        seen = _observed(model, [path.first.outputs[0] for path in paths], self.sigmas, ctx)
        proven = _proven(model, self.input_low, self.input_high) if self.by == "proof" else None
        count = shifted = 0
        for path in paths:
            value = path.first.outputs[0]
            if path.first.meta.get(_DONE) == self:
                continue
            known = _extent(proven, value) if proven is not None and path.rectified else seen.get(value)
            shift = None if known is None else _shift(path, *known)
            if shift is None or not shift.any():
                continue
            if reason := why_no_bounds(path.bound, ctx.target):
                ctx.skip(path.first, reason)
                continue
            _move(path, shift, ctx)
            path.first.meta[_DONE] = self
            shifted, count = shifted + 1, count + int((shift != 0).sum())
        basis = f"proven for inputs within [{self.input_low:g}, {self.input_high:g}]"
        if self.by == "statistics":
            basis = "by statistics, not proven"
        ctx.note(f"absorbed the bias of {count} channels behind {shifted} of {len(paths)} layers ({basis})")


def _observed(model: ir.Model, values: list[ir.Value], sigmas: float, ctx: Context) -> dict[ir.Value, _Extent]:
    """Where channels lie, from kept statistics, else from calibration samples; nothing where there are neither."""
    found: dict[ir.Value, _Extent] = {}
    for value in values:
        if (known := statistics(value)) is not None:
            mean, deviation = known[0].astype(np.float64), sigmas * np.sqrt(np.maximum(known[1], 0).astype(np.float64))
            found[value] = mean - deviation, mean + deviation
    rest = [value for value in values if value not in found]
    if rest and ctx.calibration is not None:
        from qcompiler.calibration import engine, row_weights
        from qcompiler.calibration.minmax import MinMax

        seen = {str(value.name): MinMax(1) for value in rest}
        engine.collect(model, ctx.calibration, seen, ctx=ctx, row_weights=row_weights.of(ctx.calibration))
        found |= {value: (seen[str(value.name)].low, seen[str(value.name)].high) for value in rest}
    return found


def _proven(model: ir.Model, low: float, high: float) -> Intervals:
    known = Intervals(model.graph, low=low, high=high, unknown={"MatMul"})
    for node in model.graph:
        known.visit(node)
    return known


def _extent(known: Intervals, value: ir.Value) -> _Extent | None:
    interval = known.of(value)
    return (interval.low, interval.high) if interval.axis == 1 else None


def _shift(path: Path, low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """What to take from each channel: its distance from 0, 0 for those that reach or nearly reach it."""
    below = np.zeros(low.size) if path.rectified else np.minimum(high, 0.0)
    shift = np.maximum(low, 0.0) + below
    if path.limits is not None:
        shift = np.where(shift < path.limits, shift, 0.0)  # all of it above the bound: constant, no matter of biases
    worth = np.isfinite(shift) & (np.abs(shift) > _WORTH * np.maximum(np.abs(low), np.abs(high)))
    return np.where(worth, shift, 0.0)


def _move(path: Path, shift: NDArray[np.float64], ctx: Context) -> None:
    ones = np.ones(shift.size)
    absorb_after(path.first, Affine(ones, -shift), ctx.edit)
    spread = shift[path.spread]
    absorb_before(path.last, Affine(np.ones(spread.size), spread), ctx.edit)
    for value in path.values:
        if patterns.rank(value) == patterns.rank(path.first.outputs[0]):
            keep_statistics(value, Affine(ones, -shift))
        rename(value, _SUFFIX, ctx.edit)
    if path.bound is not None and path.limits is not None:
        set_bounds(path.bound, path.limits - shift, ctx.edit)
