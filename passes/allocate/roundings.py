"""How weights are rounded when the loss of formats is measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import onnx_ir as ir

from qcompiler.passes.allocate.groups import TieGroup
from qcompiler.passes.round.rounding_work import affordable
from qcompiler.pipeline.base import Context, Pass
from qcompiler.pipeline.spec import parse

__all__ = ["ROUNDINGS", "affordable_rounding", "rounding_ahead", "rounding_named"]

_ROUNDS: Final = ("choose-rounding", "round-gptq", "round-alternating", "round-coordinate-descent", "reconstruct")

ROUNDINGS: Final = {"nearest": "", "gptq": "round-gptq{inputs=float samples=64 guard=false}"}
"""By name, the passes that choose codes behind ``calibrate-weights``."""


def rounding_ahead(model: ir.Model, groups: Sequence[TieGroup], ctx: Context) -> str:
    """How weights will be rounded: losses of nearest codes do not rank those of fitted ones.

    resnet20 at the bytes of w3a8: divergence 0.0855 with losses of nearest codes, 0.0721 with these, 0.0825 uniform.
    """
    fitted = any(item.name in _ROUNDS for item in ctx.following) and ctx.calibration is not None
    return affordable_rounding(model, groups) if fitted else "nearest"


def affordable_rounding(model: ir.Model, groups: Sequence[TieGroup]) -> str:
    """GPTQ, where solving it for these groups takes seconds, else nearest codes."""
    names = {name for group in groups for name in group.nodes}
    return "gptq" if affordable(node for node in model.graph if node.name in names) else "nearest"


def rounding_named(name: str) -> tuple[Pass, ...]:
    """The passes of a rounding; none for nearest codes."""
    return parse(ROUNDINGS[name]) if ROUNDINGS[name] else ()
