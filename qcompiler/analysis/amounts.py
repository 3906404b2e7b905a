"""Amounts of what a choice of formats costs, as texts for people."""

from __future__ import annotations

from qcompiler.analysis.group_costs import BOPS, LATENCY, MEMORY, SIZE

__all__ = ["amount_text"]


def amount_text(resource: str, amount: float) -> str:
    """``118.3 kB``, ``2.41 ms``, ``1.2 G bit operations``; of anything else, such as a loss, the number.

    Args:
        resource: What it is an amount of.
        amount: In bytes, seconds or bit operations.
    """
    if resource in (SIZE, MEMORY):
        return f"{amount:.0f} bytes" if amount < 1e4 else f"{amount / 1e3:.1f} kB" if amount < 1e7 else (
            f"{amount / 1e6:.1f} MB")  # fmt: skip
    if resource == LATENCY:
        return f"{amount * 1e3:.4g} ms"
    if resource == BOPS:
        return f"{amount / 1e9:.4g} G bit operations"
    return f"{amount:.4g}"
