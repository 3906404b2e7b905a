"""Registry of passes."""
from __future__ import annotations

from qcompiler.pipeline.base import Pass


def known() -> dict[str, type[Pass]]:
    """Known passes."""
    return {}
