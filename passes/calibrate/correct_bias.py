"""correct-bias: give every output channel back the mean that quantization took away.

Three ways to measure it: ``sequential`` (quantized inputs, layer after layer, on a few samples), ``analytic`` (mean
float inputs, one float run per sample) and ``statistics`` (mean inputs from kept BatchNormalization statistics: no
sample; those there are still judge). ``auto`` is the first, and the last where there are such statistics and samples
that were made up and are not near real ones (``qcompiler.calibration.trust``). What was fitted must prove itself on
samples that were not used: the last eighth of the calibration samples is left out and judges; where the outputs of the
corrected model are not closer to the float model's there, the biases are put back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.errors import DataError
from qcompiler.ir import constants, originals
from qcompiler.ir.execute import Runner
from qcompiler.passes.calibrate import bias_analytic, bias_sequential, bias_statistics
from qcompiler.passes.calibrate.bias_room import make_room
from qcompiler.passes.calibrate.judge import Judge
from qcompiler.passes.calibrate.linear import Layer, correctable, restore_bias, set_bias
from qcompiler.passes.calibrate.side_by_side import as_many_as_fit
from qcompiler.pipeline.base import Context, Fact, Pass
from qcompiler.quant import state
from qcompiler.quant.operators import WEIGHT_INPUT

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset

__all__ = ["CorrectBias"]


@dataclass(frozen=True)
class CorrectBias(Pass):
    """Add each layer's mean output error to its bias, where that measures a gain.

    Attributes:
        method: How the error is measured; see the module.
        samples: Most samples that the sequential method holds in memory.
        guard: Whether the correction must lower the output error on samples it was not fitted on.
    """

    name: ClassVar[str] = "correct-bias"
    before: ClassVar[frozenset[Fact]] = frozenset({Fact.QDQ})
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.FORMATS, Fact.CALIBRATED})

    method: Literal["auto", "sequential", "analytic", "statistics"] = "auto"
    samples: int = 96
    guard: bool = True

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Correct the biases of the main graph."""
        layers = correctable(model.graph, ctx)
        if not layers:
            return
        fitted, judging = self._samples(ctx)
        # The reference is the float model: later edits replace tensors, they never write into them.
        reference = Runner(originals.restored(model), threads=ctx.jobs)
        judge = None if judging is None else Judge(reference, judging, ctx, "judge biases")
        method = self._method(model, fitted)
        if method == "statistics" != self.method:
            ctx.note("mean errors follow from BatchNormalization statistics: the samples are unlike real ones")
        errors = self._errors(model, layers, fitted, method, ctx)
        found = [(layer, error) for layer, error in zip(layers, errors, strict=True) if error is not None]
        layers = [layer for layer, _ in found]
        if not layers:
            ctx.note("no bias corrected: no statistics of BatchNormalization were kept")
            return
        before = judge.error(model) if judge is not None else 0.0
        saved = [(layer, None if layer.bias is None else layer.bias.const_value) for layer in layers]
        for layer, error in found:
            content = constants.array(layer.bias)
            set_bias(layer, error if content is None else content.astype(np.float64) + error, ctx)
        make_room(model.graph, ctx)
        if judge is None or judging is None:
            ctx.note(f"corrected {len(layers)} biases (no sample left to judge)")
            return
        after = judge.error(model)
        verdict = f"output error on {len(judging)} samples left out: {before:.4g} before, {after:.4g} after"
        if after < before:
            ctx.note(f"corrected {len(layers)} biases; {verdict}")
            return
        for layer, tensor in saved:
            restore_bias(layer, tensor, ctx)
            state.replace_edge_quant(layer.node, WEIGHT_INPUT, layer.quant)
        ctx.note(f"bias correction was rejected; {verdict}")

    def _samples(self, ctx: Context) -> tuple[Dataset | None, Dataset | None]:
        """Samples to fit on and samples to judge on."""
        if ctx.calibration is None and self.method != "statistics":
            raise DataError(
                "bias correction needs calibration samples", hint="give --calibration or --no-bias-correction"
            )
        if ctx.calibration is None or not self.guard:
            return ctx.calibration, None
        return ctx.calibration.divided()

    def _method(self, model: ir.Model, dataset: Dataset | None) -> str:
        """What ``auto`` stands for with this model and these samples."""
        if self.method != "auto":
            return self.method
        unlike = dataset is not None and dataset.made is not None and not dataset.made.near
        return "statistics" if unlike and bias_statistics.moments(model.graph) else "sequential"

    def _errors(
        self, model: ir.Model, layers: list[Layer], dataset: Dataset | None, method: str, ctx: Context
    ) -> Sequence[NDArray[np.float64] | None]:
        if method == "statistics" or dataset is None:
            return bias_statistics.mean_errors(model, layers, ctx)
        if method == "analytic":
            return bias_analytic.mean_errors(model, layers, dataset, ctx)
        few = as_many_as_fit(dataset, layers, self.samples)
        return bias_sequential.mean_errors(model, layers, few, ctx)
