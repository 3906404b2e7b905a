"""Fused operators of ONNX Runtime (domain com.microsoft) back into standard ones."""

from __future__ import annotations

import onnx_ir as ir

from qcompiler.pipeline.base import Context

__all__ = ["unfuse"]


def unfuse(model: ir.Model, ctx: Context) -> None:
    """Replace."""
