"""From the outcome of a compile to its report."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qcompiler.driver.compile import Outcome
    from qcompiler.report import Report

__all__ = ["report_of"]


def report_of(outcome: Outcome) -> Report:
    """The report."""
    from qcompiler.report import Report

    return Report(outcome)
