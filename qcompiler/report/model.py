"""The report as data: what was asked, what was done, what was measured, and what was not.

Frozen dataclasses of plain values; ``qcompiler.report.codec`` turns them into JSON and back, and derives
``schema.json`` from them. A figure that was not measured is ``None``, and ``unmeasured`` says why. Everything outside
``timing`` is the same when the same compile is run again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from qcompiler.report.accumulators import AccumulatorsPart
from qcompiler.report.formats import FormatsPart
from qcompiler.report.measured import (
    BisectPart,
    CostPart,
    CoveragePart,
    IntegerPart,
    QualityPart,
    SizePart,
    TimingPart,
    UnmeasuredPart,
)
from qcompiler.report.parts import DataPart, GatesPart, ModelPart, PassPart, TargetPart

__all__ = ["SCHEMA", "Report"]

SCHEMA: Final = 1
"""Version of the report; it grows when a field changes its meaning or goes away, not when one is added."""


@dataclass(frozen=True)
class Report:
    """Everything there is to say about one compile.

    Attributes:
        schema: Version of this schema.
        compiler: Version of qcompiler.
        model: The float model.
        compiled: The compiled model.
        kept: Whether the compiled model exists under its name (a missed gate prevents it, unless asked to keep).
        target: What it was compiled for.
        configuration: Every option in force, as text by option name.
        calibration: What was fitted on; ``None`` where a plan gave everything.
        evaluation: What was measured on.
        passes: What was done, in order.
        coverage: What runs on integers; ``None`` where nothing was quantized.
        integer: Whether the written graph is integer only; ``None`` where it was not lowered to integer operators.
        accumulators: What its accumulators can reach; ``None`` where it was not lowered to integer operators.
        formats: How formats were chosen within budgets; ``None`` where there was nothing to choose.
        quality: How close the result is; ``None`` where it was not measured.
        cost: Predicted latency; ``None`` without a cost table.
        size: Sizes.
        gates: Gates and misses.
        bisect: Quality after every pass, where asked for.
        warnings: What the user must know.
        unmeasured: What was not measured, and why.
        timing: Everything that differs from run to run.
    """

    compiler: str
    model: ModelPart
    compiled: ModelPart
    target: TargetPart
    size: SizePart
    gates: GatesPart
    kept: bool = True
    configuration: Mapping[str, str] = field(default_factory=dict)
    calibration: DataPart | None = None
    evaluation: DataPart | None = None
    passes: tuple[PassPart, ...] = ()
    coverage: CoveragePart | None = None
    integer: IntegerPart | None = None
    accumulators: AccumulatorsPart | None = None
    formats: FormatsPart | None = None
    quality: QualityPart | None = None
    cost: CostPart | None = None
    bisect: tuple[BisectPart, ...] = ()
    warnings: tuple[str, ...] = ()
    unmeasured: tuple[UnmeasuredPart, ...] = ()
    timing: TimingPart = field(default_factory=TimingPart)
    schema: int = SCHEMA

    @property
    def passed(self) -> bool:
        """Whether every gate is met."""
        return not self.gates.misses

    @property
    def all_warnings(self) -> tuple[str, ...]:
        """Warnings, the one about speed included."""
        slow = self.timing.latency.warning if self.timing.latency is not None else None
        return (*self.warnings, slow) if slow else self.warnings

    def to_json(self) -> str:
        """The report as JSON text."""
        from qcompiler.report.codec import to_json

        return to_json(self)
