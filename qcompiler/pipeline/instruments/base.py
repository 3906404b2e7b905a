"""The empty observer."""

from __future__ import annotations

import onnx_ir as ir

from qcompiler.pipeline.base import Context, Pass, PassRecord

__all__ = ["Observer"]


class Observer:
    """Watches and does nothing; instruments override what they need."""

    def before(self, pass_: Pass, model: ir.Model, ctx: Context) -> None:
        """Called before each pass."""

    def after(self, pass_: Pass, model: ir.Model, ctx: Context, record: PassRecord) -> None:
        """Called after each pass that succeeded."""

    def failed(self, pass_: Pass, model: ir.Model, ctx: Context, error: BaseException) -> None:
        """Called when a pass, or an instrument after it, raised."""
