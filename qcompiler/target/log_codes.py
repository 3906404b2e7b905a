"""Codes along a grid (``log`` formats): which tensors a target keeps so, asked before and checked afterwards.

The maker of a tensor must list the format among its ``log_outputs`` and every reader among its ``log_inputs``: a
reader decodes by a table, and whoever else needs the numbers would have to be given the table too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import onnx_ir as ir

from qcompiler.ir.constants import array
from qcompiler.ir.operators import operator_name
from qcompiler.quant.format import LOG_BITS, QFormat
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.quant.operators import LOG_ENCODE
from qcompiler.target.schema import OperatorRule, Role, Target

__all__ = ["log_reasons", "why_not_log"]

_BETWEEN: Final = frozenset({"QuantizeLinear", "DequantizeLinear", "Requantize", "RequantizeShift"})
"""What may stand between an operator and the codes along a grid that it writes or reads."""


def why_not_log(value: ir.Value, form: QFormat, target: Target) -> str | None:
    """Why the result ``value`` of a float graph cannot be kept in ``form`` on the target; ``None`` where it can."""
    maker = value.producer()
    rule = None if maker is None else target.operators.get(operator_name(maker))
    if rule is None or form not in rule.log_results():
        return _not_listed(f"keeps no {form} result of {'an input' if maker is None else maker.op_type}", target)
    if value.is_graph_output():
        return "it makes a graph output, which is read in real numbers"
    uses = list(value.uses())
    if not uses:
        return "nothing reads its result"
    for use in uses:
        reader = target.operators.get(operator_name(use.node))
        if reader is None or not _reads(reader, use.idx, form):
            what = f"{use.node.op_type} reads no {form} there on {target.name}"
            return f"{use.node.name} reads its result, and {what}"
    return None


def _reads(rule: OperatorRule, index: int, form: QFormat) -> bool:
    role = rule.role(index)
    wide = any(item.bits == 16 for item in rule.activation_formats(index))
    return role in (Role.ACTIVATION, Role.WEIGHT) and wide and form in rule.log_operands()


def log_reasons(node: ir.Node, target: Target) -> Iterator[str]:
    """What breaks the profile about a node of codes along a grid, in a Q/DQ or an integer graph."""
    table = array(node.inputs[1]) if len(node.inputs) > 1 else None
    if table is None or table.ndim != 1:
        yield "its table is not constant" if len(node.inputs) > 1 else "it has no table"
        return
    count = table.size + (node.op_type == LOG_ENCODE)
    form = next((QFormat(bits, logarithmic=True) for bits in LOG_BITS if 1 << bits == count), None)
    if form is None:
        yield f"its grid has {count} values, a log format has 4, 8, 16 and so on up to {1 << LOG_BITS[-1]}"
    elif node.op_type == LOG_ENCODE:
        yield from _maker_reasons(node, form, target)
    else:
        yield from _reader_reasons(node, form, target)


def _maker_reasons(node: ir.Node, form: QFormat, target: Target) -> Iterator[str]:
    maker = _made_by(node.inputs[0])
    rules = [] if maker is None else _rules(maker, target)
    if not any(form in rule.log_results() for rule in rules):
        what = "an input" if maker is None else f"{maker.op_type} ({maker.name})"
        yield _not_listed(f"keeps no {form} result of {what}", target)


def _reader_reasons(node: ir.Node, form: QFormat, target: Target) -> Iterator[str]:
    for reader in _readers(node.outputs[0]):
        if reader is None:
            yield f"its {form} codes become a graph output"
        elif not any(form in rule.log_operands() for rule in _rules(reader, target)):
            yield _not_listed(f"reads no {form} in {reader.op_type} ({reader.name})", target)


def _not_listed(what: str, target: Target) -> str:
    return f"{target.name} {what}: another format is needed there, or log_outputs and log_inputs in the profile"


def _rules(node: ir.Node, target: Target) -> list[OperatorRule]:
    """The rules that govern a float operator or one on codes; a table serves any operator."""
    from qcompiler.target.lowered import family, governing

    if node.domain != DOMAIN:
        rule = target.operators.get(operator_name(node))
        return [] if rule is None else [rule]
    return governing(family(node.op_type), target)


def _made_by(value: ir.Value | None) -> ir.Node | None:
    node = None if value is None else value.producer()
    while node is not None and node.op_type in _BETWEEN:
        source = node.inputs[0]
        node = None if source is None else source.producer()
    return node


def _readers(value: ir.Value) -> Iterator[ir.Node | None]:
    """Who reads a tensor, seen through conversions; ``None`` stands for a graph output."""
    if value.is_graph_output():
        yield None
    for use in value.uses():
        if use.node.op_type in _BETWEEN:
            yield from _readers(use.node.outputs[0])
        else:
            yield use.node
