"""Pipeline text."""
from __future__ import annotations

from collections.abc import Iterable

from qcompiler.pipeline.base import Pass


def to_text(passes: Iterable[Pass]) -> str:
    """Text."""
    return ",".join(p.name for p in passes)
