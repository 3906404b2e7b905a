"""May this operator run on integers on this target, and if not, why not.

:func:`why_not` asks before formats are assigned, :func:`check_model` after Q/DQ nodes exist. Both answer in
sentences that go to the report as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Container
from pathlib import Path
from typing import Any

import onnx_ir as ir

from qcompiler.ir.constants import is_constant
from qcompiler.ir.operators import operator_name
from qcompiler.target.checks import Violation, check_graph
from qcompiler.target.rules import rule_for
from qcompiler.target.schema import AttributeValue, Constraints, OperatorRule, Output, Role, Target

__all__ = ["Violation", "check_model", "why_not", "why_not_constraints"]


def why_not(target: Target, node: ir.Node) -> str | None:
    """Why a float node cannot run on integers on the target; ``None`` when it can.

    The node has no Q/DQ around it yet. Attributes left out count with their ONNX defaults; an unknown rank passes.
    """
    rule = rule_for(target, node)
    if rule is None:
        return f"{target.name} has no integer {operator_name(node)}"
    checks = (_why_not_inputs, _why_not_outputs)
    for check in checks:
        if (reason := check(rule, node)) is not None:
            return reason
    return why_not_constraints(rule.constraints, node)


def _why_not_inputs(rule: OperatorRule, node: ir.Node) -> str | None:
    for index, value in enumerate(node.inputs):
        role = rule.role(index)
        if value is None or role is Role.FLOAT:
            continue
        if value.dtype is not None and value.dtype != ir.DataType.FLOAT:
            return f"input {index} is {value.dtype.name.lower()}, not float"
        if role is Role.WEIGHT and not rule.second and not is_constant(value):
            return "its weights are computed at run time"
        if role is Role.BIAS and not is_constant(value):
            return "its bias is computed at run time"
        if role is Role.BIAS and value.shape is not None and any(size != 1 for size in value.shape[:-1]):
            return "its bias differs from row to row"
    return None


def _why_not_outputs(rule: OperatorRule, node: ir.Node) -> str | None:
    for index, value in enumerate(node.outputs):
        used = value.is_graph_output() or next(iter(value.uses()), None) is not None
        if not used:
            continue
        if index > 0 and rule.operator != "Split":
            return f"its output {index} is used, the integer kernel gives the first only"
        if value.dtype is not None and value.dtype != ir.DataType.FLOAT and rule.output is not Output.FLOAT:
            return f"its output is {value.dtype.name.lower()}, not float"
    return None


def why_not_constraints(constraints: Constraints, node: ir.Node) -> str | None:
    """The constraint of the rule that the node breaks; ``None`` when it meets all."""
    first = node.inputs[0] if node.inputs else None
    if constraints.rank is not None and first is not None and first.shape is not None:
        rank, (least, most) = len(first.shape), constraints.rank
        if not least <= rank <= most:
            return f"its input has rank {rank}, the target takes {least} to {most}"
    for index in constraints.constant_inputs:
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is not None and not _holds_constant(value):
            return f"input {index} is not constant"
    for name, accepted in constraints.attributes.items():
        found = _attribute(node, name)
        items = found if isinstance(found, list | tuple) else () if found is None else (found,)
        if any(item not in accepted for item in items):
            return f"its attribute {name} is {_shown(found)}, the target takes {_listed(accepted)}"
    return None


def _holds_constant(value: ir.Value) -> bool:
    """Whether a value is constant, as it is or stored as codes."""
    producer = value.producer()
    stored = producer is not None and producer.op_type == "DequantizeLinear"
    return is_constant(producer.inputs[0] if producer is not None and stored else value)


def _attribute(node: ir.Node, name: str) -> Any:
    """The attribute's value, its ONNX default when left out, ``None`` when it has neither."""
    attribute = node.attributes.get(name)
    return attribute.value if attribute is not None else _attribute_default(node.domain, node.op_type, name)


@functools.cache
def _attribute_default(domain: str, op_type: str, name: str) -> Any:
    import onnx
    import onnx.defs

    if not onnx.defs.has(op_type, domain):
        return None
    attribute = onnx.defs.get_schema(op_type, domain).attributes.get(name)
    if attribute is None or not attribute.default_value.name:
        return None
    value = onnx.helper.get_attribute_value(attribute.default_value)
    return value.decode() if isinstance(value, bytes) else value


def _shown(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _listed(values: tuple[AttributeValue, ...]) -> str:
    return " or ".join(str(value) for value in values)


def check_model(model: ir.Model | str | Path, target: Target, floating: Container[str] = ()) -> list[Violation]:
    """Check a model that holds Q/DQ nodes or operators of ``ai.qcompiler`` against a profile.

    Args:
        model: The model or the path of a file.
        target: The profile.
        floating: Names of nodes known to be meant for real numbers; codes on all sides do not make them integer.

    Returns:
        Every violation; empty when the model is legal.

    Raises:
        ModelError: The file cannot be read.
    """
    from qcompiler.target.lowered import check_lowered, is_lowered

    if not isinstance(model, ir.Model):
        from qcompiler.ir import io

        model = io.load(model)
    return check_lowered(model, target) if is_lowered(model) else check_graph(model, target, floating)
