"""Amounts as texts."""

from __future__ import annotations

from qcompiler.analysis.amounts import amount_text


def test_amounts_are_shown_for_people() -> None:
    assert amount_text("size", 9_999) == "9999 bytes"
    assert amount_text("size", 156_299) == "156.3 kB"
    assert amount_text("size", 2.5e7) == "25.0 MB"
    assert amount_text("latency", 0.00241) == "2.41 ms"
    assert amount_text("bops", 1.2e9) == "1.2 G bit operations"
    assert amount_text("loss", 0.05) == "0.05"
