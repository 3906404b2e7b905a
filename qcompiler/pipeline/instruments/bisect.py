"""Which pass broke it: measure quality after every pass and name the first that lowered it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from qcompiler.pipeline.base import Context, Pass, PassRecord
from qcompiler.pipeline.instruments.base import Observer

__all__ = ["Bisect", "Measurement", "Verdict"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """Quality after one pass; ``text`` is the pass, or ``input`` for the model before the first."""

    text: str
    figure: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """The first pass after which the figure got worse by more than the tolerance.

    Attributes:
        culprit: Text of that pass; ``None`` when there is none.
        before: The best figure up to there (the last one, when there is no culprit).
        after: The figure after it.
    """

    culprit: str | None
    before: float
    after: float

    def __str__(self) -> str:
        if self.culprit is None:
            return f"no pass made it worse (at the end {self.after:.6g})"
        return f"{self.culprit}: from {self.before:.6g} to {self.after:.6g}"


class Bisect(Observer):
    """Measures the model after every pass that changed something.

    Args:
        measure: Quality of a model. It must not change the model; decisions not yet materialised are its business.
        higher_is_better: The direction.
        tolerance: Loss that counts as none, in units of the figure.
    """

    def __init__(
        self, measure: Callable[[ir.Model], float], higher_is_better: bool = True, tolerance: float = 0.0
    ) -> None:
        self.measurements: list[Measurement] = []
        self._measure = measure
        self._sign = 1.0 if higher_is_better else -1.0
        self._tolerance = tolerance

    def before(self, pass_: Pass, model: ir.Model, ctx: Context) -> None:
        """Measure the input of the pipeline."""
        if not self.measurements:
            self.measurements.append(Measurement("input", self._measure(model)))

    def after(self, pass_: Pass, model: ir.Model, ctx: Context, record: PassRecord) -> None:
        """Measure again. Passes that only decide make no edits and still count, so all are measured."""
        self.measurements.append(Measurement(record.text, self._measure(model)))

    def verdict(self) -> Verdict:
        """The culprit; a figure that is not a number counts as worse than any other."""
        if not self.measurements:
            return Verdict(None, float("nan"), float("nan"))
        best = self.measurements[0]
        for item in self.measurements[1:]:
            loss = self._sign * (best.figure - item.figure)
            if not loss <= self._tolerance and best.figure == best.figure:
                return Verdict(item.text, best.figure, item.figure)
            if loss < 0:
                best = item
        last = self.measurements[-1]
        return Verdict(None, last.figure, last.figure)
