"""choose-rounding: keep the rounding of weights that gives the least loss of this model on this target.

Rounding to nearest is where it starts. Each candidate goes on from what was kept before it, on a copy, followed by the
corrections that the pipeline has behind it, and is judged on samples that nothing was fitted on. Where activations
have few bits, ``effort=high`` first tries other grids for attention weights (``choose-log-formats``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import onnx_ir as ir

from qcompiler.calibration import words
from qcompiler.ir.copies import shared_copy
from qcompiler.ir.originals import restored
from qcompiler.passes.recipe._candidates import (
    attention,
    mostly_few_bits,
    reads_few_bits,
    roundings,
    weight_bits,
)
from qcompiler.passes.recipe._trial import Bench, Effort, rest_of, why_not
from qcompiler.passes.round.rounding_work import affordable
from qcompiler.pipeline.base import Context, Fact, Pass
from qcompiler.pipeline.spec import parse
from qcompiler.target.formats import resolve_format

__all__ = ["ChooseRounding"]

_MARGIN: Final = 0.02
"""Every layer was judged already, and a rounding costs nothing where the model runs."""
_REFINES: Final = "round-alternating"
"""It refines what GPTQ found: any gain counts, because samples of a trial tell them apart badly. On evaluation data it
was better on five of five models in w4a8 (resnet20 0.0226 for 0.0289, dscnn_kws 0.0099 for 0.0111, mobilenetv1_025
0.29 for 0.38, vit_mnist 0.00044 for 0.00054, minilm mean cosine 0.915 for 0.876)."""


@dataclass(frozen=True)
class ChooseRounding(Pass):
    """Try roundings one after the other; keep what gains.

    Attributes:
        effort: How many are tried, and on how many samples.
        candidates: Pipeline texts to try instead of the default ones.
    """

    name: ClassVar[str] = "choose-rounding"
    before: ClassVar[frozenset[Fact]] = frozenset({Fact.QDQ})
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.FORMATS, Fact.CALIBRATED})

    effort: Effort = "normal"
    candidates: tuple[str, ...] = ()

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Apply; see the class."""
        bits = weight_bits(model.graph)
        if bits is None:
            ctx.note("nothing was tried: no weight is quantized")
            return
        reason = why_not(model, ctx, bits)
        if reason or ctx.calibration is None:
            ctx.note(reason)
            return
        data, drawn = words.enriched(model.graph, ctx.calibration, bits)
        narrow, weight_only = reads_few_bits(model.graph), _weight_only(ctx)
        found = roundings(
            self.effort, bits, narrow=narrow, few_words=drawn, weight_only=weight_only,
            gradients=mostly_few_bits(model.graph), turns=affordable(model.graph),
        )  # fmt: skip
        texts = self.candidates or (*self._grids(ctx), *found)
        for text in texts:
            parse(text)  # a wrong word is refused before any work
        bench = Bench(shared_copy(restored(model)), rest_of(ctx, ()), ctx, self.effort, _MARGIN, data)
        if not bench.start(model):
            return
        for index, text in enumerate(texts):
            ctx.progress("try roundings", index, len(texts))
            refines = [item.name for item in parse(text)] == [_REFINES]
            bench.offer(model, text, 0.0 if refines else None)

    def _grids(self, ctx: Context) -> tuple[str, ...]:
        """Other grids for attention weights, where the target has them."""
        if ctx.target is None:
            return ()
        return attention(self.effort, resolve_format(ctx.target, ctx.format), ctx.target)


def _weight_only(ctx: Context) -> bool:
    """Whether activations stay real numbers."""
    return ctx.target is not None and resolve_format(ctx.target, ctx.format).weight_only
