"""Which rule of a profile governs a node: that of its operator, of tables where rows of one are looked up."""

from __future__ import annotations

import math
from typing import Final

import onnx_ir as ir

from qcompiler.ir.constants import is_constant
from qcompiler.ir.operators import operator_name
from qcompiler.quant.operators import LOOKUP, TABLE_INPUT, looks_up_rows
from qcompiler.target.qdq import codes_read
from qcompiler.target.schema import OperatorRule, Target

__all__ = ["LEAST_TABLE", "rule_for", "why_no_rows"]

LEAST_TABLE: Final = 4096
"""Numbers below which a table is not worth a scale per row."""


def rule_for(target: Target, node: ir.Node) -> OperatorRule | None:
    """The rule of the node's operator; ``None`` where the target has no integer kernel for it.

    A Gather that looks up rows of a table computes, where the target has formats of tables: scales differ from row to
    row, so it rescales what it finds. Any other Gather moves codes.
    """
    rule = target.operators.get(operator_name(node))
    return rule.of_tables() if rule is not None and rule.tables and not why_no_rows(node) else rule


def why_no_rows(node: ir.Node) -> str:
    """Why a node looks up no rows of a table that are worth a scale each; empty where it does.

    A table that is stored as codes counts where its rows have scales of their own: with one scale it is moved as the
    codes of any tensor.
    """
    value = node.inputs[TABLE_INPUT] if node.op_type == LOOKUP and not node.domain and node.inputs else None
    if value is None:
        return "it looks up nothing"
    stored = codes_read(value)
    if not is_constant(value if stored is None else stored.value):
        return "its table is computed"
    if value.dtype not in (None, ir.DataType.FLOAT):
        return "it carries no float32 data"
    shape = list((value if stored is None else stored.value).shape or ())
    if len(shape) != 2 or not looks_up_rows(node):
        return "it does not look up rows of a matrix"
    if stored is not None:
        return "" if stored.scale is not None and stored.scale.ndim == 1 else "its rows share one scale"
    size = math.prod(item for item in shape if isinstance(item, int))
    return f"its table of {size} numbers is small" if size < LEAST_TABLE else ""
