"""Amounts as texts."""

from __future__ import annotations

import pytest

from qcompiler.analysis.amounts import amount_text, budget_text


def test_amounts_are_shown_for_people() -> None:
    assert amount_text("size", 9_999) == "9999 bytes"
    assert amount_text("size", 156_299) == "156.3 kB"
    assert amount_text("size", 2.5e7) == "25.0 MB"
    assert amount_text("latency", 0.00241) == "2.41 ms"
    assert amount_text("bops", 1.2e9) == "1.2 G bit operations"
    assert amount_text("loss", 0.05) == "0.05"


@pytest.mark.parametrize(
    ("resource", "amount", "asked", "taken", "budget"),
    [
        ("size", 183_912.0, "0.25x", "183.9 kB", "183.9 kB (0.25x)"),
        ("size", 179_600.0, "500KB", "179.6 KB", "179.6 KB"),
        ("memory", 65_536.0, "64KiB", "64 KiB", "64 KiB"),
        ("size", 45_999.0, "46000", "45,999 bytes", "45,999 bytes"),
        ("latency", 0.00138, "2ms", "1.38 ms", "1.38 ms"),
        ("latency", 0.00138, "0.002", "0.00138 s", "0.00138 s"),
        ("bops", 2e9, "2.5G", "2 G bit operations", "2 G bit operations"),
        ("bops", 2e9, "0.05x", "2 G bit operations", "2 G bit operations (0.05x)"),
        ("bops", 2e9, "2.5e9", "2,000,000,000 bit operations", "2,000,000,000 bit operations"),
        ("loss", 0.05, "0.05", "0.05", "0.05"),
    ],
)
def test_amounts_are_in_the_units_that_were_asked_in(
    resource: str, amount: float, asked: str, taken: str, budget: str
) -> None:
    assert amount_text(resource, amount, asked) == taken
    assert budget_text(resource, amount, asked) == budget
