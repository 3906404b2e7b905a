"""Where the time went."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import onnx_ir as ir

from qcompiler.pipeline.base import Context, Pass, PassRecord
from qcompiler.pipeline.instruments.base import Observer

__all__ = ["Timing", "TimingRow"]


@dataclass(frozen=True, slots=True)
class TimingRow:
    """One pass in numbers.

    Attributes:
        text: The pass and its options.
        seconds: Wall time of the pass itself, without instruments.
        edits: Changes it made.
        skips: How often it left a node alone, by reason, most frequent first.
    """

    text: str
    seconds: float
    edits: int
    skips: tuple[tuple[str, int], ...]


class Timing(Observer):
    """Collects one row per pass, failed ones included."""

    def __init__(self) -> None:
        self.rows: list[TimingRow] = []

    def after(self, pass_: Pass, model: ir.Model, ctx: Context, record: PassRecord) -> None:
        """Take the row of a pass that succeeded."""
        self.rows.append(_row(record))

    def failed(self, pass_: Pass, model: ir.Model, ctx: Context, error: BaseException) -> None:
        """Take the row of the pass that failed, unless an instrument after it did."""
        record = ctx.records[-1]
        if not self.rows or self.rows[-1] != _row(record):
            self.rows.append(_row(record))

    def table(self) -> str:
        """The rows as aligned text, with a sum."""
        width = max((len(row.text) for row in self.rows), default=0)
        width = max(width, len("total"))
        lines = [f"{'pass':<{width}}  seconds   edits  skipped"]
        for row in self.rows:
            skips = "; ".join(f"{count} × {reason}" for reason, count in row.skips)
            lines.append(f"{row.text:<{width}}  {row.seconds:7.3f}  {row.edits:6}  {skips}".rstrip())
        seconds, edits = sum(row.seconds for row in self.rows), sum(row.edits for row in self.rows)
        lines.append(f"{'total':<{width}}  {seconds:7.3f}  {edits:6}")
        return "\n".join(lines)


def _row(record: PassRecord) -> TimingRow:
    reasons = Counter(skip.reason for skip in record.skips)
    return TimingRow(record.text, record.seconds, record.edits, tuple(reasons.most_common()))
