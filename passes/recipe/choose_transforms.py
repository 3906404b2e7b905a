"""choose-transforms: keep those float-preserving transforms that lower the loss of this model on this target.

Equalizing, smoothing, rotating or permuting channels helps one model and hurts the next: which does what is measured,
not believed. Each candidate is applied to a copy, the copy is quantized by the passes that follow in the pipeline, on
few samples, and its outputs are compared with the float model's on samples that nothing was fitted on. A candidate
that takes away at least 5 % of the loss stays, and the next one is tried on top of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import onnx_ir as ir

from qcompiler.passes.recipe._candidates import transforms
from qcompiler.passes.recipe._trial import Bench, Effort, copied, rest_of, why_not
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves
from qcompiler.target.formats import resolve_format

__all__ = ["ChooseTransforms"]

_MARGIN: Final = 0.05
"""A transform may add nodes and changes every weight: it must be worth that."""


@dataclass(frozen=True)
class ChooseTransforms(Pass):
    """Try transforms one after the other; keep what gains.

    Attributes:
        effort: How many are tried, and on how many samples.
        candidates: Pipeline texts to try instead of the default ones.
    """

    name: ClassVar[str] = "choose-transforms"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.TYPED, Fact.SORTED, Fact.CANONICAL})
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    effort: Effort = "normal"
    candidates: tuple[str, ...] = ()

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Apply; see the class."""
        rest = rest_of(ctx, ("choose-rounding",))
        if not rest or ctx.target is None:
            ctx.note("nothing was tried: no pass behind this one quantizes the model")
            return
        if reason := why_not(ctx):
            ctx.note(reason)
            return
        bench = Bench(copied(model), rest, ctx, self.effort, _MARGIN)
        bench.start(model)
        texts = self.candidates or transforms(self.effort, resolve_format(ctx.target, ctx.format))
        for index, text in enumerate(texts):
            ctx.progress("try transforms", index, len(texts))
            bench.offer(model, text)
