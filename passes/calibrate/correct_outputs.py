"""correct-outputs: a scale and a shift per output channel, folded into the scales of weights and into biases.

Rounding and cutting off change not only the mean of an output but also its size. Both are fitted in closed form
(``output_fit``). The factor goes into the scale of the weight: its codes stay what they are, and the constant becomes
the numbers that these codes now stand for. What was fitted must prove itself on samples that were not used, as in
``correct-bias``; if it does not, everything is put back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from qcompiler.errors import DataError, PassError
from qcompiler.ir import constants, originals
from qcompiler.ir.execute import Runner
from qcompiler.passes.calibrate.bias_room import make_room
from qcompiler.passes.calibrate.judge import Judge
from qcompiler.passes.calibrate.linear import Layer, correctable, restore_bias, set_bias
from qcompiler.passes.calibrate.output_fit import Fit, Scaled, fits
from qcompiler.passes.calibrate.side_by_side import as_many_as_fit
from qcompiler.pipeline.base import Context, Fact, Pass
from qcompiler.quant import arithmetic, state
from qcompiler.quant.operators import WEIGHT_INPUT
from qcompiler.quant.params import QParams

__all__ = ["CorrectOutputs"]


@dataclass(frozen=True)
class CorrectOutputs(Pass):
    """Fit scale and shift of every output channel, where that measures a gain.

    A weight with one scale for all channels takes one factor for all; a target whose scales are powers of two, a weight
    with a scale per block and one that several nodes read take none, and get their shift alone.

    Attributes:
        samples: Most samples that are held in memory.
        guard: Whether the correction must lower the output error on samples it was not fitted on.
    """

    samples: int = 96
    guard: bool = True

    name: ClassVar[str] = "correct-outputs"
    before: ClassVar[frozenset[Fact]] = frozenset({Fact.QDQ})
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.FORMATS, Fact.CALIBRATED})

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Correct the integer layers of the main graph."""
        layers = correctable(model.graph, ctx)
        if not layers:
            return
        if ctx.calibration is None:
            raise DataError("correcting outputs needs calibration samples", hint="give --calibration")
        fitted, judging = ctx.calibration.divided() if self.guard else (ctx.calibration, None)
        reference = Runner(originals.restored(model), threads=ctx.jobs)
        judge = None if judging is None else Judge(reference, judging, ctx, "judge outputs")
        before = judge.error(model) if judge is not None else 0.0
        few = as_many_as_fit(fitted, layers, self.samples)
        found = fits(model, layers, [_scaled(layer, ctx) for layer in layers], few, ctx)
        undo = [_apply(layer, fit, ctx) for layer, fit in zip(layers, found, strict=True)]
        make_room(model.graph, ctx)
        if judge is None or judging is None:
            ctx.note(f"corrected the outputs of {len(layers)} layers (no sample left to judge)")
            return
        after = judge.error(model)
        verdict = f"output error on {len(judging)} samples left out: {before:.4g} before, {after:.4g} after"
        if after < before:
            ctx.note(f"corrected the outputs of {len(layers)} layers; {verdict}")
            return
        for each in undo:
            each.restore(ctx)
        ctx.note(f"the correction of outputs was rejected; {verdict}")


@dataclass(frozen=True, slots=True, eq=False)
class _Before:
    """What a layer was before its correction."""

    layer: Layer
    weight: ir.TensorProtocol | None
    bias: ir.TensorProtocol | None

    def restore(self, ctx: Context) -> None:
        """Put it back."""
        node = self.layer.node
        weight = node.inputs[WEIGHT_INPUT]
        if weight is not None and self.weight is not None and weight.const_value is not self.weight:
            ctx.edit.set_constant(weight, self.weight)
        state.replace_edge_quant(node, WEIGHT_INPUT, self.layer.quant)
        restore_bias(self.layer, self.bias, ctx)


def _scaled(layer: Layer, ctx: Context) -> Scaled:
    """Which factors the scales of a layer's weight can take."""
    weight, params = layer.node.inputs[WEIGHT_INPUT], layer.quant.params
    if ctx.target is not None and (ctx.target.power_of_two_scales or layer.quant.format.power_of_two):
        return "no"
    if weight is None or params is None or len(list(weight.uses())) > 1 or layer.quant.format.block is not None:
        return "no"
    if params.scale.ndim == 0 or params.scale.size == 1:
        return "tensor"
    shape = weight.shape
    groups = layer.node.op_type == "ConvTranspose"  # its groups share the scales of axis 1
    axis = layer.quant.format.axis
    whole = shape is not None and axis is not None and params.scale.size == shape[axis]
    return "channel" if whole and not groups else "no"


def _apply(layer: Layer, fit: Fit, ctx: Context) -> _Before:
    node, bias = layer.node, layer.bias
    weight, quant = node.inputs[WEIGHT_INPUT], layer.quant
    if weight is None or quant.params is None:
        raise PassError("the weight has no content or no scale", where=node.name)
    kept = _Before(layer, weight.const_value, None if bias is None else bias.const_value)
    if (fit.scale != 1).any():
        old = quant.params
        factor = fit.scale[0] if old.scale.size == 1 else fit.scale
        scaled = QParams((old.scale.astype(np.float64) * factor).astype(np.float32), old.zero_point)
        codes = arithmetic.quantize(np.asarray(constants.array(weight), np.float32), old, quant.format)
        originals.keep(weight)
        ctx.edit.set_constant(weight, arithmetic.dequantize(codes, scaled, quant.format).astype(np.float32))
        state.replace_edge_quant(node, WEIGHT_INPUT, quant.with_params(scaled))
    content = constants.array(bias)
    before = 0.0 if content is None else content.astype(np.float64)
    set_bias(layer, before * fit.scale + fit.shift, ctx)
    return kept
