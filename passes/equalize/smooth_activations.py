"""smooth-activations: move factors and shifts of channels from activations, which share one scale, into weights.

A few channels of a transformer's activations are many times larger than the others, and some lie far from zero. With
one scale for the tensor, most codes are spent on them. Dividing channel ``j`` by ``s_j`` and multiplying row ``j`` of
every weight that reads it changes nothing in real numbers, and both get alike where
``s_j = max|x_j|^alpha / max|w_j|^(1 - alpha)`` (SmoothQuant, arXiv 2211.10438, section 4). The middle of a channel's
range can be taken out as well, and added to the biases behind (Outlier Suppression+, arXiv 2304.09145, section 4.1).

What makes a channel divides it: a norm by its factor and shift, a layer by its columns. Through Relu and products with
other tensors factors pass; through attention both do, from values to the output projection; queries and keys trade
inverse factors (``_channels``). How far to go is tried region by region: every strength, with and without shift, is
judged by the error of the region's results at the formats asked for, on samples that the factors were not made from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.errors import UsageError
from qcompiler.passes.equalize import _channel_walk, _migrate
from qcompiler.passes.equalize._channels import Channels
from qcompiler.passes.equalize._loss import Formats, Loss
from qcompiler.passes.equalize._migrate import Change
from qcompiler.passes.equalize._producers import Norm
from qcompiler.passes.equalize._regions import Region, Rows, collect, regions, unread
from qcompiler.passes.equalize._statistics import Statistics, observe
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves
from qcompiler.target.formats import resolve_format

__all__ = ["SmoothActivations"]

_JUDGED: Final = "qcompiler.smoothed"
"""Key in the meta of a node that makes channels: the pass that judged them. What it left alone, it leaves alone: that
neighbours have changed since must not make a second run another one."""
_SUFFIX: Final = "_smoothed"
_COARSE: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
_FINE: Final = 0.125
"""Where strengths are tried: these, and then at this distance on both sides of the best."""
_WORTH: Final = 0.97
"""Share of its loss that a region may keep at most to be changed."""
_WIDEST: Final = 1e4
"""Most that two factors of a region differ by."""


@dataclass(frozen=True)
class SmoothActivations(Pass):
    """Divide and shift channels of what norms and layers give, where that lowers the loss of their readers.

    Attributes:
        alpha: How much of the differences goes into weights, 0 to 1; by default what is best for each region.
        shift: Whether the middle of a channel is taken out, where a bias can take it.
        norms: Whether channels of norms are changed.
        layers: Whether channels of layers are changed, up to the layer behind.
        attention: Whether queries and keys, and values and their projection, are changed.
        samples: Calibration samples that are run.
    """

    alpha: float | None = None
    shift: bool = True
    norms: bool = True
    layers: bool = True
    attention: bool = True
    samples: int = 32

    name: ClassVar[str] = "smooth-activations"
    before: ClassVar[frozenset[Fact]] = frozenset({Fact.QDQ})
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.TYPED, Fact.SORTED, Fact.CANONICAL})
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Apply; see the module."""
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise UsageError(f"alpha is {self.alpha}", where=self.name, hint="a number from 0 to 1")
        if ctx.calibration is None or not len(ctx.calibration):
            ctx.warn("nothing was smoothed: the ranges of channels are not known without calibration samples")
            return
        found = _channel_walk.find(model.graph)
        for node, reason in found.refused:
            ctx.skip(node, reason)
        items = regions(found)
        for source, reason in unread(found, items):
            ctx.skip(source.maker.node, f"its channels are not divided: {reason}")
        chosen = list(self._chosen(items, ctx))
        few = ctx.calibration.subset(range(min(self.samples, len(ctx.calibration))))
        rows = collect(model, chosen, few, ctx)
        change = Change.none(sum(source.count for source in found.sources))
        moved = sum(self._decide(region, found, rows, change, ctx) for region in chosen)
        for maker in (source.maker.node for region in chosen for source in region.sources):
            maker.meta[_JUDGED] = self
        _migrate.apply(found, change, ctx.edit, _SUFFIX)
        if chosen:
            ctx.note(f"smoothed {moved} of {len(chosen)} regions of channels")

    def _chosen(self, items: list[Region], ctx: Context) -> Iterator[Region]:
        """Regions that may be changed, and were neither changed before nor judged alike; says why others are not."""
        for region in items:
            attention = bool(region.meetings or region.averages)
            norm = isinstance(region.sources[0].maker, Norm)
            wanted = self.attention if attention else self.norms if norm else self.layers
            makers = [source.maker.node for source in region.sources]
            if not wanted or any(map(_migrate.done, makers)) or all(item.meta.get(_JUDGED) == self for item in makers):
                continue
            if region.scale:
                ctx.skip(region.node, f"its channels are not divided: {region.scale}")
            if self.shift and region.shift:
                ctx.skip(region.node, f"its channels are not shifted: {region.shift}")
            if not region.scale or (self.shift and region.movable):
                yield region

    def _decide(
        self, region: Region, found: Channels, rows: dict[ir.Value, Rows], change: Change, ctx: Context
    ) -> bool:
        """Find the best factors and shifts of a region and write them into ``change``; whether there are any."""
        seen = observe(region, rows, found, change.factors.size)
        if seen is None:
            ctx.skip(region.node, "no sample reaches it")
            return False
        request = None if ctx.target is None else resolve_format(ctx.target, ctx.format or ctx.target.default_format)
        loss = Loss(region, rows, Formats(ctx.target, request))
        before = loss.of(change.factors, change.shifts)
        best, least = None, before * _WORTH if self.alpha is None else np.inf
        for shifts in self._shifts(region, seen, change):
            for candidate, error in self._strengths(region, seen, shifts, loss, change):
                if error < least:
                    best, least = candidate, error
        if best is None:
            ctx.skip(region.node, f"its channels are left alone: no strength lowers its loss of {before:.3g}")
            return False
        change.factors[region.labels] = best.factors[region.labels]
        change.shifts[region.labels] = best.shifts[region.labels]
        return change.touches(region.labels)

    def _shifts(self, region: Region, seen: Statistics, start: Change) -> Iterator[NDArray[np.float64]]:
        """No shift, and the middle of each channel; only the latter where the strength is given."""
        movable = np.array(sorted(region.movable), np.int64)
        if self.alpha is None or not self.shift or not movable.size:
            yield start.shifts
        if self.shift and movable.size:
            shifts = start.shifts.copy()
            shifts[movable] = seen.middle()[movable]
            yield shifts

    def _strengths(
        self, region: Region, seen: Statistics, shifts: NDArray[np.float64], loss: Loss, start: Change
    ) -> Iterator[tuple[Change, float]]:
        """Candidates with one shift, and their losses."""

        def tried(strength: float | None, *, weigh: bool = True) -> tuple[Change, float]:
            factors = start.factors.copy()
            if strength is not None:
                factors[region.labels] = _factors(seen, shifts, strength, weigh=weigh)[region.labels]
            return Change(factors, shifts), loss.of(factors, shifts)

        if region.scale or self.alpha is not None:
            yield tried(None if region.scale else self.alpha)
            return
        if shifts.any():
            yield tried(None)
        for weigh in (True, False) if loss.formats.weight_only else (True,):
            found = {strength: tried(strength, weigh=weigh) for strength in _COARSE}
            middle = min(found, key=lambda strength: found[strength][1])
            yield from found.values()
            around = [strength for strength in (middle - _FINE, middle + _FINE) if 0 <= strength <= 1]
            yield from (tried(strength, weigh=weigh) for strength in around)


def _factors(
    seen: Statistics, shifts: NDArray[np.float64], strength: float, *, weigh: bool = True
) -> NDArray[np.float64]:
    """``max|x|^alpha / max|w|^(1 - alpha)`` of every label; 1 on average, and where either is nothing.

    Where only weights are rounded, the largest values of activations do not matter but how much they weigh: without
    ``weigh`` it is ``rms(x)^alpha`` (AWQ, arXiv 2306.00978, section 3.2).
    """
    sizes, weights = seen.sizes(shifts) if weigh else seen.loudness(), seen.weights
    live = (sizes > 0) & (weights > 0)
    logarithm = np.zeros(sizes.size)
    logarithm[live] = strength * np.log(sizes[live]) - ((1 - strength) * np.log(weights[live]) if weigh else 0.0)
    if live.any():
        logarithm[live] -= logarithm[live].mean()
    limit = np.log(_WIDEST) / 2
    return seen.spread(np.exp(np.clip(logarithm, -limit, limit)))
