"""Models that compute in another float type than float32."""

from __future__ import annotations

import onnx_ir as ir

from qcompiler.pipeline.base import Context

__all__ = ["to_float32"]


def to_float32(model: ir.Model, ctx: Context) -> None:
    """Replace."""
