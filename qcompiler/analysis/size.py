"""Size of a stored model."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from qcompiler.ir import io

__all__ = ["stored_bytes"]


def stored_bytes(model: str | Path | ir.Model) -> int:
    """Bytes on disk of a model file and the external data files it refers to; 0 for a model made in memory.

    Args:
        model: A path, or a model that ``qcompiler.ir.io.load`` returned.

    Raises:
        ModelError: The file is no model, or external data is missing.
    """
    loaded = model if isinstance(model, ir.Model) else io.load(model)
    return sum(path.stat().st_size for path in io.files(loaded))
