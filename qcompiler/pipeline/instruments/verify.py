"""Nothing is believed: check after every pass what it claimed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.errors import ModelError, VerificationError
from qcompiler.ir.facts import check
from qcompiler.pipeline.base import Context, Fact, Pass, PassRecord, Preserves
from qcompiler.pipeline.instruments.base import Observer
from qcompiler.pipeline.probes import Probe, probes

__all__ = ["TOLERANCE", "Verify", "deviation"]

TOLERANCE: Final = 1e-5
"""Largest max|a-b| / max|a| per output that counts as float rounding."""


class Verify(Observer):
    """Checks facts, and on request numbers, after each pass.

    With ``facts``, everything the pass provides must hold afterwards, and what held before and was not given up must
    still hold. With ``numerics``, additionally, a pass that promises to preserve outputs is run against probe inputs
    before and after.

    Args:
        level: ``facts``, ``numerics`` or ``off``.
        feeds: Probe inputs; by default calibration samples, else seeded random ones made from the graph's inputs.
        given: Facts that hold before the first pass.

    Raises (from ``after``):
        VerificationError: With the pass, and the output and figure or the violated fact.
    """

    def __init__(
        self,
        level: Literal["facts", "numerics", "off"] = "facts",
        feeds: Sequence[Probe] | None = None,
        given: frozenset[Fact] = frozenset(),
    ) -> None:
        self.level = level
        self._feeds = feeds
        self._holds = set(given)
        self._outputs: list[dict[str, NDArray[Any]]] | None = None

    def before(self, pass_: Pass, model: ir.Model, ctx: Context) -> None:
        """Remember the outputs, where they will be compared and are not known from the pass before."""
        if self.level != "numerics" or pass_.preserves is Preserves.NOTHING or self._outputs is not None:
            return
        if self._feeds is None:
            self._feeds = probes(model, ctx)
        self._outputs = self._run(model)

    def after(self, pass_: Pass, model: ir.Model, ctx: Context, record: PassRecord) -> None:
        """Check; see the class."""
        if self.level == "off":
            return
        kept = self._holds - pass_.invalidates if record.edits else set()
        for fact in sorted(pass_.provides | kept):
            if violations := check(fact, model):
                claim = "provides" if fact in pass_.provides else "does not keep"
                more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
                raise VerificationError(f"it {claim} the fact '{fact.value}': {violations[0]}{more}")
        self._holds = (self._holds - pass_.invalidates) | pass_.provides
        if self.level == "numerics":
            self._compare(pass_, model, record)

    def _compare(self, pass_: Pass, model: ir.Model, record: PassRecord) -> None:
        """Compare outputs with those before the pass, and keep the new ones for the next."""
        if pass_.preserves is Preserves.NOTHING:
            self._outputs = None if record.edits else self._outputs
            return
        if self._outputs is None or not record.edits:
            return
        tolerance = 0.0 if pass_.preserves is Preserves.EXACT else TOLERANCE
        new = self._run(model)
        for index, (old, now) in enumerate(zip(self._outputs, new, strict=True)):
            for name, reference in old.items():
                if name not in now:
                    raise VerificationError(f"it promises to keep the outputs, but output '{name}' is gone")
                figure = deviation(reference, now[name])
                if not figure <= tolerance:
                    raise VerificationError(
                        f"it promises {pass_.preserves.value} outputs, but output '{name}' moved by {figure:.3g} "
                        f"(max|a-b| / max|a|, at most {tolerance:g}) on probe {index}",
                        hint="leave the pass out with --pipeline, and report it",
                    )
        self._outputs = new

    def _run(self, model: ir.Model) -> list[dict[str, NDArray[Any]]]:
        from qcompiler.ir.execute import Runner

        try:
            runner = Runner(model, optimize=False)
            return [runner.run(feed) for feed in self._feeds or ()]
        except ModelError as error:
            raise VerificationError(f"the model does not run: {error.message}") from error


def deviation(reference: NDArray[Any], candidate: NDArray[Any]) -> float:
    """``max|a-b| / max|a|`` of two arrays; infinite when shapes, or places that are not finite, differ."""
    if reference.shape != candidate.shape:
        return float("inf")
    if reference.dtype.kind not in "fiub" or reference.size == 0:
        return 0.0 if np.array_equal(reference, candidate) else float("inf")
    one, two = reference.astype(np.float64), candidate.astype(np.float64)
    finite = np.isfinite(one)
    if not np.array_equal(one[~finite], two[~finite], equal_nan=True) or not np.isfinite(two[finite]).all():
        return float("inf")
    one, two = one[finite], two[finite]
    difference = float(np.abs(one - two).max(initial=0.0))
    if difference == 0.0:
        return 0.0
    scale = float(np.abs(one).max(initial=0.0))
    return difference / scale if scale else float("inf")
