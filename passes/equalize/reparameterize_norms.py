"""reparameterize-norms: a scale and zero point for each channel of a norm's result become one for all, exactly.

What a norm gives differs from channel to channel by far more than what other layers give. A quantizer with a scale
``s_c`` and a zero point per channel would suit it, but no integer product has one: scales would vary along the axis
that is summed over. RepQ-ViT (arXiv 2212.08254, section 3.2) moves the difference into the constants around. With
``[l_c, h_c]`` the range of channel ``c``, ``r_c = (h_c - l_c) / mean(h - l)`` and ``t_c`` the distance of its middle
from zero, the norm gives ``(x - t) / r``: its factor becomes ``gamma / r``, its shift ``(beta - t) / r``; rows of every
weight behind are multiplied by ``r``, and ``t W`` is added to their biases. Every channel then fills the same range, so
one scale for the tensor rounds each channel as its own ``s_c`` would have.

Where a norm has no shift, or a reader no bias, only scales are made alike: ``r_c`` is then the ratio of the largest
absolute values. It is what smooth-activations does to norms with all strength, but without asking whether it pays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.passes.equalize import _channel_walk, _migrate
from qcompiler.passes.equalize._migrate import Change
from qcompiler.passes.equalize._producers import Norm
from qcompiler.passes.equalize._regions import Region, collect, regions, unread
from qcompiler.passes.equalize._statistics import Statistics, observe
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves

__all__ = ["ReparameterizeNorms"]

_SUFFIX: Final = "_reparameterized"
_LEAST: Final = 1e-3
"""Share of the mean size below which a channel is not made smaller: what it holds is nearly constant."""


@dataclass(frozen=True)
class ReparameterizeNorms(Pass):
    """Make channels of what norms give fill the same range.

    Attributes:
        samples: Calibration samples that ranges are taken from.
    """

    samples: int = 32

    name: ClassVar[str] = "reparameterize-norms"
    before: ClassVar[frozenset[Fact]] = frozenset({Fact.QDQ})
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.TYPED, Fact.SORTED, Fact.CANONICAL})
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Apply; see the module."""
        if ctx.calibration is None or not len(ctx.calibration):
            ctx.warn("no norm was reparameterized: the ranges of channels are not known without calibration samples")
            return
        found = _channel_walk.find(model.graph)
        items = regions(found)
        for source, reason in unread(found, items):
            if isinstance(source.maker, Norm):
                ctx.skip(source.maker.node, f"its channels are not divided: {reason}")
        chosen = [region for region in items if _wanted(region, ctx)]
        few = ctx.calibration.subset(range(min(self.samples, len(ctx.calibration))))
        rows = collect(model, chosen, few, ctx)
        change = Change.none(sum(source.count for source in found.sources))
        moved = 0
        for region in chosen:
            seen = observe(region, rows, found, change.factors.size)
            if seen is None:
                ctx.skip(region.node, "no sample reaches it")
                continue
            _decide(region, seen, change)
            moved += 1
        _migrate.apply(found, change, ctx.edit, _SUFFIX)
        if chosen:
            ctx.note(f"made the channels of {moved} norms alike")


def _wanted(region: Region, ctx: Context) -> bool:
    """Whether a norm makes the channels, alone or with others, and they can be divided."""
    norm = next((source.maker.node for source in region.sources if isinstance(source.maker, Norm)), None)
    if norm is None or any(_migrate.done(source.maker.node) for source in region.sources):
        return False
    if region.scale:
        ctx.skip(norm, f"its channels are not divided: {region.scale}")
        return False
    if region.shift:
        ctx.skip(norm, f"its channels are not shifted: {region.shift}")
    return True


def _decide(region: Region, seen: Statistics, change: Change) -> None:
    labels = region.labels
    movable: NDArray[np.int64] = np.array(sorted(region.movable), np.int64)
    change.shifts[movable] = seen.middle()[movable]
    sizes = seen.sizes(change.shifts)
    live = sizes > 0
    if live.any():
        mean = sizes[live].mean()
        factors = np.where(live, np.maximum(sizes, _LEAST * mean) / mean, 1.0)
        change.factors[labels] = seen.spread(factors)[labels]
