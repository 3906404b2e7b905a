"""Check a graph that holds Q/DQ nodes against a profile: every broken rule is a sentence with a node.

Only what the profile says is checked here, on nodes that are meant to run on integers (:func:`qdq.is_integer`).
A node left in real numbers is legal unless the profile refuses fallbacks.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from qcompiler.ir.constants import is_constant
from qcompiler.ir.operators import operator_name
from qcompiler.quant.format import QFormat
from qcompiler.quant.operators import is_log
from qcompiler.target import qdq
from qcompiler.target.log_codes import log_reasons
from qcompiler.target.parameters import BIAS_TOLERANCE, bias_reasons, form_reason, scale_reasons
from qcompiler.target.qdq import Codes, View
from qcompiler.target.rules import rule_for
from qcompiler.target.schema import Fallback, InputOutput, Kind, OperatorRule, Target
from qcompiler.target.weights import storage_type, weight_reason

__all__ = [
    "Violation",
    "check_graph",
    "check_node",
    "fallback_reason",
    "fixed_reasons",
    "header_reasons",
    "label",
    "works_on_floats",
]

_CONVERTERS = frozenset({"QuantizeLinear", "DequantizeLinear", "Constant"})
_HEADER = "(model)"
_FLOAT_WEIGHT = "its weight is float between quantized activations: ONNX Runtime would quantize it per tensor"


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken rule: the node and what is wrong with it."""

    node: str
    reason: str

    def __str__(self) -> str:
        return f"{self.node}: {self.reason}"


def check_graph(model: ir.Model, target: Target, floating: Container[str] = ()) -> list[Violation]:
    """Every violation in the main graph, in graph order, those of the model as a whole first.

    Args:
        model: The model.
        target: The profile.
        floating: Names of nodes known to be meant for real numbers; codes on all sides do not make them integer.
    """
    found = [Violation(_HEADER, reason) for reason in (*header_reasons(model, target), *_function_reasons(model))]
    views = {id(node): qdq.view(node, rule) for node in model.graph if (rule := rule_for(target, node)) is not None}
    integer = {key: seen for key, seen in views.items() if qdq.is_integer(seen)}
    absorbed = {id(item) for seen in integer.values() for item in seen.absorbed}
    for node in model.graph:
        if is_log(node):
            found.extend(Violation(label(node), reason) for reason in log_reasons(node, target))
        if node.op_type in _CONVERTERS or id(node) in absorbed:
            continue
        seen, meant = integer.get(id(node)), node.name not in floating
        if seen is not None and meant:
            found.extend(Violation(label(node), reason) for reason in check_node(seen, target))
            continue
        if seen is not None and seen.float_weight:
            found.append(Violation(label(node), _FLOAT_WEIGHT))
        if target.fallback is Fallback.REFUSE and works_on_floats(node):
            found.append(Violation(label(node), fallback_reason(node, views.get(id(node)), target)))
    return found


def _function_reasons(model: ir.Model) -> Iterator[str]:
    """What is wrong with the functions of codes along a grid, the only operators of ours among Q/DQ nodes."""
    if any(is_log(node) for node in model.graph):
        from qcompiler.target.definitions import definition_reasons

        yield from definition_reasons(model)


def check_node(seen: View, target: Target) -> Iterator[str]:
    """What an integer node breaks, in sentences."""
    from qcompiler.target.legality import why_not_constraints

    reason = why_not_constraints(seen.rule.constraints, seen.node)
    if reason is not None:
        yield reason
    if seen.float_weight:
        yield _FLOAT_WEIGHT
    yield from _activation_reasons(seen)
    yield from _result_reasons(seen)
    if seen.weight is not None and (reason := weight_reason(seen.weight, seen.rule, seen.node)) is not None:
        yield reason
    yield from bias_reasons(seen)
    yield from scale_reasons(seen, target)


def _activation_reasons(seen: View) -> Iterator[str]:
    """Types, per-tensor scales and zero points of activations; equal types where formats may not mix."""
    for index, codes in seen.activations.items():
        if codes is not None and (reason := _format_reason(codes, seen.rule.activation_formats(index), seen.rule)):
            yield f"its input {index} {reason}"
    ties = [codes for codes in (*seen.activations.values(), *seen.results) if codes is not None]
    if seen.rule.kind is Kind.SAME_SCALE:
        if not all(ties[0].same_parameters(codes) for codes in ties[1:]):
            yield "its inputs and outputs must share scale, zero point and type, and do not"
    elif not seen.rule.mixed:
        first = [codes for index, codes in seen.activations.items() if codes and not _second(seen.rule, index)]
        kinds = dict.fromkeys(codes.dtype.name.lower() for codes in (*first, *seen.results))
        if len(kinds) > 1:
            yield f"its activations mix {' and '.join(kinds)}"


def _second(rule: OperatorRule, index: int) -> bool:
    return bool(rule.second) and rule.activation_formats(index) is rule.second


def _result_reasons(seen: View) -> Iterator[str]:
    outputs: dict[int, Codes] = {}
    for codes in seen.results:
        if (reason := _format_reason(codes, seen.rule.output_formats(), seen.rule)) is not None:
            yield f"its result {reason}"
        elif codes.scale is not None and codes.zero_point is not None:
            parameters = float(codes.scale.reshape(-1)[0]), int(codes.zero_point.reshape(-1)[0])
            yield from fixed_reasons(seen.rule, codes.dtype, *parameters)
        reader = codes.value.producer()
        source = reader.inputs[0] if reader is not None else None
        if not outputs.setdefault(id(source), codes).same_parameters(codes):
            yield "its result is quantized in different ways by different readers"


def fixed_reasons(rule: OperatorRule, dtype: ir.DataType, scale: float, zero: int) -> Iterator[str]:
    """Why a result has other parameters than the kernel gives it."""
    forms = [form for form in rule.output_formats() if storage_type(form.in_bytes) == dtype]
    given = next((found for form in forms if (found := rule.fixed_result(form)) is not None), None)
    if given is not None and (abs(scale / given[0] - 1) > BIAS_TOLERANCE or zero != given[1]):
        yield f"its result has scale {scale:g} and zero point {zero}, the kernel gives {given[0]:g} and {given[1]}"


def _format_reason(codes: Codes, accepted: Iterable[QFormat], rule: OperatorRule) -> str | None:
    """Why codes are in none of the accepted activation formats."""
    accepted = tuple(accepted)
    forms = [form for form in accepted if storage_type(form.in_bytes) == codes.dtype]
    if not forms:
        return f"is {codes.dtype.name.lower()}, the target takes {_listed(accepted)}"
    if codes.scale is None or codes.zero_point is None:
        return "has a scale or zero point that is not constant"
    if codes.scale.size != 1 or codes.block:
        return "has more than one scale"
    reasons = [form_reason(codes, form, rule.constraints.zero_point) for form in forms]
    return None if None in reasons else reasons[0]


def header_reasons(model: ir.Model, target: Target) -> Iterator[str]:
    """What the model as a whole breaks: versions, and real numbers at a border that takes codes."""
    opset = model.graph.opset_imports.get("", 0)
    if opset > target.opset:
        yield f"it needs opset {opset}, the target takes up to {target.opset}"
    if model.ir_version > target.ir_version:
        yield f"it has IR version {model.ir_version}, the target takes up to {target.ir_version}"
    if target.input_output is InputOutput.QUANTIZED:
        for value in (*model.graph.inputs, *model.graph.outputs):
            if value.dtype == ir.DataType.FLOAT:
                yield f"'{value.name}' is float, the target takes and gives codes"


def works_on_floats(node: ir.Node) -> bool:
    """Whether real numbers are computed here at run time."""
    values = [value for value in (*node.inputs, *node.outputs) if value is not None]
    if node.inputs and all(is_constant(value) for value in node.inputs if value is not None):
        return False
    return any(value.dtype in (None, ir.DataType.FLOAT) and not is_constant(value) for value in values)


def fallback_reason(node: ir.Node, seen: View | None, target: Target) -> str:
    """Why a node that stays float does so, on a target that refuses it."""
    from qcompiler.target.legality import why_not

    if seen is None:
        return f"it stays float, which {target.name} refuses: no integer {operator_name(node)}"
    reason = why_not(target, node) or "what surrounds it is float"
    return f"it stays float, which {target.name} refuses: {reason}"


def label(node: ir.Node) -> str:
    """What a violation calls a node."""
    label = node.name or (node.outputs[0].name if node.outputs else None) or "?"
    return f"{label} ({node.op_type})"


def _listed(forms: Iterable[QFormat]) -> str:
    return " or ".join(dict.fromkeys(storage_type(form.in_bytes).name.lower() for form in forms))
