"""round-coordinate-descent: single codes move to where the layer's output error is least, until none gains (QuantEase).

It starts from the codes that the weights have, the nearest ones or those of ``round-gptq``, and cannot increase the
error it minimises (``_descent``). Scales stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from qcompiler.passes.round._fit import Inputs, Options, fit_layers
from qcompiler.passes.round._search import refined
from qcompiler.pipeline.base import Context, Fact, Pass

__all__ = ["RoundCoordinateDescent"]


@dataclass(frozen=True)
class RoundCoordinateDescent(Pass):
    """Refine codes one by one for the least error of each layer's outputs.

    Attributes:
        sweeps: Most times that every weight is looked at.
        inputs: Whether a layer is fitted to the inputs that it will get, errors of earlier layers included, or to those
            of the float model.
        damping: Share of the mean diagonal that is added to the diagonal of the Hessian.
        samples: Most samples to look at.
        rows: Most rows of one sample that a layer is fitted on; 0 chooses by the layer's size.
        guard: Whether codes must lower the output error on samples they were not fitted on.
    """

    name: ClassVar[str] = "round-coordinate-descent"
    before: ClassVar[frozenset[Fact]] = frozenset({Fact.QDQ})
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.FORMATS, Fact.CALIBRATED})

    sweeps: int = 20
    inputs: Inputs = "quantized"
    damping: float = 0.01
    samples: int = 256
    rows: int = 0
    guard: bool = True

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Refine the codes of the main graph."""
        options = Options(self.inputs, self.damping, self.samples, self.rows, self.guard)
        fit_layers(model, ctx, options, lambda problem, parts, start: refined(problem, parts, start, self.sweeps))
