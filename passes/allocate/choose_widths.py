"""choose-widths: keep 16 bits only where 8 lose something, by measurement.

A profile says where an operator *may* read 16 bits because 8 often lose too much: normalizations, residual sums,
attention weights. Whether they do depends on the model. So with everything wide, the operators of one kind at a time
read 8 bits, and the output error against the float model is measured on calibration samples. A kind whose 8 bits do
not raise it beyond the tolerance stays narrow, the others stay wide. Kinds are tried from the one that loses least,
each together with those already narrowed, so the tolerance bounds the loss of all.

The decision is a mark on the nodes, which assign-formats reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from qcompiler.errors import PassError
from qcompiler.ir.copies import shared_copy
from qcompiler.ir.execute import Runner
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.passes.allocate.widths import mark_narrow
from qcompiler.passes.calibrate.calibrate import Calibrate
from qcompiler.passes.calibrate.calibrate_weights import CalibrateWeights
from qcompiler.passes.calibrate.judge import Judge
from qcompiler.pipeline.base import Context, Fact, Pass
from qcompiler.quant import state
from qcompiler.quant.format import BYTE, QFormat
from qcompiler.quant.params import params_from_range
from qcompiler.quant.state import TensorQuant
from qcompiler.target.formats import resolve_format
from qcompiler.target.schema import OperatorRule, Target

__all__ = ["ChooseWidths"]


@dataclass(frozen=True)
class ChooseWidths(Pass):
    """Read 8 bits where the profile would read 16, as long as the outputs do not suffer.

    Attributes:
        tolerance: Growth of the output error that narrow activations may cause, all together: 0.02 is 2 %.
        samples: Calibration samples that are run.
    """

    name: ClassVar[str] = "choose-widths"
    before: ClassVar[frozenset[Fact]] = frozenset({Fact.QDQ})
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.TYPED, Fact.SORTED, Fact.CANONICAL})

    tolerance: float = 0.02
    samples: int = 16

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Mark the nodes that read narrow activations."""
        if ctx.target is None or ctx.calibration is None:
            return
        if not self.tolerance >= 0:
            raise PassError(f"a tolerance of {self.tolerance} is negative", where=self.name)
        request = resolve_format(ctx.target, ctx.format or ctx.target.default_format)
        if (request.activation_bits or 16) > 8 or not _has_wide_rules(ctx.target):
            return
        trial = _trial(model, ctx, self.samples)
        if trial is None:
            return
        losses = {kind: trial.loss([kind]) for kind in trial.kinds}
        narrow: list[str] = []
        for kind in sorted(losses, key=lambda kind: losses[kind]):
            if losses[kind] > self.tolerance:
                break
            if not narrow or trial.loss([*narrow, kind]) <= self.tolerance:
                narrow.append(kind)
        for node in model.graph:
            if node.op_type in narrow:
                mark_narrow(node)
        ctx.note(_sentence(losses, narrow, trial.count))


@dataclass(frozen=True, slots=True)
class _Trial:
    """A calibrated copy in which everything that may be wide is.

    Attributes:
        model: The copy; every measurement works on a copy of it.
        kinds: Operators that read 16 bits because the profile wants them wide.
        judge: Measures the output error.
        baseline: The error with everything wide.
        count: Samples.
        target: The profile.
    """

    model: ir.Model
    kinds: tuple[str, ...]
    judge: Judge
    baseline: float
    count: int
    target: Target

    def loss(self, kinds: Sequence[str]) -> float:
        """Growth of the output error when operators of these kinds read 8 bits: 0.1 is 10 %."""
        copy = shared_copy(self.model)
        for node, index, quant in _wide_edges(copy, self.target):
            if node.op_type in kinds:
                state.set_edge_quant(node, index, _narrowed(quant, self.target.operators[node.op_type], index))
        return self.judge.error(copy) / self.baseline - 1


def _has_wide_rules(target: Target) -> bool:
    return any(rule.wide != "never" for rule in target.operators.values())


def _trial(model: ir.Model, ctx: Context, samples: int) -> _Trial | None:
    """The calibrated copy; ``None`` where nothing is wide."""
    from qcompiler.ir.edit import Edit

    dataset, target = ctx.calibration, ctx.target
    if dataset is None or target is None:
        return None
    copy = shared_copy(model)
    few = dataset.subset(range(min(samples, len(dataset))))
    inner = Context(
        edit=Edit(copy), target=target, format=ctx.format, calibration=few, exclude=ctx.exclude, jobs=ctx.jobs
    )
    AssignFormats().run(copy, inner)
    kinds = tuple(dict.fromkeys(node.op_type for node, _, _ in _wide_edges(copy, target)))
    if not kinds:
        return None
    Calibrate().run(copy, inner)
    CalibrateWeights().run(copy, inner)
    judge = Judge(Runner(model, threads=ctx.jobs), few, ctx, "choose widths")
    baseline = judge.error(copy)
    return _Trial(copy, kinds, judge, baseline, len(few), target) if baseline > 0 else None


def _wide_edges(model: ir.Model, target: Target) -> Iterator[tuple[ir.Node, int, TensorQuant]]:
    """Inputs that are read in 16 bits by operators that could read 8."""
    for node in model.graph:
        decision, rule = state.node_decision(node), target.operators.get(node.op_type)
        if decision is None or not decision.integer or rule is None or rule.wide == "never":
            continue
        for index in range(len(node.inputs)):
            quant = state.edge_quant(node, index)
            if quant is not None and quant.format.bits == 16 and _narrow_format(rule, index) is not None:
                yield node, index, quant


def _narrow_format(rule: OperatorRule, index: int) -> QFormat | None:
    return next((form for form in rule.activation_formats(index) if form.bits == BYTE), None)


def _narrowed(quant: TensorQuant, rule: OperatorRule, index: int) -> TensorQuant:
    """The same range in 8 bits."""
    form, wide = _narrow_format(rule, index), quant.params
    if form is None or wide is None:
        raise PassError("a wide edge has no narrow format or no range", where="choose-widths")
    scale, zero = wide.scale.astype(np.float64), wide.zero_point.astype(np.float64)
    low, high = (quant.format.minimum - zero) * scale, (quant.format.maximum - zero) * scale
    return TensorQuant(form, params_from_range(low, high, form))


def _sentence(losses: dict[str, float], narrow: Sequence[str], samples: int) -> str:
    kept = [kind for kind in sorted(losses, key=lambda kind: -losses[kind]) if kind not in narrow]
    wide = ", ".join(f"{kind} ({losses[kind]:+.0%})" for kind in kept)
    small = ", ".join(f"{kind} ({losses[kind]:+.1%})" for kind in narrow)
    parts = [f"{text} {list_}" for text, list_ in (("16 bits stay at", wide), ("8 bits do at", small)) if list_]
    return f"{'; '.join(parts)}: growth of the output error if read in 8 bits, on {samples} samples"
