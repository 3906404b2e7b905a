"""Find additive masks, so that a constant of -1e9 does not become the range of the scores beside it."""

from __future__ import annotations

import functools
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from qcompiler.ir import constants, patterns, regions
from qcompiler.ir.operators import STANDARD_DOMAINS
from qcompiler.ir.regions import MaskInfo
from qcompiler.passes.normalize._match_masks import MOVES, Masks, extreme
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset

__all__ = ["RecognizeMasks"]

_REACH = 24
"""Nodes looked at in front of one Softmax: keeps the search linear in the graph."""


@dataclass(frozen=True)
class RecognizeMasks(Pass):
    """Mark additive masks before Softmax: the mask, and the scores that carry it.

    Found are Add and Sub with a mask operand, and Where that writes a large negative number over scores; directly
    before Softmax or LogSoftmax or with moves, scales and further sums in between; one mask may reach many of them.
    ``constant`` is the number as it appears in the marked tensor: a scale behind the mask scales it too. An operand
    that is subtracted holds a large positive number and is not marked itself. Only annotations: no node changes.
    Which numbers count as a mask says ``_match_masks``; what an input is fed, the calibration samples.
    """

    name: ClassVar[str] = "recognize-masks"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.SORTED})
    preserves: ClassVar[Preserves] = Preserves.EXACT

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Apply; see the class."""
        regions.clear(model.graph, masks=True)
        masks = Masks(list(model.graph.inputs), functools.partial(_fed, ctx.calibration))
        counts: Counter[float] = Counter()
        for node in model.graph:
            if patterns.has_type(node, "Softmax", "LogSoftmax"):
                for number in _search(node, masks):
                    counts[number] += 1
        for number, count in sorted(counts.items()):
            ctx.note(f"{count} Softmax read scores under an additive mask of {number:g}")
            if math.isinf(number):
                ctx.note("a mask of -inf has no 8-bit code: what carries it stays float or is clamped when calibrated")


def _fed(samples: Dataset | None, value: ir.Value) -> float | None:
    """The large number in the first sample of an input that has one."""
    name = str(value.name)
    if samples is None or name not in samples.columns:
        return None
    found = (extreme(np.asarray(row)) for row in samples.columns[name].rows(samples.order))
    return next((number for number in found if number is not None), None)


@dataclass(frozen=True, slots=True)
class _Step:
    """A value before a Softmax, the factor from it to the Softmax, and the values behind it with theirs."""

    value: ir.Value
    factor: float = 1.0
    behind: tuple[tuple[ir.Value, float], ...] = field(default=())

    def to(self, value: ir.Value | None, scale: float = 1.0) -> list[_Step]:
        """One node further from the Softmax."""
        here = (*self.behind, (self.value, self.factor))
        return [] if value is None else [_Step(value, self.factor * scale, here)]


def _search(softmax: ir.Node, masks: Masks) -> set[float]:
    """Mark what is found in front of one Softmax; returns the numbers the masks add."""
    start = softmax.inputs[0]
    pending = [] if start is None else [_Step(start)]
    found: set[float] = set()
    for _ in range(_REACH):
        if not pending:
            break
        step = pending.pop()
        node = patterns.producer(step.value)
        if node is None:
            continue
        operand = _masking(node, masks)
        if operand is None:
            pending.extend(_further(node, step))
            continue
        mask, number = operand
        found.add(number)
        _mark(step, mask, number, masks)
        pending.extend(following for value in node.inputs if value is not mask for following in step.to(value))
    return found


def _masking(node: ir.Node, masks: Masks) -> tuple[ir.Value, float] | None:
    """The operand of a node that masks the others, and the number it puts there."""
    if node.op_type not in ("Add", "Sub", "Where") or node.domain not in STANDARD_DOMAINS:
        return None
    candidates = node.inputs[1:] if node.op_type in ("Sub", "Where") else node.inputs
    for value in candidates:
        number = masks.constant(value)
        if number is None or value is None:
            continue
        number = -number if node.op_type == "Sub" else number
        if number < 0:
            return value, number
    return None


def _further(node: ir.Node, step: _Step) -> list[_Step]:
    """Steps through a node that masks nothing itself."""
    if node.op_type in MOVES:
        return step.to(node.inputs[0])
    if node.op_type in ("Add", "Sub"):
        return [following for value in node.inputs for following in step.to(value)]
    if node.op_type in ("Mul", "Div"):
        scaled = patterns.scalar_operand(node)
        if scaled is None or scaled[1] <= 0 or (node.op_type == "Div" and node.inputs[0] is not scaled[0]):
            return []
        return step.to(scaled[0], scaled[1] if node.op_type == "Mul" else 1.0 / scaled[1])
    return []


def _mark(step: _Step, mask: ir.Value, number: float, masks: Masks) -> None:
    """Write the annotations of one mask: on scores from the sum to the Softmax, on the operand back to its making."""
    for value, factor in (*step.behind, (step.value, step.factor)):
        _strengthen(value, MaskInfo(number * step.factor / factor, "sum"))
    source: ir.Value | None = mask
    while source is not None and (constant := masks.constant(source)) is not None:
        if constant < 0 and constants.scalar(source) is None:  # a number by itself is not a tensor to quantize
            regions.set_mask(source, MaskInfo(constant, "operand"))
        node = patterns.producer(source, *MOVES)
        source = None if node is None else node.inputs[0]


def _strengthen(value: ir.Value, info: MaskInfo) -> None:
    """Mark scores; of two masks in one sum the smaller number stays: everything from it on is masked."""
    before = regions.mask(value)
    if before is None or info.constant > before.constant:
        regions.set_mask(value, info)
