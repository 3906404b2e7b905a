"""reestimate-batch-norm: means and variances of BatchNormalization as they are once weights are rounded.

A BatchNormalization that stays behind its layer removes whatever mean and size the layer gives. Rounding changes both,
so the statistics of training no longer fit; moved by what rounding does to calibration samples, they take the change
back, channel by channel, before they are folded (He & Cheng, "Learning Compression from Limited Unlabeled Data", 2018;
Sun et al., "Hybrid 8-bit Floating Point Training and Inference for Deep Neural Networks", 2019). The pass must run
before ``fold-batch-norm``: ``import-model,reestimate-batch-norm,normalize``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.errors import DataError, UsageError
from qcompiler.ir import constants
from qcompiler.ir.copies import shared_copy
from qcompiler.ir.execute import Runner
from qcompiler.ir.operators import has_type
from qcompiler.ir.parts import SegmentedRun
from qcompiler.passes.calibrate.judge import relative_error
from qcompiler.passes.normalize._affine import batch_norm
from qcompiler.passes.normalize._rewrite import own_constant
from qcompiler.pipeline.base import Context, Fact, Pass
from qcompiler.quant.operators import WEIGHT_INPUT
from qcompiler.target.axes import channel_axis

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset
    from qcompiler.calibration.row_weights import FeedWeights

__all__ = ["ReestimateBatchNorm"]

_MEAN, _VARIANCE = 3, 4
"""Inputs of BatchNormalization."""
_SHARES = np.linspace(1.0, 0.4, 25)
"""Candidates for the largest code, as shares of the largest weight."""
_LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_Statistics = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class ReestimateBatchNorm(Pass):
    """Measure mean and variance of every BatchNormalization anew, behind weights rounded to ``bits``.

    The new statistics are kept where they bring the outputs of the model with rounded weights closer to the float
    model's on samples that were left out. Passes behind take the result for the float model: a bias correction that
    follows measures against it, so that the two are alternatives.

    Attributes:
        bits: Bits of weights, symmetric, at the scales with the least squared error.
        granularity: Whether a weight has a scale per output channel or one.
        samples: Most samples that are held in memory.
        guard: Whether the new statistics must lower the output error on samples they were not measured on.
    """

    bits: int = 8
    granularity: Literal["channel", "tensor"] = "channel"
    samples: int = 96
    guard: bool = True

    name: ClassVar[str] = "reestimate-batch-norm"
    before: ClassVar[frozenset[Fact]] = frozenset({Fact.QDQ})
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.CANONICAL, Fact.TYPED, Fact.SORTED})

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Apply; see the class."""
        if not 2 <= self.bits <= 16:
            hint = "from 2 to 16"
            raise UsageError(f"weights of {self.bits} bits", where=self.name, hint=hint)
        nodes = _nodes(model, ctx)
        if not nodes:
            ctx.note("no BatchNormalization is left to measure: this pass belongs before fold-batch-norm")
            return
        if ctx.calibration is None:
            raise DataError("measuring BatchNormalization needs calibration samples", hint="give --calibration")
        fitted, judging = ctx.calibration.divided() if self.guard else (ctx.calibration, None)
        few = fitted.evenly(self.samples)
        rounded = self._rounded(model)
        found = _measured(model, rounded, nodes, few, ctx)
        if judging is None:
            _write(nodes, found, ctx)
            ctx.note(f"measured {len(nodes)} BatchNormalization nodes anew (no sample left to judge)")
            return
        reference = Runner(model, threads=ctx.jobs)
        before = relative_error(reference, Runner(rounded, threads=ctx.jobs), judging, ctx, "judge statistics")
        _place(rounded, nodes, found)
        after = relative_error(reference, Runner(rounded, threads=ctx.jobs), judging, ctx, "judge statistics")
        verdict = f"output error on {len(judging)} samples left out: {before:.4g} before, {after:.4g} after"
        if after < before:
            _write(nodes, found, ctx)
            ctx.note(f"measured {len(nodes)} BatchNormalization nodes anew; {verdict}")
        else:
            ctx.note(f"new statistics of BatchNormalization were rejected; {verdict}")

    def _rounded(self, model: ir.Model) -> ir.Model:
        """A copy whose weights are rounded."""
        copy = shared_copy(model)
        for node in copy.graph:
            weight = node.inputs[WEIGHT_INPUT] if has_type(node, *_LINEAR) else None
            content = constants.array(weight)
            if weight is not None and content is not None and weight.is_initializer():
                axis = channel_axis(node) if self.granularity == "channel" else None
                weight.const_value = ir.Tensor(_round(content, self.bits, axis), name=weight.name)
        return copy


def _nodes(model: ir.Model, ctx: Context) -> list[ir.Node]:
    """BatchNormalization nodes whose statistics are constants."""
    nodes = []
    for node in model.graph:
        if not has_type(node, "BatchNormalization"):
            continue
        affine, reason = batch_norm(node)
        source = node.inputs[0]
        if affine is None:
            ctx.skip(node, reason)
        elif source is None or source.producer() is None:
            ctx.skip(node, "it normalizes an input of the model, which no rounding changes")
        elif len(list(source.uses())) > 1 or source.is_graph_output():
            ctx.skip(node, "something else reads what it normalizes, and is to get that unchanged")
        else:
            nodes.append(node)
    position = {node: index for index, node in enumerate(model.graph)}
    return sorted(nodes, key=lambda node: _stop(node, position))


def _stop(node: ir.Node, position: dict[ir.Node, int]) -> int:
    """Where in the graph its input is made: runs stop there, in order."""
    producer = node.inputs[0].producer() if node.inputs[0] is not None else None
    return -1 if producer is None else position[producer]


def _round(weight: NDArray[Any], bits: int, axis: int | None) -> NDArray[np.float32]:
    """Nearest codes at the scale with the least squared error, per slice along ``axis`` or of the whole."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    wide, limit = weight.astype(np.float64), 2 ** (bits - 1) - 1
    largest = np.abs(wide).max(axis=others, keepdims=True) / limit
    largest = np.where(largest > 0, largest, 1.0)
    best, least = wide, np.full(largest.shape, np.inf)
    for share in _SHARES:
        scale = largest * share
        rounded = np.clip(np.rint(wide / scale), -limit, limit) * scale
        error = np.square(rounded - wide).sum(axis=others, keepdims=True)
        best = np.where(error < least, rounded, best)
        least = np.minimum(error, least)
    return np.asarray(best, np.float32)


def _measured(
    model: ir.Model, rounded: ir.Model, nodes: list[ir.Node], dataset: Dataset, ctx: Context
) -> list[_Statistics]:
    """New mean and variance of every node, everything before it already normalized by the new ones.

    Few samples have a mean and a variance of their own, which is not that of training. So what is taken from them is
    how rounding changes both: the mean moves by the difference, the variance grows by the ratio.
    """
    from qcompiler.calibration import row_weights

    if (text := row_weights.unheard(dataset, "statistics of BatchNormalization")) is not None:
        ctx.note(text)
    samples = list(dataset)
    rows = row_weights.of(dataset)
    counted = [None if rows is None else rows.of_feed(sample, number) for number, sample in enumerate(samples)]
    runs = [SegmentedRun.of(each, samples, threads=ctx.jobs) for each in (model, rounded)]
    stops = [str(node.inputs[0].name) for node in nodes if node.inputs[0] is not None]
    found = []
    steps = zip(nodes, runs[0].advance(stops), runs[1].advance(stops), strict=True)
    for number, (node, stop, _) in enumerate(steps):
        ctx.progress("measure statistics", number + 1, len(nodes))
        (mean, variance), (mean_now, variance_now) = (
            _moments([sample[stop] for sample in run.samples], counted) for run in runs
        )
        old = _old(node)
        ratio = np.where(variance > 0, variance_now / np.where(variance > 0, variance, 1.0), 1.0)
        new = old[0] + mean_now - mean, old[1] * ratio
        found.append(new)
        for sample in runs[1].samples:
            sample[stop] = _as_before(node, sample[stop], *new)
    return found


def _moments(arrays: list[NDArray[Any]], rows: list[FeedWeights | None]) -> _Statistics:
    """Mean and variance per channel of axis 1, over samples by their weights."""
    others = tuple(i for i in range(arrays[0].ndim) if i != 1)
    shape = [-1 if i == 1 else 1 for i in range(arrays[0].ndim)]
    shares = [None if row is None else row.of_samples(array.shape) for row, array in zip(rows, arrays, strict=True)]
    factors = [
        np.ones((1,) * array.ndim) if share is None else share for share, array in zip(shares, arrays, strict=True)
    ]
    pairs = list(zip(arrays, factors, strict=True))
    count = sum(np.broadcast_to(factor, array.shape).sum() / array.shape[1] for array, factor in pairs)
    mean = np.sum([(array * factor).sum(axis=others, dtype=np.float64) for array, factor in pairs], axis=0) / count
    spread = [
        (np.square(array - mean.reshape(shape)) * factor).sum(axis=others, dtype=np.float64) for array, factor in pairs
    ]
    return mean, np.sum(spread, axis=0) / count


def _old(node: ir.Node) -> _Statistics:
    mean, variance = (np.asarray(constants.array(node.inputs[index]), np.float64) for index in (_MEAN, _VARIANCE))
    return mean, variance


def _as_before(
    node: ir.Node, array: NDArray[Any], mean: NDArray[np.float64], variance: NDArray[np.float64]
) -> NDArray[np.float32]:
    """What the node with its old statistics must read to give what it will give of ``array`` with the new ones."""
    old = _old(node)
    epsilon = float(node.attributes.get_float("epsilon", 1e-5) or 0.0)
    factor = np.sqrt((old[1] + epsilon) / (variance + epsilon))
    shape = [-1 if i == 1 else 1 for i in range(array.ndim)]
    moved = (array - mean.reshape(shape)) * factor.reshape(shape) + old[0].reshape(shape)
    return np.asarray(moved, np.float32)


def _place(rounded: ir.Model, nodes: list[ir.Node], found: list[_Statistics]) -> None:
    """Put new statistics into a copy of the model."""
    twins = {node.name: node for node in rounded.graph}
    for node, statistics in zip(nodes, found, strict=True):
        for index, array in zip((_MEAN, _VARIANCE), statistics, strict=True):
            value = ir.Value(name=f"{node.name}_reestimated_{index}", const_value=ir.Tensor(array.astype(np.float32)))
            value.shape, value.type = ir.Shape(array.shape), ir.TensorType(ir.DataType.FLOAT)
            rounded.graph.register_initializer(value)
            twins[node.name].replace_input_with(index, value)


def _write(nodes: list[ir.Node], found: list[_Statistics], ctx: Context) -> None:
    for node, statistics in zip(nodes, found, strict=True):
        for index, array in zip((_MEAN, _VARIANCE), statistics, strict=True):
            ctx.edit.set_constant(own_constant(ctx.edit, node, index), array.astype(np.float32))
