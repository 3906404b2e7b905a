"""The reference table of ``ai.qcompiler`` in Markdown, made from the definitions; ``README.md`` holds it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from qcompiler.quant.functions.catalogue import operators
from qcompiler.quant.functions.definition import Operator

__all__ = ["digests", "table"]

_VARIANTS = ("Shift", "Packed", "Wide")


def table() -> str:
    """One row per family: variants without a multiplier, with packed weights or 16-bit activations share it."""
    rows = ["| operator | result | inputs | attributes | error, codes |", "|---|---|---|---|---|"]
    for family in _families(operators().values()):
        first = family[0]
        names = ", ".join(f"`{operator.name}`" for operator in family)
        inputs = ", ".join(f"{name}: {_either(first.types[name])}" for name in first.inputs)
        attributes = " ".join(first.attributes)
        rows.append(f"| {names} | {_cell(first.formula)} | {_cell(inputs)} | {attributes} | {_cell(first.bound)} |")
    return "\n".join(rows) + "\n"


def digests() -> dict[str, str]:
    """A short digest of each operator's function; it may never change within a version of the set."""
    return {
        name: hashlib.sha256(operator.function(21).SerializeToString(deterministic=True)).hexdigest()[:16]
        for name, operator in operators().items()
    }


def _families(found: Iterable[Operator]) -> list[list[Operator]]:
    families: dict[str, list[Operator]] = {}
    for operator in found:
        families.setdefault(_base(operator.name), []).append(operator)
    return [sorted(family, key=lambda operator: (len(operator.name), operator.name)) for family in families.values()]


def _base(name: str) -> str:
    for ending in _VARIANTS:
        name = name.removesuffix(ending)
    return name


def _either(types: str) -> str:
    return " or ".join(types.split()) if " " in types and "," not in types else types


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
