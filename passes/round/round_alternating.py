"""round-alternating: codes for scales and scales for codes, in turns, for the least output error (decoupleQ).

Scales around the present ones are tried first, because GPTQ likes finer steps than rounding to nearest; then scales
and zero points are fitted to codes by least squares, within what the target can hold (``_constraints``), and codes to
scales by GPTQ and coordinate descent (``_search``). At last GPTQ is repeated on drawn orders of the columns and drawn
scales, of which every output channel keeps its best. No step increases the error that is minimised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from qcompiler.passes.round._fit import Inputs, Options, fit_layers
from qcompiler.passes.round._search import alternated
from qcompiler.pipeline.base import Context, Fact, Pass

__all__ = ["RoundAlternating"]


@dataclass(frozen=True)
class RoundAlternating(Pass):
    """Fit codes and scales of weights in turns for the least error of each layer's outputs.

    Attributes:
        turns: Most turns of scales and codes.
        sweeps: Sweeps of coordinate descent in each.
        draws: Most orders of the columns and scales that are drawn behind the turns, fewer for large layers; 0 leaves
            that and scales nearby out.
        inputs: Whether a layer is fitted to the inputs that it will get, errors of earlier layers included, or to those
            of the float model.
        damping: Share of the mean diagonal that is added to the diagonal of the Hessian.
        samples: Most samples to look at.
        rows: Most rows of one sample that a layer is fitted on; 0 chooses by the layer's size.
        guard: Whether codes and scales must lower the output error on samples they were not fitted on.
    """

    name: ClassVar[str] = "round-alternating"
    before: ClassVar[frozenset[Fact]] = frozenset({Fact.QDQ})
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.FORMATS, Fact.CALIBRATED})

    turns: int = 4
    sweeps: int = 5
    draws: int = 8
    inputs: Inputs = "quantized"
    damping: float = 0.01
    samples: int = 256
    rows: int = 0
    guard: bool = True

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Fit the weights of the main graph."""
        options = Options(self.inputs, self.damping, self.samples, self.rows, self.guard)
        fit_layers(
            model,
            ctx,
            options,
            lambda problem, parts, start: alternated(problem, parts, start, self.sweeps, self.turns, self.draws),
        )
