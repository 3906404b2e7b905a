"""How far the outputs of a candidate are from the float model's, on samples that judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from qcompiler.ir.execute import Runner
from qcompiler.passes.place.simulate import materialized
from qcompiler.pipeline.base import Context

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset

__all__ = ["Judge", "relative_error"]


@dataclass(frozen=True, slots=True)
class Judge:
    """Measures candidates against one float reference.

    Attributes:
        reference: The float model.
        dataset: Samples.
        ctx: Threads and progress.
        stage: What the progress is called.
    """

    reference: Runner
    dataset: Dataset
    ctx: Context
    stage: str

    def error(self, model: ir.Model) -> float:
        """Mean over outputs of ``sum (a - b)^2 / sum a^2``, ``b`` from the quantized simulation of ``model``."""
        return relative_error(
            self.reference, Runner(materialized(model), threads=self.ctx.jobs), self.dataset, self.ctx, self.stage
        )


def relative_error(reference: Runner, candidate: Runner, dataset: Dataset, ctx: Context, stage: str) -> float:
    """Mean over outputs of ``sum (a - b)^2 / sum a^2``, ``a`` from the reference, ``b`` from the candidate.

    Both sums count rows by their weights (``qcompiler.calibration.row_weights``).
    """
    from qcompiler.calibration import row_weights

    weights = row_weights.of(dataset)
    noise: dict[str, float] = {}
    power: dict[str, float] = {}
    runs = zip(reference.stream(dataset), candidate.stream(dataset), strict=True)
    for index, ((feed, wanted), (_, got)) in enumerate(runs):
        ctx.progress(stage, index + 1, len(dataset))
        rows = None if weights is None else weights.of_feed(feed, index)
        for name, array in wanted.items():
            if array.dtype.kind != "f":
                continue
            expected = array.astype(np.float64)
            missing = expected - got[name]
            share = None if rows is None else rows.of(name, array.shape)
            if share is not None:
                expected, missing = (np.where(share > 0, item, 0.0) * np.sqrt(share) for item in (expected, missing))
            noise[name] = noise.get(name, 0.0) + float(np.square(missing).sum())
            power[name] = power.get(name, 0.0) + float(np.square(expected).sum())
    row_weights.tell(weights, ctx)
    ratios = [noise[name] / power[name] for name in noise if power[name] > 0]
    return float(np.mean(ratios)) if ratios else 0.0
