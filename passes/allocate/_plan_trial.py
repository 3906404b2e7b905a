"""The loss of a plan as it will be: the model quantized by it, on samples that nothing was fitted on.

The passes that follow in the pipeline run on a copy, on two thirds of the samples; every third one judges (the last
ones of a file are often alike). Where the given samples hold few of the words that the model knows, as many samples of
drawn words judge beside them, and the larger bound counts: one by given words alone (MiniLM, 0.03) does not hold for
others (0.045), one by drawn words alone (stories260k, 0.14) not for text, of which the model is surer (0.26). Of the
roundings that the recipe would try, the first is taken without trial: what the recipe keeps in the end loses no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import onnx_ir as ir

from qcompiler.analysis.plan_loss import enough_to_judge, sample_losses, upper_bound
from qcompiler.analysis.quality import vector_outputs
from qcompiler.calibration import words
from qcompiler.calibration.data import Dataset
from qcompiler.ir.copies import shared_copy
from qcompiler.ir.edit import Edit
from qcompiler.ir.execute import Runner
from qcompiler.passes.allocate.format_marks import mark_format
from qcompiler.passes.place.simulate import materialized
from qcompiler.pipeline.base import Context, Pass, PassRecord
from qcompiler.pipeline.spec import parse, to_text
from qcompiler.target.formats import resolve_format

__all__ = ["RECIPE", "PlanTrial", "mark_nodes", "quantized"]

_SHARE: Final = 3
"""One sample of so many judges."""
_MOST: Final = 256
"""Samples that judge at most."""
RECIPE: Final = "choose-rounding"
"""The pass that tries roundings."""
_ENDS: Final = "place-qdq"


@dataclass
class PlanTrial:
    """Quantizes a model by one plan after the other.

    Attributes:
        model: The model, no formats assigned.
        ctx: The context of the running pass.
        nodes: Names of the nodes of every group.
        metric: Which loss; empty for the one of the outputs' kind.
        done: Plans measured.
        by_words: Plans that lost more of drawn words than of given samples.
    """

    model: ir.Model
    ctx: Context
    nodes: Mapping[str, tuple[str, ...]]
    metric: str
    done: int = field(default=0, init=False)
    by_words: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        data = enough_to_judge(self.ctx.calibration)
        judging = list(range(_SHARE - 1, len(data), _SHARE))[:_MOST]
        self._fitted = data.subset(sorted(set(range(len(data))) - set(judging)))
        given = data.subset(judging)
        drawn = words.unseen(self.model.graph, given)
        self._judging = (given,) if drawn is None else (given, drawn)
        self._reference = Runner(self.model, threads=self.ctx.jobs)
        self._vectors = vector_outputs(self.model)

    def __call__(self, choice: Mapping[str, str]) -> float:
        """Upper bound of the loss of a plan (``plan_loss.upper_bound``)."""
        self.done += 1
        self.ctx.progress("measure plans", self.done, 0)
        formats = {node: choice[group] for group, names in self.nodes.items() for node in names}
        model = quantized(self.model, self.ctx, formats, self._fitted)
        candidate = Runner(model, threads=self.ctx.jobs)
        given, *drawn = (self._bound(candidate, judging) for judging in self._judging)
        self.by_words += any(loss > given for loss in drawn)
        return max((given, *drawn))

    @property
    def judges(self) -> str:
        """Who judged besides the given samples, and how often that decided; empty where nobody did."""
        if len(self._judging) == 1:
            return ""
        more = f"{self.by_words} of {self.done} plans lost more there"
        return f"drawn words judged too, as samples hold few of those that the model knows: {more}"

    def _bound(self, candidate: Runner, judging: Dataset) -> float:
        losses = sample_losses(self._reference, candidate, judging, self._vectors, self.metric or None)
        return upper_bound(losses, shares=self.metric == "agreement")


def quantized(
    model: ir.Model, ctx: Context, formats: Mapping[str, str], data: Dataset, rounding: str = "round-gptq"
) -> ir.Model:
    """A copy as the passes behind the running one make it on these samples, with Q/DQ nodes.

    Args:
        model: The model, no formats assigned; it is not changed.
        ctx: The context of the running pass.
        formats: Format by node.
        data: Samples to fit on.
        rounding: What stands where the recipe would try roundings.
    """
    copy = shared_copy(model)
    inner = Context(
        edit=Edit(copy), target=ctx.target, format=ctx.format, calibration=data, exclude=ctx.exclude,
        jobs=ctx.jobs, baseline_path=ctx.baseline_path,
    )  # fmt: skip
    mark_nodes(copy.graph, formats, ctx)
    for item in _rest(ctx, rounding):
        inner.records.append(PassRecord(to_text((item,))))
        item.run(copy, inner)
    return materialized(copy)


def mark_nodes(graph: ir.Graph, formats: Mapping[str, str], ctx: Context) -> None:
    """Mark every named node that follows another format than the model's."""
    if ctx.target is None:
        return
    requests = {text: resolve_format(ctx.target, text) for text in set(formats.values())}
    for node in graph:
        text = formats.get(str(node.name))
        mark_format(node, None if text is None else requests[text])


def _rest(ctx: Context, rounding: str) -> list[Pass]:
    """The passes behind the running one, up to where Q/DQ nodes are placed."""
    found: list[Pass] = []
    for item in ctx.following:
        if item.name == _ENDS:
            break
        found.extend(parse(rounding) if item.name == RECIPE else (item,))
    return found
