"""Check a graph of ``ai.qcompiler`` operators against a profile: every broken rule is a sentence with a node.

In such a graph scales have become multipliers, shifts and tables, so the checks are about what the hardware does: how
wide a multiplier is, how far it shifts, which codes and tables it takes, whether an accumulator can overflow. What the
operators compute is defined by their functions: those of the model must be the ones of the operator set.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

import onnx_ir as ir

from qcompiler.analysis.accumulators import family
from qcompiler.analysis.code_ranges import CodeRanges
from qcompiler.ir.operators import operator_name
from qcompiler.quant.annotations import annotation
from qcompiler.quant.format import QFormat
from qcompiler.quant.functions.catalogue import operators
from qcompiler.quant.functions.definition import DOMAIN, Operator
from qcompiler.quant.operators import ROW_LOOKUPS, is_log
from qcompiler.target import qdq
from qcompiler.target.checks import Violation, fallback_reason, fixed_reasons, header_reasons, label, works_on_floats
from qcompiler.target.definitions import definition_reasons
from qcompiler.target.log_codes import log_reasons
from qcompiler.target.lowered_constants import (
    accumulator_reasons,
    multiplier_bits,
    multiplier_reasons,
    shift_reasons,
    table_reasons,
    weight_reasons,
)
from qcompiler.target.lowered_tables import packed_table_reasons
from qcompiler.target.lowered_weight_only import weight_only_reasons
from qcompiler.target.schema import Fallback, Kind, OperatorRule, Target, ZeroPoint
from qcompiler.target.weights import storage_type

__all__ = ["check_lowered", "family", "governing", "is_lowered", "stands_for", "why_not_rescales"]

_STANDS_FOR: Final = {
    "QAdd": ("Add", "Sub", "Sum"),
    "QAveragePool": ("AveragePool",),
    "QAveragePoolChannelsLast": ("AveragePool",),
    "QConcat": ("Concat",),
    "QConv": ("Conv",),
    "QConvChannelsLast": ("Conv",),
    "QConvTranspose": ("ConvTranspose",),
    "QGather": ("Gather",),
    "QGatherWeightOnly": ("Gather",),
    "QGemm": ("Gemm", "MatMul"),
    "QGlobalAveragePool": ("GlobalAveragePool", "AveragePool", "ReduceMean"),
    "QLayerNormalization": ("LayerNormalization",),
    "QMatMul": ("MatMul",),
    "QMatMulWeightOnly": ("MatMul", "Gemm"),
    "QMaxPool": ("MaxPool",),
    "QMul": ("Mul", "Div"),
    "QRMSNormalization": ("RMSNormalization",),
    "QReduceMean": ("ReduceMean", "ReduceSum", "GlobalAveragePool"),
    "QResize": ("Resize",),
    "QSoftmax": ("Softmax",),
    "QSub": ("Sub", "Add"),
}
"""Operators of the profile whose rules govern a family; what is not listed (tables, rescales) serves all of them."""
_CODES: Final = frozenset({ir.DataType.INT8, ir.DataType.INT16})
_NO_ACTIVATIONS: Final = frozenset({"w", "table", "zero_point"})
_QDQ: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})


def is_lowered(model: ir.Model) -> bool:
    """Whether the main graph holds operators of ``ai.qcompiler``, other than codes along a grid among Q/DQ nodes."""
    return any(node.domain == DOMAIN and not is_log(node) for node in model.graph)


def governing(base: str, target: Target) -> list[OperatorRule]:
    """The rules of the profile that govern a family of operators."""
    names = _STANDS_FOR.get(base, tuple(target.operators))
    return [target.operators[name] for name in names if name in target.operators]


def stands_for(op_type: str) -> str:
    """The float operator whose work an operator does; its own family where it serves several (tables, rescales)."""
    base = family(op_type)
    return _STANDS_FOR.get(base, (base,))[0]


def why_not_rescales(node: ir.Node, dtype: ir.DataType, target: Target) -> str | None:
    """Why the target's kernel of an integer node cannot write other codes of type ``dtype`` instead of its own."""
    base = family(node.op_type)
    rules = [target.operators[name] for name in _STANDS_FOR.get(base, ()) if name in target.operators]
    # Gather moves codes of one scale, but rows of a table are rescaled one by one.
    able = [rule for rule in rules if (rule.kind is Kind.COMPUTE or base in ROW_LOOKUPS) and not rule.fixed]
    if rules and not able:
        return f"{base} keeps its scale on {target.name}"
    first = node.inputs[0] if node.inputs and base not in ROW_LOOKUPS else None
    own = first.dtype if first is not None else None
    if able and not any(_writes(rule, dtype, own) for rule in able):
        return f"{base} does not write {dtype.name.lower()} there on {target.name}"
    return None


def _writes(rule: OperatorRule, dtype: ir.DataType, own: ir.DataType | None) -> bool:
    listed = dtype in {storage_type(form.in_bytes) for form in rule.output_formats()}
    return listed and (rule.mixed or bool(rule.outputs) or own in (None, dtype))


def check_lowered(model: ir.Model, target: Target) -> list[Violation]:
    """Every violation in the main graph, in graph order, those of the model as a whole first."""
    found = [Violation("(model)", reason) for reason in (*header_reasons(model, target), *_functions(model, target))]
    ranges = CodeRanges()
    for node in model.graph:
        if node.domain == DOMAIN:
            own = _operator_reasons(node, ranges, target)
            reasons = itertools.chain(own, log_reasons(node, target)) if is_log(node) else own
        elif node.op_type in _QDQ and not node.domain:
            reasons = _scale_reasons(node, target)
        elif works_on_floats(node):
            reasons = _float_reasons(node, target)
        else:
            reasons = _mover_reasons(node, target)
        found.extend(Violation(label(node), reason) for reason in reasons)
    return found


def _functions(model: ir.Model, target: Target) -> Iterator[str]:
    yield from definition_reasons(model)
    if not target.integer.shifts_only:
        return
    for key in model.functions:
        operator = operators().get(key[1]) if key[0] == DOMAIN else None
        if operator is not None and _multiplies(operator):
            yield f"the function {operator.name} multiplies to rescale, {target.name} only shifts"


def _multiplies(operator: Operator) -> bool:
    return any("multiplier" in name for name in operator.inputs)


def _operator_reasons(node: ir.Node, ranges: CodeRanges, target: Target) -> Iterator[str]:
    operator = operators().get(node.op_type)
    if operator is None:
        yield f"{node.op_type} is no operator of {DOMAIN}"
        return
    base = family(node.op_type)
    rules = governing(base, target)
    if not rules:
        yield f"{target.name} has no integer {' or '.join(_STANDS_FOR.get(base, ()))}"
        return
    if _multiplies(operator) and target.integer.shifts_only:
        yield f"it multiplies to rescale, {target.name} only shifts"
    inputs = dict(zip(operator.inputs, node.inputs, strict=False))
    yield from _type_reasons(operator, inputs)
    yield from _code_reasons(node, inputs, rules, target)
    yield from _clamp_reasons(node)
    for name, value in inputs.items():
        if "multiplier" in name:
            yield from multiplier_reasons(name, value, multiplier_bits(node, ranges, target))
        elif "shift" in name:
            yield from shift_reasons(name, value, target)
        elif "table" in name:
            yield from table_reasons(name, value, target)
    yield from _weight_reasons(base, node, inputs, rules, target)
    yield from accumulator_reasons(node, ranges, target)
    yield from _annotation_reasons(node, rules if base in _STANDS_FOR else [], target)


def _weight_reasons(
    base: str, node: ir.Node, inputs: dict[str, ir.Value | None], rules: list[OperatorRule], target: Target
) -> Iterator[str]:
    """Formats of a weight, or of a table that is looked up, where the operator has one."""
    if base == "QMatMulWeightOnly":
        yield from weight_only_reasons(node, inputs, rules, target)
    elif base in ROW_LOOKUPS:
        yield from packed_table_reasons(node, inputs, rules, target)
    elif "w" in inputs:
        yield from weight_reasons(node, inputs["w"], rules)


def _type_reasons(operator: Operator, inputs: dict[str, ir.Value | None]) -> Iterator[str]:
    """Element types that the operator is not defined for."""
    for name, value in inputs.items():
        words = operator.types.get(name, "").replace(",", " ").split()
        accepted = [word for word in words if word.upper() in ir.DataType.__members__]
        if value is not None and value.dtype is not None and accepted and value.dtype.name.lower() not in accepted:
            yield f"its {name} is {value.dtype.name.lower()}, {operator.name} takes {' or '.join(accepted)}"


def _code_reasons(
    node: ir.Node, inputs: dict[str, ir.Value | None], rules: list[OperatorRule], target: Target
) -> Iterator[str]:
    """Activation codes and zero points that the profile's rules do not permit."""
    reads = [form for rule in rules for form in (*rule.activations, *rule.second)]
    writes = [form for rule in rules for form in rule.output_formats()]
    for name, value in inputs.items():
        if name not in _NO_ACTIVATIONS and value is not None and value.dtype in _CODES:
            yield from _format_reasons(f"its {name}", value.dtype, _zero(node, name), reads, rules)
    to = node.attributes.get_int("to", 0)
    if to in {item.value for item in _CODES}:
        yield from _format_reasons("its result", ir.DataType(to), _zero(node, "y"), writes, rules)
    if len(rules) == 1 and not rules[0].mixed and not rules[0].outputs:
        yield from _mixing_reasons(list(inputs.values())[:1], to)
    wide = any(value is not None and value.dtype == ir.DataType.INT16 for value in inputs.values())
    if wide and "Wide" in node.op_type and target.integer.wide_accumulator_bits == 0:
        yield f"it adds products of 16-bit codes, {target.name} has no accumulator for them"


def _mixing_reasons(activations: list[ir.Value | None], to: int) -> Iterator[str]:
    """Where a kernel has one type for all, it must write what it reads."""
    for value in activations:
        if value is not None and value.dtype in _CODES and to in {item.value for item in _CODES} and value.dtype != to:
            yield f"it reads {value.dtype.name.lower()} and writes {ir.DataType(to).name.lower()}"


def _zero(node: ir.Node, name: str) -> int:
    return int(node.attributes.get_int(f"{name}_zero_point", 0) or 0)


def _format_reasons(
    what: str, dtype: ir.DataType, zero: int, accepted: list[QFormat], rules: list[OperatorRule]
) -> Iterator[str]:
    forms = [form for form in accepted if storage_type(form.in_bytes) == dtype]
    if not forms:
        names = " or ".join(dict.fromkeys(storage_type(form.in_bytes).name.lower() for form in accepted))
        yield f"{what} is {dtype.name.lower()}, the target takes {names}"
        return
    bound = all(rule.constraints.zero_point is ZeroPoint.ZERO for rule in rules)
    if zero and (bound or all(form.symmetric for form in forms)):
        yield f"{what} has zero point {zero}, the target takes 0 for {dtype.name.lower()}"
    least, most = min(form.minimum for form in forms), max(form.maximum for form in forms)
    if not least <= zero <= most:
        yield f"{what} has zero point {zero}, outside {least} to {most}"


def _clamp_reasons(node: ir.Node) -> Iterator[str]:
    """The clamp must be ordered and inside the element type of the result."""
    if not {"low", "high", "to"} <= set(node.attributes):
        return
    low, high, to = (int(node.attributes.get_int(name, 0) or 0) for name in ("low", "high", "to"))
    dtype = ir.DataType(to)
    if not dtype.is_integer() or not dtype.is_signed():
        yield f"its result is {dtype.name.lower()}, codes are signed integers"
    elif not -(1 << (dtype.bitwidth - 1)) <= low <= high < 1 << (dtype.bitwidth - 1):
        yield f"its clamp {low} to {high} is no range of {dtype.name.lower()}"


def _annotation_reasons(node: ir.Node, rules: list[OperatorRule], target: Target) -> Iterator[str]:
    """Scales of results, as far as the graph still says them."""
    meaning = annotation(node.outputs[0]) if node.outputs else None
    if meaning is None:
        return
    yield from _real_scale_reasons(meaning.scale, target)
    if len(rules) == 1:
        dtype = ir.DataType(node.attributes.get_int("to", 0) or 0)
        yield from fixed_reasons(rules[0], dtype, meaning.scale, meaning.zero_point)


def _scale_reasons(node: ir.Node, target: Target) -> Iterator[str]:
    """Scales at the border between codes and real numbers."""
    scale = qdq.codes_of(node).scale
    if scale is not None and scale.size == 1:
        yield from _real_scale_reasons(float(scale.reshape(())), target)


def _real_scale_reasons(scale: float, target: Target) -> Iterator[str]:
    if scale < target.scale_floor:
        yield f"its codes have scale {scale:.3g}, below the target's floor {target.scale_floor:.3g}"
    if target.power_of_two_scales and scale > 0 and scale.hex().partition("p")[0] != "0x1.0000000000000":
        yield f"its codes have scale {scale:.6g}, which is not a power of two"


def _float_reasons(node: ir.Node, target: Target) -> Iterator[str]:
    """A node left in real numbers: legal unless the profile refuses it, or its weight would be quantized unseen."""
    rule = target.operators.get(operator_name(node))
    seen = None if rule is None else qdq.view(node, rule)
    if target.fallback is Fallback.REFUSE:
        yield fallback_reason(node, seen, target)
    if seen is not None and qdq.is_integer(seen) and seen.float_weight:
        yield "its weight is float between quantized activations: ONNX Runtime would quantize it per tensor"


def _mover_reasons(node: ir.Node, target: Target) -> Iterator[str]:
    """A standard operator on codes must be one that the target has for codes of that type."""
    rule = target.operators.get(operator_name(node))
    data = node.inputs[0] if node.inputs else None
    if rule is None or data is None or data.dtype not in _CODES:
        return
    if data.dtype not in {storage_type(form.in_bytes) for form in rule.activations}:
        names = " or ".join(dict.fromkeys(storage_type(form.in_bytes).name.lower() for form in rule.activations))
        yield f"it moves {data.dtype.name.lower()}, the target takes {names}"
