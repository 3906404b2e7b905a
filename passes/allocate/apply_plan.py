"""apply-plan: take the decisions of a plan file instead of making them.

It stands where ``assign-formats`` stands. Parameters that the plan gives are kept; decisions without parameters are
left to ``calibrate`` and ``calibrate-weights``, which follow as usual.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import onnx_ir as ir

from qcompiler.errors import UsageError
from qcompiler.pipeline.base import Context, Fact, Pass
from qcompiler.quant import plan

__all__ = ["ApplyPlan"]


@dataclass(frozen=True)
class ApplyPlan(Pass):
    """Take formats, ranges and placement from a plan file.

    Attributes:
        path: The ``plan.json``.
    """

    path: str = ""

    name: ClassVar[str] = "apply-plan"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.TYPED, Fact.SORTED, Fact.CANONICAL})
    provides: ClassVar[frozenset[Fact]] = frozenset({Fact.FORMATS})

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Write the plan's decisions on the main graph."""
        plan.apply(model, _read(self.path), ctx)


def _read(path: str) -> dict[str, object]:
    if not path:
        raise UsageError("apply-plan needs a file", hint="write apply-plan{path=plan.json}")
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the plan: {error.strerror}", where=path) from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise UsageError(f"the plan is not JSON: {error}", where=path) from error
    if not isinstance(content, dict):
        raise UsageError("the plan is not a JSON object", where=path)
    return content
