"""choose-log-formats: keep attention weights, and other results that crowd near zero, in codes of few bits on a grid.

Where asked for (``--format w8a8/log4``, or ``bits``) every result whose operator lists the format among its
``log_outputs``, and all of whose readers list it among their ``log_inputs``, gets one. Which grid it is is measured:
the families of :mod:`qcompiler.quant.log_grids`, uniform with the best clip among them, are fitted to what the tensor
holds on the calibration samples, and the one with the least squared error is taken. A plan may also ask for one tensor
(``"format": "log4"`` without a ``grid``); with ``--plan`` those are all that is done, the plan decides the rest.

Padding rows weigh 0. Of an attention matrix ``(N, H, L, L)`` a row is what one token attends to: rows of padding tokens
are left out, in other rows the mask has made what they attend to zero.

A grid of ``b`` bits loses more than 8-bit codes do: this saves bits where attention matrices are stored or sent, it
does not make a model better. Softmax results of 4 bits, ``lowbit-cpu``, uniform with the best clip against the family
chosen: vit_mnist KL 0.0047 and 0.0007 (4000 images; 0.00014 in 8 bits), minilm_l6_stsb mean cosine 0.9910 and 0.9936
(300 pairs; 0.9943 in 8 bits). More figures are in ``passes/calibrate/README.md``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import onnx_ir as ir

from qcompiler.calibration import engine, row_weights
from qcompiler.calibration.grid_search import Fit, ValueSums, best_grids
from qcompiler.errors import DataError, UsageError, nearest
from qcompiler.pipeline.base import Context, Fact, Pass
from qcompiler.quant import state
from qcompiler.quant.format import LOG_BITS, QFormat
from qcompiler.quant.log_grids import KINDS
from qcompiler.quant.params import params_of_grid
from qcompiler.quant.state import TensorQuant
from qcompiler.target.formats import FormatRequest, resolve_format
from qcompiler.target.log_codes import why_not_log
from qcompiler.target.rules import rule_for
from qcompiler.target.schema import Target

__all__ = ["ChooseLogFormats"]


@dataclass(frozen=True)
class ChooseLogFormats(Pass):
    """Keep results that crowd near zero (Softmax) in few bits, on the grid that measures best.

    Attributes:
        bits: Bits of a code, 2 to 7; 0 takes them and the operators from ``--format`` (``w8a8/log4``,
            ``w8a8/log4=Softmax``) and does nothing without.
        kinds: Families of grids to choose from.
        operators: Operators whose results get ``bits``; ``()`` means all that the target lists.
        open_only: Find the grids of log formats that were decided already, and decide no other. ``--plan`` sets it.
    """

    name: ClassVar[str] = "choose-log-formats"
    before: ClassVar[frozenset[Fact]] = frozenset({Fact.QDQ})
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.FORMATS})

    bits: int = 0
    kinds: tuple[str, ...] = KINDS
    operators: tuple[str, ...] = ()
    open_only: bool = False

    def __post_init__(self) -> None:
        if self.bits and self.bits not in LOG_BITS:
            raise ValueError(f"bits={self.bits} is none of 0, {', '.join(map(str, LOG_BITS))}")
        for kind in self.kinds:
            if kind not in KINDS:
                raise ValueError(f"'{kind}' is no kind of grid; {nearest(kind, KINDS) or ', '.join(KINDS)}")
        if self.operators and not self.bits:
            raise ValueError("operators go with bits")
        if not self.kinds:
            raise ValueError("kinds names no family of grids")

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Complete the decisions on results that get a grid."""
        wishes = {value: quant.format for value, quant in state.quantized_values(model.graph) if _is_open(quant)}
        target = None if self.open_only else ctx.target
        if target is not None and (request := self._request(target, ctx)).log is not None:
            wishes |= dict.fromkeys(_meant(model.graph, request, target, ctx), request.log)
        if not wishes:
            return
        sums = _observed(model, list(wishes), ctx)
        for value, wish in wishes.items():
            self._decide(value, wish, sums[str(value.name)], ctx)

    def _request(self, target: Target, ctx: Context) -> FormatRequest:
        """What is asked for, and offered: the options of the pass count as if they stood in the format."""
        text = ctx.format or target.default_format
        if self.bits:
            kept = [part for part in text.split("/") if not part.lower().startswith("log")]
            text = "/".join([*kept, f"log{self.bits}{'=' if self.operators else ''}{'+'.join(self.operators)}"])
        return resolve_format(target, text)

    def _decide(self, value: ir.Value, form: QFormat, sums: ValueSums, ctx: Context) -> None:
        name, ordered = str(value.name), sums.sorted()
        try:
            found = best_grids(ordered, form.bits, self.kinds, floor=min(ordered.low, 0.0))
        except (ValueError, UsageError) as error:  # a grid cannot span what a dead or a huge tensor holds
            ctx.skip(name, f"no {form}: {error}")
            return
        best = min(found.values(), key=lambda fit: fit.error)
        quant = state.value_quant(value)
        given = quant is not None and _is_open(quant)
        params = params_of_grid(best.grid)
        state.set_value_quant(value, TensorQuant(form, params, None if quant is None else quant.tie))
        for use in value.uses():
            own = state.own_edge_quant(use.node, use.idx)
            if own is not state.FLOAT and not given:  # else whoever asked for the format decided on its readers too
                state.set_edge_quant(use.node, use.idx, None)
        ctx.edit.count += 1
        ctx.note(_sentence(name, form, best, found))


def _meant(graph: ir.Graph, request: FormatRequest, target: Target, ctx: Context) -> Iterator[ir.Value]:
    """Results that can have the format; why others cannot is recorded."""
    for node in graph:
        rule = rule_for(target, node)
        if rule is None or not rule.log_results() or request.log is None:
            continue
        if request.log_operators and rule.operator not in request.log_operators:
            continue
        reason = _why_not(node, request.log, target)
        if reason is None:
            yield node.outputs[0]
        elif reason:
            ctx.skip(node, reason)


def _is_open(quant: TensorQuant) -> bool:
    """Whether a log format was asked for and its grid is still to be found."""
    return quant.format.logarithmic and quant.params is None


def _why_not(node: ir.Node, form: QFormat, target: Target) -> str | None:
    """Why the result of a node cannot have the format; empty where it has one already, ``None`` where it can."""
    value = node.outputs[0]
    quant, decision = state.value_quant(value), state.node_decision(node)
    if quant is not None and quant.format.logarithmic:
        return ""
    if quant is None or decision is None or not decision.integer:
        return f"its result is not {form}: it stays in real numbers"
    if quant.tie is not None:
        return f"its result is not {form}: it shares the scale of '{quant.tie}'"
    for use in value.uses():
        reader = state.node_decision(use.node)
        if reader is None or not reader.integer:
            return f"its result is not {form}: {use.node.name} reads it in real numbers"
    reason = why_not_log(value, form, target)
    return None if reason is None else f"its result is not {form}: {reason}"


def _observed(model: ir.Model, values: list[ir.Value], ctx: Context) -> dict[str, ValueSums]:
    """What the tensors hold on the calibration samples."""
    dataset = ctx.calibration
    if dataset is None:
        raise DataError(
            "grids are fitted to calibration samples, and there are none",
            hint="give --calibration DATA, or leave the log format out",
        )
    sums = {str(value.name): ValueSums() for value in values}
    rows = row_weights.of(dataset, model.graph)
    rows = None if rows is None else replace(rows, attention=True)
    engine.collect(model, dataset, sums, ctx=ctx, row_weights=rows)
    return sums


def _sentence(name: str, form: QFormat, best: Fit, found: dict[str, Fit]) -> str:
    others = sorted((fit for fit in found.values() if fit is not best), key=lambda fit: fit.error)
    beside = "".join(f", {fit.grid.kind} {fit.error:.2g}" for fit in others)
    return f"'{name}' in {form}, {best.grid}: relative squared error {best.error:.2g}{beside}"
