"""Formats by node in a plan file: which nodes follow them, and whether they agree with the plan's other decisions.

Nodes get marks, as from ``choose-formats``. A node that cannot follow is named with the reason, and gets no mark. Where
the plan also decides on tensors, those decisions are what is taken, so formats that say otherwise are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import onnx_ir as ir

from qcompiler.errors import UsageError, nearest
from qcompiler.ir.copies import shared_copy
from qcompiler.ir.edit import Edit
from qcompiler.passes.allocate._plan_trial import mark_nodes
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.passes.allocate.groups import assigned, weight_inputs
from qcompiler.passes.allocate.integer_nodes import decide
from qcompiler.passes.allocate.selectors import select
from qcompiler.pipeline.base import Context
from qcompiler.quant import plan as plans
from qcompiler.quant import state
from qcompiler.quant.state import TensorQuant
from qcompiler.target.formats import FormatRequest, resolve_format, weight_format, weight_only_format
from qcompiler.target.kinds import Wide
from qcompiler.target.rules import rule_for
from qcompiler.target.schema import Target

__all__ = ["check_formats", "follow_formats"]

_WHERE: Final = "--plan"
_SHOWN: Final = 4
"""Nodes that a warning names."""


def follow_formats(formats: Mapping[str, str], model: ir.Model, ctx: Context) -> None:
    """Mark the nodes that a plan names, where they can follow.

    Raises:
        UsageError: The plan names a node that the model does not have, or a format that the target does not offer or
            that cannot be mixed with the model's.
    """
    target = ctx.target
    if target is None:
        raise UsageError("formats by node need a target", hint="name one with --target")
    base = resolve_format(target, ctx.format)
    _check_names(formats, model.graph)
    own = {name: resolve_format(target, text) for name, text in formats.items()}
    for name, request in own.items():
        if request.weight_only != base.weight_only:
            raise UsageError(
                f"'{name}' follows {request.text}, the model {base.text}: that mixes real activations with codes",
                where=_WHERE, hint="one compile has one kind of activations: write w4 … beside w8, w4a8 … beside w8a8",
            )  # fmt: skip
    unable = dict(_unable(own, base, model, target, ctx))
    mark_nodes(model.graph, {name: text for name, text in formats.items() if name not in unable}, ctx)
    if unable:
        named = "; ".join(f"{name}: {reason}" for name, reason in list(unable.items())[:_SHOWN])
        more = "; …" if len(unable) > _SHOWN else ""
        ctx.warn(f"{len(unable)} nodes follow no format of the plan: leave them out of 'formats' ({named}{more})")
    ctx.note(f"{len(formats) - len(unable)} nodes follow the formats of the plan")


def check_formats(plan: Mapping[str, Any], model: ir.Model, ctx: Context) -> None:
    """Mark the nodes of a plan whose other decisions are on ``model`` already; refuse one that disagrees with itself.

    Bits of weights are compared, and bits of activations that nodes do not widen by preference (``choose-widths``
    decides on those).

    Raises:
        UsageError: They disagree, or a name or format is unknown.
    """
    formats = plans.node_formats(plan)
    if not formats or ctx.target is None:
        return
    _check_names(formats, model.graph)
    text = plan.get("format")
    copy = shared_copy(model)
    mark_nodes(copy.graph, formats, ctx)
    inner = Context(
        Edit(copy), target=ctx.target, format=text if isinstance(text, str) else ctx.format, exclude=ctx.exclude
    )
    AssignFormats().run(copy, inner)
    asked = {str(node.name): node for node in copy.graph}
    for node in model.graph:
        name = str(node.name)
        for index, bits in _other_bits(node, asked[name], ctx.target) if name in formats else ():
            found = f"'nodes' and 'values' have {bits} bits at its input {index}"
            raise UsageError(
                f"'formats' says {formats[name]} for '{name}', {found}",
                where=_WHERE,
                hint="delete 'nodes' and 'values' so that the formats decide, or delete 'formats' so that those do",
            )  # fmt: skip
    mark_nodes(model.graph, formats, ctx)


def _check_names(formats: Mapping[str, str], graph: ir.Graph) -> None:
    names = {str(node.name) for node in graph}
    for name in formats:
        if name not in names:
            hint = nearest(name, names) or "a plan belongs to one model: write it again with --plan-out"
            raise UsageError(f"the plan names a node '{name}' that the model does not have", where=_WHERE, hint=hint)


def _unable(
    own: Mapping[str, FormatRequest], base: FormatRequest, model: ir.Model, target: Target, ctx: Context
) -> Iterator[tuple[str, str]]:
    """Nodes on which a format of their own has no effect, or not the one that it names, and why."""
    nodes = decide(model.graph, target, select(model.graph, ctx.exclude))
    owner = {} if base.weight_only else {str(one.name): str(other.name) for one, other in nodes.owner.items()}
    for node in assigned(model, target, base.text, ctx.exclude).graph:
        name = str(node.name)
        request = own.get(name)
        if request is None or request.text == base.text:
            continue
        if name in owner:
            followed = own.get(owner[name], base).text
            reason = "" if followed == request.text else f"it is part of {owner[name]}, which follows {followed}"
        else:
            reason = _why_not(node, request, base, target)
        if reason:
            yield name, reason


def _why_not(node: ir.Node, request: FormatRequest, base: FormatRequest, target: Target) -> str:
    """Why a node, on which the formats of ``base`` are decided, cannot follow a request; empty where it can."""
    decision, rule = state.node_decision(node), rule_for(target, node)
    if decision is None or not decision.integer or rule is None:
        return "it stays float" + (f": {decision.reason}" if decision is not None and decision.reason else "")
    if list(weight_inputs(node, target)):
        return (weight_only_format if request.weight_only else weight_format)(rule, request).reason
    if rule.kind == "same-scale":
        return "it moves values as they are"
    return "it has no weights of few bits" if request.activation_bits == base.activation_bits else ""


def _other_bits(node: ir.Node, asked: ir.Node, target: Target) -> Iterator[tuple[int, int]]:
    """Inputs of a node that have other bits than asked for, and those bits."""
    rule, weights = rule_for(target, node), set(weight_inputs(node, target))
    for index in range(len(node.inputs)):
        found, wanted = state.edge_quant(node, index), state.edge_quant(asked, index)
        if not isinstance(found, TensorQuant) or not isinstance(wanted, TensorQuant):
            continue
        compared = index in weights or (rule is not None and rule.wide is Wide.NEVER)
        if compared and not found.format.logarithmic and found.format.bits != wanted.format.bits:
            yield index, found.format.bits
