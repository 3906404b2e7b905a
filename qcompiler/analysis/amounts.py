"""Amounts of what a choice of formats costs, as texts for people: in the units that they asked in, where they did."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from qcompiler.analysis.group_costs import BOPS, LATENCY, MEMORY, SIZE

__all__ = ["SHARE", "UNITS", "amount_text", "budget_text", "unit_of"]

SHARE: Final = "x"
"""The unit of what is asked for as a share of what the float model takes."""

_BYTES: Final = MappingProxyType(
    {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 1024.0, "mib": 1024.0**2, "gib": 1024.0**3}
)
UNITS: Final[Mapping[str, Mapping[str, float]]] = MappingProxyType(
    {
        SIZE: _BYTES,
        MEMORY: _BYTES,
        LATENCY: MappingProxyType({"s": 1.0, "ms": 1e-3, "us": 1e-6}),
        BOPS: MappingProxyType({"k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}),
    }
)
"""Units by resource, in lower case, as multiples of bytes, seconds and bit operations."""
_PLAIN: Final = MappingProxyType({SIZE: "bytes", MEMORY: "bytes", LATENCY: "s", BOPS: "bit operations"})
"""What plain numbers count."""
_UNIT: Final = re.compile(r"[A-Za-z]*$")


def unit_of(asked: str) -> str:
    """The unit that an amount was written in: ``KB`` of ``500KB``; empty of a plain number."""
    found = _UNIT.search(asked.strip())
    return found[0] if found else ""


def amount_text(resource: str, amount: float, asked: str = "") -> str:
    """``118.3 kB``, ``2.41 ms``, ``1.2 G bit operations``; of anything else, such as a loss, the number.

    Args:
        resource: What it is an amount of.
        amount: In bytes, seconds or bit operations.
        asked: A budget of it as the user wrote it, whose unit is taken: ``500KB``. A share (``0.25x``) has none.
    """
    unit = unit_of(asked)
    if asked and resource in UNITS and unit.lower() != SHARE:
        number = _number(amount / UNITS[resource].get(unit.lower(), 1.0))
        return f"{number} {unit or _PLAIN[resource]}" + (" bit operations" if unit and resource == BOPS else "")
    if resource in (SIZE, MEMORY):
        return f"{amount:.0f} bytes" if amount < 1e4 else f"{amount / 1e3:.1f} kB" if amount < 1e7 else (
            f"{amount / 1e6:.1f} MB")  # fmt: skip
    if resource == LATENCY:
        return f"{amount * 1e3:.4g} ms"
    if resource == BOPS:
        return f"{amount / 1e9:.4g} G bit operations"
    return f"{amount:.4g}"


def budget_text(resource: str, amount: float, asked: str = "") -> str:
    """A budget in the words of who asked for it: ``500 KB``, ``2 ms``, ``38.9 kB (0.25x)``.

    Args:
        resource: What it is of.
        amount: In bytes, seconds or bit operations.
        asked: The amount as the user wrote it; empty where that is not known.
    """
    text = amount_text(resource, amount, asked)
    return f"{text} ({asked})" if unit_of(asked).lower() == SHARE else text


def _number(amount: float) -> str:
    """Four digits, and every one before the point."""
    return f"{amount:.4g}" if abs(amount) < 9999.5 else f"{amount:,.0f}"
