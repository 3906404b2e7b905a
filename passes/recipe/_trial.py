"""A copy of the model, quantized by the rest of the pipeline on few samples, and its loss on samples left out.

Every judgement of a recipe is one such figure: the relative squared error of the outputs (``Judge``). The samples it
is measured on are taken from the end of the calibration data and nothing in the trial is fitted on them. How many
samples a trial takes follows from the work of one run, never from a clock: the same inputs give the same decisions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

import onnx_ir as ir

from qcompiler.analysis.work import total_macs
from qcompiler.errors import QCompilerError
from qcompiler.ir.copies import shared_copy
from qcompiler.ir.edit import Edit
from qcompiler.ir.execute import PART_BYTES, Runner
from qcompiler.passes.calibrate.judge import Judge
from qcompiler.pipeline.base import Context, Note, Pass, PassRecord, Skip, Trial
from qcompiler.pipeline.spec import parse, to_text
from qcompiler.quant.format import BYTE

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset

__all__ = ["Attempt", "Bench", "Effort", "rest_of", "why_not"]

Effort = Literal["normal", "high"]

_LEAST: Final = 8
"""Calibration samples below which nothing is tried: a quarter of them could not judge."""

_SAMPLES: Final = {"normal": 128, "high": 256}
"""Most samples that a trial is fitted on, and judged on: losses on 32 were off by more than what transforms gain at 8
bits (vit_mnist, dscnn_kws)."""
_WORK: Final = {"normal": 40e9, "high": 160e9}
"""Multiply-accumulates of a run over these samples: large models are tried on fewer."""
_FEWEST: Final = 4
_NODES: Final = 20_000
"""Nodes from which on copies of the graph take seconds each."""
_ENDS: Final = "place-qdq"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A candidate on a copy.

    Attributes:
        model: The copy as the candidate left it, before the rest of the pipeline.
        edits: Changes it made.
        loss: What the rest of the pipeline then reaches; infinite where it failed.
        reason: Why it was not measured; empty where it was.
        notes: What the candidate had to say.
        skips: What it left alone.
        seconds: Wall time.
    """

    model: ir.Model
    edits: int
    loss: float
    reason: str
    notes: tuple[Note, ...]
    skips: tuple[Skip, ...]
    seconds: float


@dataclass
class Bench:
    """Tries candidates one after the other; what lowers the loss becomes the model.

    Attributes:
        reference: The float model.
        rest: Passes that run behind a candidate before the loss is measured.
        ctx: The context of the running pass.
        effort: How much work a trial may take.
        margin: Share of the loss that a candidate must take away to count as a gain, unless ``offer`` says otherwise.
        samples: What candidates are fitted on and judged by.
        grows: Whether candidates may add nodes, each of which takes time wherever the model runs.
        loss: The loss of what is kept so far.
    """

    reference: ir.Model
    rest: tuple[Pass, ...]
    ctx: Context
    effort: Effort
    margin: float
    samples: Dataset
    grows: bool = True
    loss: float = field(default=math.inf, init=False)

    def __post_init__(self) -> None:
        self._all, self._few, judging = divided(self.samples, self.reference, self.effort)
        self._judge = Judge(Runner(self.reference, threads=self.ctx.jobs), judging, self.ctx, "judge")

    def start(self, model: ir.Model) -> bool:
        """Measure what there is without any candidate.

        Returns:
            Whether there is a loss to lower; a note says why not.
        """
        self.loss = self._loss(shared_copy(model))
        if self.loss == 0 or not math.isfinite(self.loss):
            self.ctx.note("nothing was tried: the outputs have no error to lower, or none that is a number")
            return False
        return True

    def offer(self, model: ir.Model, text: str, margin: float | None = None) -> bool:
        """Try the passes of ``text``; where they gain, ``model`` becomes what they made of it.

        Args:
            model: What is kept so far.
            text: The candidate.
            margin: What counts as a gain; ``None`` for that of the bench.

        Returns:
            Whether they were kept.
        """
        margin = self.margin if margin is None else margin
        attempt = self.attempt(model, text)
        before, kept = self.loss, not attempt.reason and attempt.loss < (1 - margin) * self.loss
        if kept:
            self.ctx.edit.adopt(attempt.model.graph, attempt.edits)
            self.loss = attempt.loss
            for skip in attempt.skips:
                self.ctx.skip(skip.node, skip.reason)
            for warning in (note.text for note in attempt.notes if note.level == "warning"):
                self.ctx.warn(warning)
        reason = attempt.reason or ("" if kept else "no gain on samples left out")
        after = None if attempt.reason else attempt.loss
        notes = tuple(note.text for note in attempt.notes)
        self.ctx.trial(Trial(text, before, after, attempt.seconds, kept, reason, notes))
        return kept

    def attempt(self, model: ir.Model, text: str) -> Attempt:
        """The passes of ``text`` on a copy, and what the rest of the pipeline reaches behind them."""
        start = time.perf_counter()
        copy = shared_copy(model)
        inner = self._context(copy, self._all)
        loss, reason = math.inf, ""
        passes = parse(text)
        try:
            run_quietly(passes, copy, inner)
            added = len(copy.graph) - len(model.graph)
            if added > 0 and not self.grows:
                reason = f"adds {added} node{'s' if added > 1 else ''}: --effort high keeps it where it gains"
            elif inner.edit.count:
                loss = self._loss(shared_copy(copy))
                reason = "" if math.isfinite(loss) else "its outputs are no numbers"
            else:
                reason = _why_nothing(inner)
        except Exception as error:  # noqa: BLE001 -- a candidate that fails is named, and the compile goes on
            what = str(error) if isinstance(error, QCompilerError) else f"{type(error).__name__}: {error}"
            reason = f"failed: {what}"
            self.ctx.warn(f"{text} was tried and failed: {what}")
        notes = tuple(note for record in inner.records for note in record.notes)
        skips = tuple(skip for record in inner.records for skip in record.skips)
        return Attempt(copy, inner.edit.count, loss, reason, notes, skips, time.perf_counter() - start)

    def _loss(self, copy: ir.Model) -> float:
        run_quietly(self.rest, copy, self._context(copy, self._few))
        error = self._judge.error(copy)
        return error if math.isfinite(error) else math.inf

    def _context(self, model: ir.Model, dataset: Dataset) -> Context:
        """The context of the running pass for a copy: its own edits and records, nothing kept on disk."""
        ctx = self.ctx
        return Context(
            edit=Edit(model), target=ctx.target, format=ctx.format, calibration=dataset, exclude=ctx.exclude,
            jobs=ctx.jobs, progress=ctx.progress, baseline_path=ctx.baseline_path, following=self.rest,
        )  # fmt: skip


def why_not(model: ir.Model, ctx: Context, bits: int) -> str:
    """Why nothing can be judged; empty where it can.

    Args:
        model: The model.
        ctx: Its samples.
        bits: Width of the narrowest weight. Synthesised samples choose well among few codes (divergence 1.4 instead
            of 2.1 on mobilenetv1_025 in w4a8, 0.06 instead of 0.20 on resnet20), but not among many: 0.024 instead of
            0.022 on mobilenetv1_025 in w8a8, 0.0023 instead of 0.0015 on dscnn_kws.
    """
    weights = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    if weights > PART_BYTES or len(model.graph) > _NODES:
        return f"nothing was tried: {weights >> 20} MB of weights, {len(model.graph)} nodes are too large to copy about"
    if ctx.calibration is None or len(ctx.calibration) < _LEAST:
        return f"nothing was tried: that takes {_LEAST} calibration samples"
    made = ctx.calibration.made
    if made is not None and made.noise:
        return "nothing was tried: random samples say nothing of the loss on real ones"
    if made is not None and not made.words and bits >= BYTE:
        return f"nothing was tried: synthesised samples do not choose well among {bits}-bit weights"
    return ""


def rest_of(ctx: Context, leave_out: Sequence[str]) -> tuple[Pass, ...]:
    """The passes behind the running one that decide and fit, up to where Q/DQ nodes are placed."""
    found = []
    for item in ctx.following:
        if item.name == _ENDS:
            break
        if item.name not in leave_out:
            found.append(item)
    return tuple(found)


def run_quietly(passes: Sequence[Pass], model: ir.Model, ctx: Context) -> None:
    """Run passes that were checked as part of a pipeline already."""
    for item in passes:
        ctx.records.append(PassRecord(to_text((item,))))
        item.run(model, ctx)


def divided(dataset: Dataset, model: ir.Model, effort: Effort) -> tuple[Dataset, Dataset, Dataset]:
    """Samples to fit candidates on, few of them (evenly drawn) for the passes behind, and others to judge both.

    Those that judge are the last quarter of the samples, or less.
    """
    most = _samples(dataset, model, effort)
    judging = min(len(dataset) // 4, most)
    rest = len(dataset) - judging
    count = min(rest, most)
    few = dataset.subset(index * rest // count for index in range(count))
    return dataset.subset(range(rest)), few, dataset.subset(range(rest, len(dataset)))


def _samples(dataset: Dataset, model: ir.Model, effort: Effort) -> int:
    """How many samples a trial takes, from the work of one."""
    feed = next(iter(dataset))
    sizes: dict[str, int] = {}
    for value in model.graph.inputs:
        if value.shape is None or value.name not in feed:
            continue
        for dimension, size in zip(value.shape, feed[value.name].shape, strict=False):
            if isinstance(dimension, ir.SymbolicDim) and dimension.value is not None:
                sizes[str(dimension.value)] = size
    work = max(total_macs(model, sizes), 1)
    return int(min(_SAMPLES[effort], max(_FEWEST, _WORK[effort] // work)))


def _why_nothing(ctx: Context) -> str:
    """Why a candidate changed nothing: its note, or the most frequent reason it gave for leaving a node alone."""
    notes = [note.text for record in ctx.records for note in record.notes]
    reasons = [skip.reason for record in ctx.records for skip in record.skips]
    if notes:
        return f"nothing to do: {notes[-1]}"
    return f"nothing to do: {max(reasons, key=reasons.count)}" if reasons else "nothing to do"


