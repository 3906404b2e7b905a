"""fit-ranges: clip activations of few bits where what units compute suffers least.

``calibrate`` clips a tensor where its own squared error is least. What counts is the error of what is computed from it:
sums over many inputs average rounding errors out and feel clipping, which always goes to the same side. So units
(``_units``) are visited in graph order, each from inputs that carry all earlier errors (``_stages``), and the scales of
the codes that its layers read are multiplied by factors, one scale after the other, as long as the squared error of the
unit's output against the float model's falls. Zero points stay: a range grows on both sides alike. The last eighth of
the samples only judges: a unit that is not better there keeps its ranges.

Scales that several units share, those of codes that are moved from one to the next, stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.errors import DataError, ModelError
from qcompiler.passes.calibrate.bias_room import least_factor
from qcompiler.passes.round._layers import RoundLayer, own_layers
from qcompiler.passes.round._stages import Stage, Stages
from qcompiler.passes.round._unit_run import UnitRun, padding_of
from qcompiler.passes.round._units import units
from qcompiler.passes.round._walk import as_many_as_fit
from qcompiler.pipeline.base import Context, Fact, Pass
from qcompiler.quant import state
from qcompiler.quant.format import BYTE
from qcompiler.quant.params import QParams
from qcompiler.quant.state import TensorQuant

__all__ = ["FitRanges"]

_ROUNDS: Final = ((0.7, 0.8, 0.9, 1.12, 1.25, 1.4), (0.95, 1.05))
"""Factors on a scale that are tried, round after round."""
_POWERS: Final = ((0.5, 2.0),)
_DATA_INPUT: Final = 0


@dataclass(slots=True, eq=False)
class _Range:
    """The codes that layers of one unit read with one scale.

    Attributes:
        quant: The decision.
        value: Where it is written; ``None`` where edges have their own.
        readers: Layers that read it.
    """

    quant: TensorQuant
    value: ir.Value | None
    readers: list[ir.Node] = field(default_factory=list)

    @property
    def params(self) -> QParams:
        """Its scale and zero point."""
        if self.quant.params is None:
            raise ValueError("a range without parameters")
        return self.quant.params

    def write(self, factor: float) -> None:
        """Multiply the scale."""
        given = self.params
        grown = QParams(np.asarray(given.scale * np.float32(factor), np.float32), given.zero_point)
        if self.value is not None:
            state.set_value_quant(self.value, self.quant.with_params(grown))
        else:
            for node in self.readers:
                state.set_edge_quant(node, _DATA_INPUT, self.quant.with_params(grown))


@dataclass(frozen=True)
class FitRanges(Pass):
    """Fit ranges of activations below 8 bits to what is computed from them.

    Attributes:
        unit: What is judged: the output of a layer, or of a block between two tensors that carry everything.
        samples: Most samples to look at.
        batch: Samples that are computed together.
        guard: Whether a unit must lower its error on samples that it was not fitted on.
    """

    name: ClassVar[str] = "fit-ranges"
    before: ClassVar[frozenset[Fact]] = frozenset({Fact.QDQ})
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.FORMATS, Fact.CALIBRATED})

    unit: Literal["block", "layer"] = "block"
    samples: int = 48
    batch: int = 8
    guard: bool = True

    def __post_init__(self) -> None:
        for name, number in (("samples", self.samples), ("batch", self.batch)):
            if number < 1:
                raise ValueError(f"{name}={number} is below 1")

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Fit ranges in the main graph."""
        if not any(_narrow(node) for node in model.graph):
            ctx.note("no layer reads codes of less than 8 bits")
            return
        if ctx.calibration is None:
            raise DataError("fitting ranges needs calibration samples", hint="give --calibration")
        layers = own_layers(model.graph, ctx)
        found = units(model.graph, layers, self.unit)
        dataset = as_many_as_fit(ctx.calibration, layers, self.samples)
        stages = Stages(model, found, [], dataset, ctx)
        left = dataset.left_out() if self.guard else 0
        fitted, judging = range(len(dataset) - left), range(len(dataset) - left, len(dataset))
        results: list[tuple[_Range, float]] = []
        for number, stage in enumerate(stages):
            ctx.progress("fit ranges", number, len(found))
            ranges = _ranges(stage.unit.layers, ctx)
            if not ranges:
                continue
            try:
                run = UnitRun(stage, [stages.scale(item.readers[0]) for item in ranges],
                              padding_of(dataset, model.graph, stage, ctx))  # fmt: skip
            except ModelError as error:
                ctx.skip(stage.unit.layers[0].node, f"{stage.unit.name} cannot be computed here: {error}")
                continue
            results += self._fit(stage, stages, run, ranges, (fitted, judging), ctx)
        for item, factor in results:
            item.write(factor)
            ctx.edit.count += 1
        ctx.note(f"fitted {len(results)} ranges{_listed([factor for _, factor in results])}")

    def _fit(
        self,
        stage: Stage,
        stages: Stages,
        run: UnitRun,
        ranges: Sequence[_Range],
        samples: tuple[Sequence[int], Sequence[int]],
        ctx: Context,
    ) -> list[tuple[_Range, float]]:
        """Ranges of one unit that change, and by what; the simulation goes on with them."""
        names = [str(stages.scale(item.readers[0]).name) for item in ranges]
        start = {name: np.asarray(item.params.scale, np.float32) for name, item in zip(names, ranges, strict=True)}
        fitted, judging = samples
        factors = _searched(run, start, dict(zip(names, ranges, strict=True)), fitted, self.batch)
        changed = [(item, factors[name]) for name, item in zip(names, ranges, strict=True) if factors[name] != 1.0]
        if not changed:
            return []
        before, after = (
            run.error(judging or fitted, scales, self.batch) for scales in (start, _scaled(start, factors))
        )
        if judging and not after < before:
            verdict = f"output error on {len(judging)} samples left out: {before:.4g} before, {after:.4g} after"
            ctx.note(f"{stage.unit.name} keeps its ranges; {verdict}")
            return []
        for item, factor in changed:
            for node in item.readers:
                stages.settle(stages.scale(node), item.params.scale * np.float32(factor))
        return changed


def _searched(
    run: UnitRun,
    start: Mapping[str, NDArray[np.float32]],
    ranges: Mapping[str, _Range],
    samples: Sequence[int],
    batch: int,
) -> dict[str, float]:
    """The factor of every scale, by descent along one after the other."""
    factors = dict.fromkeys(start, 1.0)
    least = run.error(samples, start, batch)
    powers = next(iter(ranges.values())).quant.format.power_of_two
    for tried in _POWERS if powers else _ROUNDS:
        for name, item in ranges.items():
            floor = _floor(item)
            best = factors[name]
            for step in tried:
                factor = factors[name] * step
                if factor < floor:
                    continue
                error = run.error(samples, _scaled(start, {**factors, name: factor}), batch)
                if error < least:
                    best, least = factor, error
            factors[name] = best
    return factors


def _scaled(start: Mapping[str, NDArray[np.float32]], factors: Mapping[str, float]) -> dict[str, NDArray[np.float32]]:
    return {name: np.asarray(scale * np.float32(factors[name]), np.float32) for name, scale in start.items()}


def _floor(item: _Range) -> float:
    """Factor below which a bias would no longer fit 32 bits at the scale of its accumulator."""
    least = [factor.max() for node in item.readers if (factor := least_factor(node)) is not None]
    return float(max(least, default=0.0))


def _narrow(node: ir.Node) -> TensorQuant | None:
    """The decision on a node's first input where it is codes of less than 8 bits, and not along a grid."""
    quant = state.edge_quant(node, _DATA_INPUT) if node.inputs else None
    if quant is None or quant.params is None or quant.format.logarithmic:
        return None
    return quant if quant.format.bits < BYTE else None


def _ranges(layers: Sequence[RoundLayer], ctx: Context) -> list[_Range]:
    """The ranges that only these layers read."""
    found: dict[object, _Range] = {}
    for layer in layers:
        node, quant = layer.node, _narrow(layer.node)
        if quant is None:
            continue
        own = isinstance(state.own_edge_quant(node, _DATA_INPUT), TensorQuant)
        if quant.tie is not None or not _reads_alone(layer, layers):
            ctx.skip(node, "what it reads has a scale that other units share")
            continue
        key = (layer.data, own, float(quant.params.scale) if quant.params is not None else 0.0)
        found.setdefault(key, _Range(quant, None if own else layer.data)).readers.append(node)
    return list(found.values())


def _reads_alone(layer: RoundLayer, layers: Sequence[RoundLayer]) -> bool:
    """Whether nothing else reads the layer's input in the same decision."""
    inside = {item.node for item in layers}
    own = state.own_edge_quant(layer.node, _DATA_INPUT)
    return all(use.node in inside for use in layer.data.uses() if state.own_edge_quant(use.node, use.idx) == own)


def _listed(factors: Sequence[float]) -> str:
    return f"; factors {min(factors):.2f} to {max(factors):.2f}, median {np.median(factors):.2f}" if factors else ""
