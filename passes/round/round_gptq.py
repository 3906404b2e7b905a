"""round-gptq: choose codes so that the layer's outputs stay, not its weights.

Layers are visited in graph order. At each one the second moments of its inputs are taken (``_statistics``), its weights
are rounded one input after the other while the others make up for the error (``_successive``), and a refinement of
single codes follows where asked for. What was fitted must prove itself: the last eighth of the samples only judges,
and a layer whose output error there is not lower than with the nearest codes keeps those.

Scales are found before, by ``calibrate-weights``, and stay; biases are left to ``correct-bias``, which runs behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.errors import DataError
from qcompiler.passes.round._descent import descend
from qcompiler.passes.round._layers import RoundLayer, own_weight, roundable_layers, write_codes
from qcompiler.passes.round._problem import Columns
from qcompiler.passes.round._statistics import Rows, Statistics, take
from qcompiler.passes.round._successive import round_successively
from qcompiler.passes.round._walk import Walk, live_bytes
from qcompiler.pipeline.base import Context, Fact, Pass

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset

__all__ = ["RoundGptq"]

MEMORY: Final = 512 << 20
"""Bytes of live tensors that samples may hold: fewer samples where they are large."""
HELD_ROWS: Final = 4096
"""Rows that judge a layer."""


@dataclass(frozen=True)
class RoundGptq(Pass):
    """Round weights for the least error of each layer's outputs (GPTQ).

    Attributes:
        inputs: Whether a layer is fitted to the inputs that it will get, errors of earlier layers included, or to those
            of the float model.
        damping: Share of the mean diagonal that is added to the diagonal of the Hessian.
        sweeps: Sweeps of coordinate descent behind it; 0 leaves the codes as they are.
        samples: Most samples to look at.
        rows: Most rows of one sample that a layer is fitted on; 0 chooses by the layer's size.
        guard: Whether codes must lower the output error on samples they were not fitted on.
    """

    name: ClassVar[str] = "round-gptq"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.FORMATS, Fact.CALIBRATED})

    inputs: Literal["quantized", "float"] = "quantized"
    damping: float = 0.01
    sweeps: int = 0
    samples: int = 256
    rows: int = 0
    guard: bool = True

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Round the weights of the main graph."""
        layers = _roundable(model, ctx)
        if not layers:
            return
        if ctx.calibration is None:
            raise DataError("rounding by output error needs calibration samples", hint="give --calibration")
        count = max(1, min(self.samples, len(ctx.calibration), MEMORY // max(1, live_bytes(layers))))
        dataset = ctx.calibration.subset(_spread(ctx.calibration, count))
        left = min(16, max(1, count // 8)) if self.guard and count > 1 else 0
        results: list[tuple[RoundLayer, NDArray[np.int32]]] = []
        gains: list[float] = []
        done = 0
        walk = Walk(model, layers, dataset, ctx, quantized=self.inputs == "quantized")
        for visit in walk:
            for layer in visit.layers:
                done += 1
                ctx.progress("round weights", done, len(layers))
                statistics = take(visit, layer, count - left, self._rows(layer, count - left))
                codes, share = self._choose(layer, statistics, ctx)
                walk.settle(layer, layer.grid().real(codes))
                if share is not None:
                    gains.append(share)
                    results.append((layer, codes))
        for layer, codes in results:
            write_codes(layer, codes, ctx)
        text = f"; output error on {left} samples left out: {np.median(gains or [1]):.3g} of nearest's (median)"
        ctx.note(f"rounded {len(results)} of {len(layers)} weights{text if left else ''}")

    def _choose(
        self, layer: RoundLayer, statistics: Statistics, ctx: Context
    ) -> tuple[NDArray[np.int32], float | None]:
        """Codes ``(groups, rows, columns)`` and their error in units of the nearest ones', ``None`` if those stay."""
        grid = Columns.of(layer.grid(), statistics.weights.dtype)
        nearest = grid.codes(statistics.weights)
        problem = statistics.problem(self.damping)
        codes = round_successively(problem, grid)
        if self.sweeps:
            codes = descend(problem, grid, codes, self.sweeps)
        share: float | None = 1.0
        if statistics.held is not None:
            before, after = (statistics.held.error(statistics.weights, grid.real(item)) for item in (nearest, codes))
            share = after / before if before > 0 else 1.0
            if after >= before:
                ctx.skip(layer.node, f"output error on samples left out: {before:.4g} nearest, {after:.4g} rounded")
                codes, share = nearest, None
        return codes.transpose(0, 2, 1), share

    def _rows(self, layer: RoundLayer, samples: int) -> Rows:
        wanted = max(4096, 4 * layer.columns)
        return Rows(self.rows or -(-wanted // max(1, samples)), HELD_ROWS)


def _roundable(model: ir.Model, ctx: Context) -> list[RoundLayer]:
    """Layers to round, each with a weight of its own."""
    found = []
    for node, layer in roundable_layers(model.graph):
        if isinstance(layer, str):
            ctx.skip(node, layer)
            continue
        own_weight(layer, ctx)
        found.append(layer)
    return found


def _spread(dataset: Dataset, count: int) -> Any:
    """Indices of so many samples, spread over all."""
    return range(0, len(dataset), len(dataset) // count)[:count]
