"""correct-bias: give every output channel back the mean that quantization took away.

Three ways to measure it: ``sequential`` (quantized inputs, layer after layer, on a few samples), ``analytic`` (mean
float inputs, one float run per sample) and ``statistics`` (mean inputs from kept BatchNormalization statistics: no
sample; those there are still judge). What was fitted must prove itself on samples that were not used: the last
eighth of the calibration samples is left out and judges; where the outputs of the corrected model are not closer to
the float model's there, the biases are put back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.errors import DataError
from qcompiler.ir import constants, originals
from qcompiler.ir.execute import Runner
from qcompiler.passes.calibrate import bias_analytic, bias_sequential, bias_statistics
from qcompiler.passes.calibrate.judge import Judge
from qcompiler.passes.calibrate.linear import Layer, linear_layers
from qcompiler.pipeline.base import Context, Fact, Pass

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset

__all__ = ["MEMORY", "CorrectBias", "divide", "live_bytes"]

MEMORY: Final = 192 << 20
"""Bytes of live tensors that the sequential method may hold: fewer samples where they are large."""


@dataclass(frozen=True)
class CorrectBias(Pass):
    """Add each layer's mean output error to its bias, where that measures a gain.

    Attributes:
        method: How the error is measured.
        samples: Most samples that the sequential method holds in memory.
        guard: Whether the correction must lower the output error on samples it was not fitted on.
    """

    name: ClassVar[str] = "correct-bias"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.FORMATS, Fact.CALIBRATED})

    method: Literal["sequential", "analytic", "statistics"] = "sequential"
    samples: int = 96
    guard: bool = True

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Correct the biases of the main graph."""
        layers = _correctable(model, ctx)
        if not layers:
            return
        fitted, judging = self._samples(ctx)
        # The reference is the float model: later edits replace tensors, they never write into them.
        reference = Runner(originals.restored(model), threads=ctx.jobs)
        judge = None if judging is None else Judge(reference, judging, ctx, "judge biases")
        errors = self._errors(model, layers, fitted, ctx)
        found = [(layer, error) for layer, error in zip(layers, errors, strict=True) if error is not None]
        layers = [layer for layer, _ in found]
        if not layers:
            ctx.note("no bias corrected: no statistics of BatchNormalization were kept")
            return
        before = judge.error(model) if judge is not None else 0.0
        saved = [(layer, layer.bias, None if layer.bias is None else layer.bias.const_value) for layer in layers]
        for layer, error in found:
            _add_to_bias(layer, error, ctx)
        if judge is None or judging is None:
            ctx.note(f"corrected {len(layers)} biases (no sample left to judge)")
            return
        after = judge.error(model)
        verdict = f"output error on {len(judging)} samples left out: {before:.4g} before, {after:.4g} after"
        if after < before:
            ctx.note(f"corrected {len(layers)} biases; {verdict}")
            return
        for layer, bias, tensor in saved:
            _restore(layer, bias, tensor, ctx)
        ctx.note(f"bias correction was rejected; {verdict}")

    def _samples(self, ctx: Context) -> tuple[Dataset | None, Dataset | None]:
        """Samples to fit on and samples to judge on."""
        if ctx.calibration is None and self.method != "statistics":
            raise DataError(
                "bias correction needs calibration samples", hint="give --calibration or --no-bias-correction"
            )
        if ctx.calibration is None or not self.guard:
            return ctx.calibration, None
        return divide(ctx.calibration)

    def _errors(
        self, model: ir.Model, layers: list[Layer], dataset: Dataset | None, ctx: Context
    ) -> Sequence[NDArray[np.float64] | None]:
        if self.method == "statistics" or dataset is None:
            return bias_statistics.mean_errors(model, layers, ctx)
        if self.method == "analytic":
            return bias_analytic.mean_errors(model, layers, dataset, ctx)
        count = max(1, min(self.samples, len(dataset), MEMORY // max(1, live_bytes(layers))))
        few = dataset.subset(range(0, len(dataset), len(dataset) // count)[:count])
        return bias_sequential.mean_errors(model, layers, few, ctx)


def _correctable(model: ir.Model, ctx: Context) -> list[Layer]:
    layers = []
    for node, layer in linear_layers(model.graph):
        if isinstance(layer, str):
            ctx.skip(node, layer)
        else:
            layers.append(layer)
    return layers


def live_bytes(layers: list[Layer]) -> int:
    """About what one sample holds at the widest cut, in both models; layers of unknown size count as nothing."""
    sizes = [0]
    for layer in layers:
        for value in (*layer.node.inputs[:1], *layer.bias_node.outputs):
            known = [] if value is None or value.shape is None else [d for d in value.shape if isinstance(d, int)]
            sizes.append(math.prod(known) * 4)
    return 4 * max(sizes)


def divide(dataset: Dataset) -> tuple[Dataset, Dataset | None]:
    """Samples to fit on, and the last eighth (1 to 16) to judge on; too few samples cannot judge."""
    count = len(dataset)
    if count < 2:
        return dataset, None
    judging = min(16, max(1, count // 8))
    return dataset.subset(range(count - judging)), dataset.subset(range(count - judging, count))


def _add_to_bias(layer: Layer, shift: NDArray[np.float64], ctx: Context) -> None:
    bias = layer.bias
    old = constants.array(bias)
    if bias is None or old is None:
        new = ctx.edit.constant(f"{layer.node.name}_bias", shift.astype(np.float32))
        originals.keep(new, ir.tensor(np.zeros_like(shift, np.float32)))
        ctx.edit.set_input(layer.bias_node, layer.bias_index, new)
    else:
        originals.keep(bias)
        ctx.edit.set_constant(bias, (np.asarray(old, np.float64) + shift).astype(np.float32))


def _restore(layer: Layer, bias: ir.Value | None, tensor: ir.TensorProtocol | None, ctx: Context) -> None:
    if bias is not None and tensor is not None:
        ctx.edit.set_constant(bias, tensor)
        return
    added = layer.bias
    ctx.edit.set_input(layer.bias_node, layer.bias_index, None)
    if added is not None:
        ctx.edit.remove_unused([added])
