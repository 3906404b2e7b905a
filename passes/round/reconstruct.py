"""reconstruct: choose codes so that outputs of layers or blocks stay, by gradients (AdaRound, BRECQ).

Units are visited in graph order (``_units``, ``_stages``). Of each the codes, and biases along with them, are fitted to
the float model's output from inputs that carry all earlier errors (``_rebuild``). Where a pass before has chosen codes,
the fit starts from those, as far as they are better than the nearest ones. What was fitted must prove itself: the last
eighth of the samples only judges, and a unit whose error there is not lower than before keeps what it had.

Sources: Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization" (2020), arXiv 2004.10568; Li et
al., "BRECQ: Pushing the Limit of Post-Training Quantization by Block Reconstruction" (2021), arXiv 2102.05426.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import onnx_ir as ir

from qcompiler.errors import DataError, ModelError
from qcompiler.ir import constants, originals
from qcompiler.passes.calibrate.bias_room import make_room
from qcompiler.passes.calibrate.linear import linear_layers
from qcompiler.passes.normalize._rewrite import own_constant
from qcompiler.passes.round._layers import RoundLayer, own_layers, write_codes
from qcompiler.passes.round._rebuild import Fit, Rebuilt, Settings
from qcompiler.passes.round._stages import Bias, Stage, Stages
from qcompiler.passes.round._unit_run import padding_of
from qcompiler.passes.round._units import Unit, units
from qcompiler.passes.round._walk import as_many_as_fit
from qcompiler.pipeline.base import Context, Fact, Pass

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset

__all__ = ["Reconstruct"]


@dataclass(frozen=True)
class Reconstruct(Pass):
    """Round weights for the least error of what units compute, by gradients.

    Attributes:
        unit: What is fitted together: a layer with its activation, a block between two tensors that carry everything,
            or the whole model.
        iterations: Steps per unit.
        batch: Samples per step.
        rate: Size of a step of a rounding variable.
        bias_rate: Size of a step of a bias, in parts of its mean; 0 leaves biases alone.
        strength: Weight of what draws variables to integers.
        keep: How far variables start towards present codes, where those are not the nearest.
        samples: Most samples to look at.
        seconds: After so many seconds no further unit is begun; 0 sets no limit.
        seed: Which batches are drawn.
        guard: Whether a unit must lower its error on samples that it was not fitted on.
    """

    name: ClassVar[str] = "reconstruct"
    before: ClassVar[frozenset[Fact]] = frozenset({Fact.QDQ})
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.FORMATS, Fact.CALIBRATED})

    unit: Literal["block", "layer", "model"] = "block"
    iterations: int = 200
    batch: int = 8
    rate: float = 0.1
    bias_rate: float = 0.001
    strength: float = 0.2
    keep: float = 0.8
    samples: int = 128
    seconds: float = 0.0
    seed: int = 0
    guard: bool = True

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Round the weights of the main graph."""
        begun = time.monotonic()
        layers = own_layers(model.graph, ctx)
        if not layers:
            return
        if ctx.calibration is None:
            raise DataError("reconstruction needs calibration samples", hint="give --calibration")
        found = units(model.graph, layers, self.unit)
        biases = _biases(model.graph, layers) if self.bias_rate > 0 else {}
        dataset = as_many_as_fit(ctx.calibration, layers, self.samples)
        stages = Stages(model, found, list(biases.values()), dataset, ctx)
        results: list[tuple[Unit, Rebuilt]] = []
        shares: list[float] = []
        for number, stage in enumerate(stages):
            ctx.progress("reconstruct", number, len(found))
            if self.seconds and time.monotonic() - begun > self.seconds:
                left = ", ".join(unit.name for unit in found[number:])
                ctx.warn(f"stopped after {self.seconds:g} s; these keep their codes: {left}")
                break
            rebuilt, share = self._rebuild(stage, stages, biases, dataset, ctx)
            if rebuilt is not None:
                results.append((stage.unit, rebuilt))
                shares.append(share)
        for unit, rebuilt in results:
            _write(unit, rebuilt, biases, ctx)
        make_room(model.graph, ctx)
        median = f"; output error {np.median(shares):.3g} of what it was (median)" if shares else ""
        ctx.note(f"reconstructed {len(results)} of {len(found)} units{median}")

    def _rebuild(
        self, stage: Stage, stages: Stages, biases: dict[ir.Node, Bias], dataset: Dataset, ctx: Context
    ) -> tuple[Rebuilt | None, float]:
        """What the unit gets, ``None`` where it keeps what it has, and the share of the error that is left."""
        unit = stage.unit
        own = [biases[layer.node] for layer in unit.layers if layer.node in biases]
        try:
            fit = Fit(stage, stages, own, padding_of(dataset, stages.model.graph, stage, ctx))
            rebuilt, share = self._fitted(fit, stage, dataset, ctx)
        except ModelError as error:
            for layer in unit.layers:
                ctx.skip(layer.node, f"{unit.name} cannot be differentiated and keeps its codes: {error}")
                stages.settle(stages.weight(layer), layer.tensor(layer.rounded()))
            return None, 1.0
        for value, array in fit.named(rebuilt or fit.start()):
            stages.settle(value, array)
        return rebuilt, share

    def _fitted(self, fit: Fit, stage: Stage, dataset: Dataset, ctx: Context) -> tuple[Rebuilt | None, float]:
        """Codes and biases that the samples left out confirm, and the share of the error that is left there."""
        count = len(stage.samples)
        left = dataset.left_out() if self.guard else 0
        fitted, judging = range(count - left), range(count - left if left else 0, count)
        start = fit.start()
        rebuilt = fit.fit(start, fitted, self._settings())
        before, after = (
            fit.error(judging, fit.constants(item.codes, item.biases), self.batch) for item in (start, rebuilt)
        )
        share = after / before if before > 0 else 1.0
        if left and not after < before:
            verdict = f"output error on {left} samples left out: {before:.4g} before, {after:.4g} after"
            ctx.note(f"{stage.unit.name} keeps its codes; {verdict}")
            return None, share
        return rebuilt, share

    def _settings(self) -> Settings:
        return Settings(self.iterations, self.batch, self.rate, self.bias_rate, self.strength, self.keep, self.seed)


def _biases(graph: ir.Graph, layers: list[RoundLayer]) -> dict[ir.Node, Bias]:
    """The constant biases of layers, where one is there."""
    own = {layer.node for layer in layers}
    found = {}
    for node, layer in linear_layers(graph):
        if not isinstance(layer, str) and node in own and layer.bias is not None and constants.is_constant(layer.bias):
            found[node] = Bias(layer.bias_node, layer.bias_index)
    return found


def _write(unit: Unit, rebuilt: Rebuilt, biases: dict[ir.Node, Bias], ctx: Context) -> None:
    for layer, codes in zip(unit.layers, rebuilt.codes, strict=True):
        originals.keep(layer.weight)
        write_codes(layer, codes, ctx)
    own = [biases[layer.node] for layer in unit.layers if layer.node in biases]
    for bias, array in zip(own, rebuilt.biases, strict=True):
        value = own_constant(ctx.edit, bias.node, bias.index)
        originals.keep(value)
        ctx.edit.set_constant(value, np.asarray(array, np.float32))
