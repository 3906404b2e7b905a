"""Names and definitions of operators: which are standard, what they are called, what ONNX says about them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

if TYPE_CHECKING:
    import onnx

__all__ = ["STANDARD_DOMAINS", "has_type", "operator_name", "schema"]

STANDARD_DOMAINS: Final = ("", "ai.onnx")
"""Both spellings of the standard domain."""


def has_type(node: ir.Node | None, *op_types: str) -> bool:
    """Whether ``node`` is one of these operators of the standard domain."""
    return node is not None and node.op_type in op_types and node.domain in STANDARD_DOMAINS


def operator_name(node: ir.Node) -> str:
    """The operator as profiles write it: the type, with its domain in front outside the standard one."""
    return node.op_type if node.domain in STANDARD_DOMAINS else f"{node.domain}:{node.op_type}"


@functools.cache
def schema(op_type: str, opset: int) -> onnx.defs.OpSchema | None:
    """The standard operator as of this opset; ``None`` where it does not exist."""
    import onnx.defs

    try:
        return onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        return None
