"""Factors by which tensors were multiplied before anything was decided about them, and how a plan keeps them.

A plan speaks of scales, and scales of a tensor that was multiplied (``fit-powers-of-two``) mean nothing without the
factor. It stands on the value, under the name that the tensor has got, and in ``plan.json`` under ``factors``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from qcompiler.errors import UsageError

__all__ = ["dump", "factor", "keep_float", "read", "set_factor", "why_float"]

_KEY = "qcompiler.factor"
_FLOAT = "qcompiler.float"


def set_factor(value: ir.Value, by: float) -> None:
    """Say that the tensor is ``by`` times what the original model computes."""
    value.meta[_KEY] = by


def factor(value: ir.Value) -> float:
    """How many times what the original model computes the tensor is."""
    found: float = value.meta.get(_KEY, 1.0)
    return found


def keep_float(node: ir.Node, reason: str) -> None:
    """Say that a node computes in real numbers on every target, and why."""
    node.meta[_FLOAT] = reason


def why_float(node: ir.Node) -> str:
    """Why the node computes in real numbers on every target; empty where it need not."""
    return str(node.meta.get(_FLOAT, ""))


def dump(graph: ir.Graph) -> dict[str, float]:
    """Factors of the graph's tensors by name, in graph order."""
    values = (value for node in graph for value in node.outputs)
    return {str(value.name): factor(value) for value in values if _KEY in value.meta}


def read(plan: Mapping[str, Any]) -> dict[str, float]:
    """The factors of a plan.

    Raises:
        UsageError: They are not positive numbers by name.
    """
    found = plan.get("factors", {})
    if not isinstance(found, Mapping):
        raise UsageError("a table is expected here", where="factors")
    for name, by in found.items():
        if isinstance(by, bool) or not isinstance(by, int | float) or not math.isfinite(by) or by <= 0:
            raise UsageError(f"{by!r} is not a positive number", where=f"factors.{name}")
    return {str(name): float(by) for name, by in found.items()}
