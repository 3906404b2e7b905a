"""fit-powers-of-two: multiply activations so that the scale they would like best is a power of two.

A scale that must be a power of two is up to twice as coarse as the range asks for, which costs up to one bit. But a
network with piecewise linear activations computes the same when a tensor is multiplied by ``s`` and the weights behind
it by ``1 / s``: so ``s`` is chosen to make the range fit. Where several tensors must share one ``s`` (a residual
stream), it minimizes the sum of their relative squared errors. See ``_streams`` for which tensors can be multiplied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from typing import ClassVar, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.calibration import observers, row_weights, search
from qcompiler.calibration.histogram import Histogram
from qcompiler.errors import DataError
from qcompiler.ir import patterns
from qcompiler.ir.operators import has_type
from qcompiler.passes.equalize._streams import MOVERS, Stream, multiply, refused, streams
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves
from qcompiler.quant import factors as multiplied
from qcompiler.quant import plan_file
from qcompiler.quant.format import QFormat
from qcompiler.target.formats import resolve_format
from qcompiler.target.schema import Fallback, InputOutput

__all__ = ["FitPowersOfTwo"]

_SUFFIX: Final = "_fitted"
_GRID: Final = 2.0 ** (np.arange(-12, 12) / 24)
"""Factors within one octave: any other is one of these times a power of two, which changes nothing."""
_BINS: Final = 128
_FUSED: Final = ("Relu", "Clip", "Min")
_WORTH: Final = 0.95
"""Share of its error that a stream must get rid of, at least a little, to be changed."""


@dataclass(frozen=True)
class FitPowersOfTwo(Pass):
    """Fit activations to scales that are powers of two; nothing to do for a target with free scales.

    Attributes:
        plan: A ``plan.json`` whose factors are taken instead of measured ones.
    """

    plan: str = ""

    name: ClassVar[str] = "fit-powers-of-two"
    before: ClassVar[frozenset[Fact]] = frozenset({Fact.QDQ})
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.TYPED, Fact.SORTED, Fact.CANONICAL})
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Apply; see the module."""
        form = _form(ctx)
        if form is None:
            return
        for node, reason in refused(model.graph):
            ctx.skip(node, f"its result is not multiplied: {reason}")
        free = [item for item in streams(model.graph) if _may_change(item, ctx)]
        if self.plan:
            factors = _planned(free, multiplied.read(plan_file.load(self.plan)))
        else:
            factors = _measured(model, free, form, ctx)
        values = {value: factor for stream, factor in factors.items() for value in stream.values if factor != 1.0}
        multiply(model.graph, values, ctx.edit, _SUFFIX)
        fitted = sum(factor != 1.0 for factor in factors.values())
        ctx.note(f"{fitted} of {len(free)} groups of activations multiplied to fit scales that are powers of two")


def _form(ctx: Context) -> QFormat | None:
    """The format of activations where its scales are powers of two."""
    if ctx.target is None:
        return None
    bits = resolve_format(ctx.target, ctx.format or ctx.target.default_format).activation_bits
    forms = [form for rule in ctx.target.rules() for form in rule.activations if form.bits == bits]
    return next((form for form in forms if form.power_of_two), None)


def _may_change(stream: Stream, ctx: Context) -> bool:
    """What was not multiplied before; an input where the target takes real numbers and lets a node stay float."""
    if any(multiplied.factor(value) != 1.0 for value in stream.values):
        return False
    fed = any(value.is_graph_input() for value in stream.values)
    target = ctx.target
    return not fed or (
        target is not None and target.fallback is Fallback.FLOAT and target.input_output is InputOutput.FLOAT
    )


def _planned(free: Sequence[Stream], known: Mapping[str, float]) -> dict[Stream, float]:
    found = {stream: [known.get(f"{value.name}{_SUFFIX}", 1.0) for value in stream.values] for stream in free}
    return {stream: next((factor for factor in factors if factor != 1.0), 1.0) for stream, factors in found.items()}


def _measured(model: ir.Model, free: Sequence[Stream], form: QFormat, ctx: Context) -> dict[Stream, float]:
    """The best factor of every stream, from the calibration samples."""
    from qcompiler.calibration import engine

    watched = {stream: [value for value in stream.values if _is_kept(value)] for stream in free}
    names = [str(value.name) for values in watched.values() for value in values]
    if not names:
        return {}
    if ctx.calibration is None:
        hint = "give --calibration DATA (an .npz file or a folder), or --calibration random to try the compiler out"
        raise DataError("fitting activations to powers of two needs calibration samples", hint=hint)
    seen = {name: observers.HistogramObserver(search.least_squares, _BINS * search.FINER) for name in names}
    weights = row_weights.of(ctx.calibration, model.graph)
    engine.collect(model, ctx.calibration, seen, ctx=ctx, row_weights=weights)
    return {
        stream: _best([seen[str(value.name)].histograms[0] for value in values], form)
        for stream, values in watched.items()
    }


def _is_kept(value: ir.Value) -> bool:
    """Whether the tensor will be kept as codes at a scale of its own: not moved from elsewhere, nor clipped at once."""
    producer = value.producer()
    if has_type(producer, *MOVERS):
        return False
    reader = patterns.only_consumer(value, *_FUSED)
    return reader is None or has_type(producer, *_FUSED)


def _best(histograms: Sequence[Histogram], form: QFormat) -> float:
    """The factor with the least sum of relative squared errors; 1 where none is much better."""
    errors = np.zeros(_GRID.size)
    for histogram in histograms:
        power = _power(histogram)
        if power > 0:
            errors += np.array([_error(histogram, factor, form) for factor in _GRID]) / power
    same = int(np.flatnonzero(_GRID == 1.0)[0])
    best = int(np.argmin(errors))
    return float(_GRID[best]) if errors[best] < _WORTH * errors[same] else 1.0


def _error(histogram: Histogram, factor: float, form: QFormat) -> float:
    """Mean squared error at the best power of two once the tensor is multiplied, in units of the original tensor."""
    from qcompiler.calibration.power_of_two import windows

    candidates: NDArray[np.float64] = windows(histogram.low * factor, histogram.high * factor, form) / factor
    free = changed(form, power_of_two=False)
    errors, _ = search.squared_errors(histogram, free, candidates[:, 0], candidates[:, 1])
    return float(errors.min())


def _power(histogram: Histogram) -> float:
    total = histogram.total
    return float(histogram.counts @ histogram.centres() ** 2 / total) if total > 0 else 0.0
