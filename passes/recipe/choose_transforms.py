"""choose-transforms: keep those float-preserving transforms that lower the loss of this model on this target.

Equalizing, smoothing, rotating or permuting channels helps one model and hurts the next: which does what is measured,
not believed. Each candidate is applied to a copy, the copy is quantized by the passes that follow in the pipeline, on
few samples, and its outputs are compared with the float model's on samples that nothing was fitted on. A candidate
that takes away at least 3 % of the loss stays, and the next one is tried on top of it. Unless ``effort`` is high,
none may add nodes: bounds per channel instead of Clip made MobileNet twice as slow on ``lowbit-cpu``.

Below 8 bits copies are rounded by GPTQ where that takes seconds: what lowers the loss of nearest codes need not lower
that of fitted ones (vit_mnist w4a8, 128 samples: smoothing gained 6 % before rounding, and doubled the loss behind it).
Where formats will be chosen among candidates, transforms are judged in the one behind the widest: most weights will
have fewer bits than that (MiniLM: smoothing that gained 28 % at 8 bits made 3 bits of one layer lose 0.23).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Final

import onnx_ir as ir

from qcompiler.calibration import words
from qcompiler.errors import UsageError
from qcompiler.ir.copies import shared_copy
from qcompiler.passes.recipe._candidates import transforms
from qcompiler.passes.recipe._trial import Bench, Effort, rest_of, why_not
from qcompiler.passes.round.rounding_work import affordable
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves
from qcompiler.pipeline.spec import parse
from qcompiler.quant.format import BYTE
from qcompiler.quant.plan import kept_transforms, remember_transforms
from qcompiler.quant.plan_file import load as load_plan
from qcompiler.target.formats import resolve_format, widest_first
from qcompiler.target.schema import Target

__all__ = ["ChooseTransforms"]

_MARGIN: Final = 0.03
"""A transform changes every weight: it must be worth that."""
_CHOICE: Final = "choose-formats"
_LEFT_OUT: Final = (_CHOICE,)
_ROUNDING: Final = "choose-rounding"
_FITTED: Final = "round-gptq{inputs=float samples=128 guard=false}"


@dataclass(frozen=True)
class ChooseTransforms(Pass):
    """Try transforms one after the other; keep what gains.

    Attributes:
        effort: How many are tried, and on how many samples.
        candidates: Pipeline texts to try instead of the default ones.
        plan: A plan file: what was kept when it was written is applied, and nothing is tried.
    """

    name: ClassVar[str] = "choose-transforms"
    before: ClassVar[frozenset[Fact]] = frozenset({Fact.QDQ})
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.TYPED, Fact.SORTED, Fact.CANONICAL})
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    effort: Effort = "normal"
    candidates: tuple[str, ...] = ()
    plan: str = ""

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Apply; see the class."""
        if self.plan:
            _apply(kept_transforms(load_plan(self.plan)), model, ctx)
            return
        if ctx.target is None or not rest_of(ctx, (*_LEFT_OUT, _ROUNDING)):
            ctx.note("nothing was tried: no pass behind this one quantizes the model")
            return
        form = _judged(ctx, ctx.target)
        request = resolve_format(ctx.target, form)
        ctx = replace(ctx, format=form)
        rest = _rest(model, ctx, request.weight_bits)
        reason = why_not(model, ctx, request.weight_bits)
        if reason or ctx.calibration is None:
            ctx.note(reason)
            return
        texts = self.candidates or transforms(self.effort, request)
        for text in texts:
            _check(text)
        data, _ = words.enriched(model.graph, ctx.calibration, request.weight_bits)
        bench = Bench(shared_copy(model), rest, ctx, self.effort, _MARGIN, data, grows=self.effort == "high")
        if not bench.start(model):
            return
        kept = []
        for index, text in enumerate(texts):
            ctx.progress("try transforms", index, len(texts))
            if bench.offer(model, text):
                kept.append(text)
        remember_transforms(model, kept)


def _judged(ctx: Context, target: Target) -> str | None:
    """The format that transforms are judged in: among candidates the widest with fewer bits than the widest of all."""
    given = [text for item in ctx.following for text in getattr(item, "candidates", ()) if item.name == _CHOICE]
    ranked = widest_first(target, given)
    bits = [resolve_format(target, text).weight_bits for text in ranked]
    return next((text for text, own in zip(ranked, bits, strict=True) if own < bits[0]), ctx.format)


def _rest(model: ir.Model, ctx: Context, bits: int) -> tuple[Pass, ...]:
    """The passes behind a candidate; GPTQ instead of the choice of a rounding, where it matters and takes seconds."""
    fitted = parse(_FITTED) if bits < BYTE and affordable(model.graph) else ()
    found: list[Pass] = []
    for item in rest_of(ctx, _LEFT_OUT):
        found.extend(fitted if item.name == _ROUNDING else (item,))
    return tuple(found)


def _check(text: str) -> tuple[Pass, ...]:
    """The passes of a candidate, which must all keep the float function."""
    passes = parse(text)
    for item in passes:
        if item.preserves is Preserves.NOTHING:
            raise UsageError(f"'{item.name}' does not keep what the model computes", where="choose-transforms",
                             hint="write it into a pipeline of its own")  # fmt: skip
    return passes


def _apply(texts: list[str], model: ir.Model, ctx: Context) -> None:
    """Apply what a plan says was kept."""
    for text in texts:
        for item in _check(text):
            item.run(model, ctx)
    remember_transforms(model, texts)
    ctx.note(f"applied the transforms of the plan: {', '.join(texts) or 'none'}")
