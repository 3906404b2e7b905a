"""correct-bias: give every output channel back the mean that rounding its weights took away.

A linear layer computes ``y = W x + b``; with rounded weights ``Ŵ`` the output is off by ``(W - Ŵ) x``, whose mean over
the calibration samples is ``E = (W - Ŵ) E[x]`` because the layer is linear: the layer applied to the *mean input map*
with the weight error as its weight (for a convolution the map keeps its spatial extent, so that zero padding at the
border counts as it does at run time). ``mean(E)`` over everything but the channel axis is added to the bias.

One float run per sample collects the mean maps (memory: one map per layer, whatever the number of samples); no layer
depends on another's correction, so no order is needed. (Empirical bias correction: Nagel et al., "Data-Free
Quantization Through Weight Equalization and Bias Correction", 2019, section 4.2.)

What was fitted must prove itself on samples that were not used: the last eighth of the calibration samples is left
out of the means and judges; where the outputs of the corrected model are not closer to the float model's there, the
biases are put back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.errors import DataError, PassError
from qcompiler.ir import constants
from qcompiler.ir.execute import Runner
from qcompiler.passes.calibrate.linear import Layer, linear_layers, response, weight_error
from qcompiler.passes.place.simulate import materialized
from qcompiler.pipeline.base import Context, Fact, Pass
from qcompiler.quant.operators import WEIGHT_INPUT, output_channel_axis

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset

__all__ = ["CorrectBias"]


@dataclass(frozen=True)
class CorrectBias(Pass):
    """Add the mean error of rounded weights to the bias of each linear layer, where that measures a gain.

    Attributes:
        guard: Whether the correction must lower the output error on samples it was not fitted on.
    """

    name: ClassVar[str] = "correct-bias"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.FORMATS, Fact.CALIBRATED})

    guard: bool = True

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Correct the biases of the main graph."""
        layers = _correctable(model, ctx)
        if not layers:
            return
        if ctx.calibration is None:
            raise DataError(
                "bias correction needs calibration samples", hint="give --calibration DATA or --no-bias-correction"
            )
        fitted, judging = _divide(ctx.calibration) if self.guard else (ctx.calibration, None)
        # The reference keeps the biases of now: later edits replace tensors, they never write into them.
        judge = None if judging is None else _Judge(Runner(model), judging, ctx)
        before = judge.error(model) if judge is not None else 0.0
        saved = [(layer, layer.bias, None if layer.bias is None else layer.bias.const_value) for layer in layers]
        means = _mean_inputs(model, layers, fitted, ctx)
        for layer in layers:
            _correct(layer, means[str(_data(layer).name)], ctx)
        if judge is None or judging is None:
            ctx.note(f"corrected {len(layers)} biases (no guard)")
            return
        after = judge.error(model)
        verdict = f"output error on {len(judging)} samples left out: {before:.4g} before, {after:.4g} after"
        if after < before:
            ctx.note(f"corrected {len(layers)} biases; {verdict}")
            return
        for layer, bias, tensor in saved:
            _restore(layer, bias, tensor, ctx)
        ctx.note(f"bias correction was rejected; {verdict}")


def _correctable(model: ir.Model, ctx: Context) -> list[Layer]:
    layers = []
    for node, layer in linear_layers(model.graph):
        if isinstance(layer, str):
            ctx.skip(node, layer)
        else:
            layers.append(layer)
    return layers


def _divide(dataset: Dataset) -> tuple[Dataset, Dataset | None]:
    """Samples to fit on, and the last eighth (1 to 16) to judge on; too few samples cannot judge."""
    count = len(dataset)
    if count < 2:
        return dataset, None
    judging = min(16, max(1, count // 8))
    return dataset.subset(range(count - judging)), dataset.subset(range(count - judging, count))


def _data(layer: Layer) -> ir.Value:
    value = layer.node.inputs[0]
    if value is None:
        raise PassError("the node has no data input", where=layer.node.name)
    return value


def _mean_inputs(
    model: ir.Model, layers: list[Layer], dataset: Dataset, ctx: Context
) -> dict[str, NDArray[np.float64]]:
    from qcompiler.calibration import row_weights
    from qcompiler.calibration.engine import collect
    from qcompiler.calibration.observers import MeanObserver

    observers = {str(_data(layer).name): MeanObserver(_mean_axis(layer)) for layer in layers}
    collect(model, dataset, observers, ctx=ctx, row_weights=row_weights.find(dataset.inputs))
    return {name: observer.mean() for name, observer in observers.items()}


def _mean_axis(layer: Layer) -> int | None:
    """The axis whose means suffice: channels, except where a convolution's border sees padding.

    A convolution over maps of changing size has no mean map; its border then counts like its interior.
    """
    if layer.node.op_type in ("MatMul", "Gemm"):
        return -1
    shape = _data(layer).shape
    return None if shape is not None and all(isinstance(size, int) for size in shape[1:]) else 1


def _correct(layer: Layer, mean: NDArray[np.float64], ctx: Context) -> None:
    error = response(layer.node, _as_map(layer, mean), weight_error(layer))
    axis = output_channel_axis(layer.node, error.ndim)
    shift = error.mean(axis=tuple(i for i in range(error.ndim) if i != axis), dtype=np.float64)
    bias = layer.bias
    old = constants.array(bias)
    if bias is None or old is None:
        new = ctx.edit.constant(f"{layer.node.name}_bias", shift.astype(np.float32))
        ctx.edit.set_input(layer.bias_node, layer.bias_index, new)
        return
    ctx.edit.set_constant(bias, (np.asarray(old, np.float64) + shift).astype(np.float32))


def _as_map(layer: Layer, mean: NDArray[np.float64]) -> NDArray[np.float32]:
    """Means as the data operand of the layer; per-channel means of a convolution fill one kernel window."""
    data = mean.astype(np.float32)
    if data.ndim > 1 or layer.node.op_type in ("MatMul", "Gemm"):
        return data.reshape(1, -1) if data.ndim == 1 else data
    weight = layer.node.inputs[WEIGHT_INPUT]
    shape = () if weight is None or weight.shape is None else weight.shape
    window = tuple(3 * size for size in shape[2:] if isinstance(size, int))
    return np.broadcast_to(data.reshape(1, -1, *[1] * len(window)), (1, data.size, *window)).copy()


def _restore(layer: Layer, bias: ir.Value | None, tensor: ir.TensorProtocol | None, ctx: Context) -> None:
    if bias is not None and tensor is not None:
        ctx.edit.set_constant(bias, tensor)
        return
    added = layer.bias
    ctx.edit.set_input(layer.bias_node, layer.bias_index, None)
    if added is not None:
        ctx.edit.remove_unused([added])


@dataclass(frozen=True, slots=True)
class _Judge:
    """Measures candidates against one float reference on samples left out of the fit."""

    reference: Runner
    dataset: Dataset
    ctx: Context

    def error(self, model: ir.Model) -> float:
        """Mean over outputs of ``sum (a - b)^2 / sum a^2``, ``b`` from the quantized simulation of ``model``."""
        candidate = Runner(materialized(model))
        noise: dict[str, float] = {}
        power: dict[str, float] = {}
        for index, feed in enumerate(self.dataset):
            self.ctx.progress("judging bias correction", index + 1, len(self.dataset))
            got = candidate.run(feed)
            for name, array in self.reference.run(feed).items():
                if array.dtype.kind != "f":
                    continue
                expected = array.astype(np.float64)
                noise[name] = noise.get(name, 0.0) + float(np.square(expected - got[name]).sum())
                power[name] = power.get(name, 0.0) + float(np.square(expected).sum())
        ratios = [noise[name] / power[name] for name in noise if power[name] > 0]
        return float(np.mean(ratios)) if ratios else 0.0
