"""round-gptq: choose codes so that the layer's outputs stay, not its weights.

Layers are visited in graph order. At each one the second moments of its inputs are taken (``_statistics``) and its
weights are rounded one input after the other while the others make up for the error (``_successive``). Scales are found
before, by ``calibrate-weights``, and stay; biases are left to ``correct-bias``, which runs behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from qcompiler.passes.round._fit import Inputs, Options, fit_layers
from qcompiler.passes.round._problem import Problem
from qcompiler.passes.round._scales import Parts
from qcompiler.passes.round._search import Solution, refined, successive
from qcompiler.pipeline.base import Context, Fact, Pass

__all__ = ["RoundGptq"]


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
    before: ClassVar[frozenset[Fact]] = frozenset({Fact.QDQ})
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.FORMATS, Fact.CALIBRATED})

    inputs: Inputs = "quantized"
    damping: float = 0.01
    sweeps: int = 0
    samples: int = 256
    rows: int = 0
    guard: bool = True

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Round the weights of the main graph."""
        options = Options(self.inputs, self.damping, self.samples, self.rows, self.guard)
        fit_layers(model, ctx, options, self._choose)

    def _choose(self, problem: Problem, parts: Parts, start: Solution) -> Solution:
        found = successive(problem, parts, start)
        return refined(problem, parts, found, self.sweeps) if self.sweeps else found
