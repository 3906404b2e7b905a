"""A predicted latency as part of the report, and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qcompiler.report.measured import CostPart, OperatorCostPart
from qcompiler.report.words import count_text, milliseconds, percent

if TYPE_CHECKING:
    from qcompiler.analysis.predicted import Predicted

__all__ = ["cost_part", "cost_text", "widths_text"]


def cost_part(found: Predicted) -> CostPart:
    """What was predicted."""
    groups: dict[tuple[str, str], list[float]] = {}
    for node in found.prediction.nodes:
        groups.setdefault((node.work.kind, node.work.format), []).append(node.microseconds / 1000)
    rows = [OperatorCostPart(*key, len(times), sum(times)) for key, times in groups.items()]
    widths = {str(bits): time for bits, time in found.widths.items()}
    return CostPart(
        milliseconds=found.milliseconds,
        threads=found.prediction.threads,
        isa=found.prediction.isa,
        cpu=found.cpu,
        date=found.date,
        measured_share=100 * found.prediction.measured_share,
        widths=widths,
        fastest=min(widths, key=lambda bits: widths[bits]) if widths else None,
        operators=tuple(sorted(rows, key=lambda row: (-row.milliseconds, row.operator, row.format))),
        unknown=found.prediction.unknown,
    )


def cost_text(cost: CostPart) -> str:
    """Where the figure comes from: ``avx2, 1 thread, some processor, 2026-01-01; 80 % of it from measured shapes``."""
    where = f"{cost.isa}, {count_text(cost.threads, 'thread')}, {cost.cpu}, {cost.date[:10]}"
    known = f"{percent(cost.measured_share)} of it from measured shapes"
    return f"{where}; {known}" if not cost.unknown else f"{where}; nothing known of {', '.join(cost.unknown)}"


def widths_text(cost: CostPart) -> str:
    """How the widths of weights compare, and which is the fastest; empty where there is nothing to compare."""
    if len(cost.widths) < 2 or cost.fastest is None:
        return ""
    shown = ", ".join(f"{bits} bits {milliseconds(time)}" for bits, time in cost.widths.items())
    return f"all weights of {shown}: {cost.fastest} bits are the fastest"
