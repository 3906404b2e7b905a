"""Tie groups: which nodes share one decision when formats are chosen by measurement, and among which formats.

Nodes that read the same weight must agree on its bits. Where candidates differ in the bits of activations, the readers
of one stream agree too: all readers of a value, of both operands of a residual Add, of everything that same-scale
nodes (Concat, Reshape, pooling of maxima) merely move, and of what a kernel with one type for all reads and writes.
Who writes a stream does not matter: results are kept in what their readers want, and a residual Add rescales anyway, so
behind it a stream may be kept in another width. An activation that a node absorbs belongs to that node.

A group's options are the candidates that the rules of all its weights follow to the letter. What a candidate comes to
is read off the decisions of ``assign-formats`` on a copy, so two candidates with the same outcome are one option.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import onnx_ir as ir

from qcompiler.errors import UsageError
from qcompiler.ir.constants import is_constant
from qcompiler.ir.copies import shared_copy
from qcompiler.ir.edit import Edit
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.passes.allocate.integer_nodes import IntegerNodes, decide
from qcompiler.passes.allocate.selectors import select
from qcompiler.passes.allocate.ties import components
from qcompiler.pipeline.base import Context
from qcompiler.quant import state
from qcompiler.quant.operators import LINEAR, LOOKUP
from qcompiler.target.formats import FormatRequest, resolve_format, weight_format, weight_only_format
from qcompiler.target.rules import rule_for
from qcompiler.target.schema import Role, Target

__all__ = ["Grouping", "TieGroup", "assigned", "tie_groups", "weight_inputs"]

Signature: TypeAlias = tuple[str, ...]
Outcome: TypeAlias = dict[str, dict[int, str]]
"""Formats that nodes read, by node name and input."""


@dataclass(frozen=True, slots=True)
class TieGroup:
    """Nodes that share one decision.

    Attributes:
        name: Name of its first node.
        nodes: Names of its nodes in graph order: those that read weights or activations by the decision, and what they
            absorb.
        weights: Numbers in its weights.
        options: Candidates that it follows; the first of those that come to the same formats.
        activations: Whether its options differ in the formats of activations.
    """

    name: str
    nodes: tuple[str, ...]
    weights: int
    options: tuple[str, ...]
    activations: bool = False


@dataclass(frozen=True, slots=True)
class Grouping:
    """What there is to decide.

    Attributes:
        groups: Groups of two options or more, in graph order.
        fixed: Groups that follow one candidate alone; its text is their only option.
        refused: Nodes with weights that follow no candidate, and why; they keep what is nearest to the model's format.
        order: Names of all nodes in graph order.
    """

    groups: tuple[TieGroup, ...]
    fixed: tuple[TieGroup, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    order: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[TieGroup, ...]:
        """Groups with a choice and those without, in graph order."""
        place = {name: number for number, name in enumerate(self.order)}
        return tuple(sorted((*self.groups, *self.fixed), key=lambda group: place.get(group.name, 0)))


def tie_groups(model: ir.Model, target: Target, candidates: Sequence[str], exclude: tuple[str, ...] = ()) -> Grouping:
    """Groups of a normalized model and the candidates that each may follow.

    Args:
        model: The model; it is not changed.
        target: The profile.
        candidates: Format texts, the widest first where it matters which of two equal options is kept.
        exclude: Node selectors of the user: such nodes stay float.

    Raises:
        UsageError: A candidate is no format of the target, or no node of this model follows it; candidates mix
            activations that are codes with such that are real numbers.
        PassError: No node of this model can run on integers on the target.
    """
    requests = _resolved(target, candidates)
    outcomes = {request.text: _outcome(model, target, request.text, exclude) for request in requests}
    nodes = decide(model.graph, target, select(model.graph, exclude))
    if requests[0].weight_only:
        nodes.owner.clear()  # activations are real numbers: nothing is absorbed
    members = _members(model.graph, nodes, outcomes, weight_only=requests[0].weight_only)
    groups, refusals = [], []
    for together in components(model.graph, nodes, members, streams=_differ(requests)):
        reasons = {request.text: _why_not(together, nodes, request) for request in requests}
        refusals.append((_names(together, nodes)[0], reasons))
        if not all(reasons.values()):
            groups.append(_group(together, nodes, {text: outcomes[text] for text in reasons if not reasons[text]}))
    _check_followed(requests, [reasons for _, reasons in refusals], target)
    choosing = tuple(group for group in groups if len(group.options) > 1)
    fixed = tuple(group for group in groups if len(group.options) == 1)
    refused = {name: _listed(why.values()) for name, why in refusals if all(why.values())}
    return Grouping(choosing, fixed, refused, tuple(str(node.name) for node in model.graph))


def assigned(model: ir.Model, target: Target, text: str, exclude: tuple[str, ...] = ()) -> ir.Model:
    """A copy on which ``assign-formats`` decided for one format, of tables as well."""
    copy = shared_copy(model)
    AssignFormats(tables=True).run(copy, Context(Edit(copy), target=target, format=text, exclude=exclude))
    return copy


def weight_inputs(node: ir.Node, target: Target) -> Iterator[int]:
    """Inputs of a node that read a constant weight in a format of its own, once formats are assigned."""
    rule, decision = rule_for(target, node), state.node_decision(node)
    if rule is None or decision is None or not decision.integer:
        return
    for index, value in enumerate(node.inputs):
        if rule.role(index) is Role.WEIGHT and is_constant(value) and state.edge_quant(node, index) is not None:
            yield index


def _resolved(target: Target, candidates: Sequence[str]) -> list[FormatRequest]:
    requests = [resolve_format(target, text) for text in dict.fromkeys(candidates)]
    if not requests:
        raise UsageError("no candidate formats were given", hint=f"{target.name} offers {', '.join(target.formats)}")
    if len({request.weight_only for request in requests}) > 1:
        raise UsageError(
            f"candidates {', '.join(candidates)} mix real activations with codes",
            hint="give formats with activation bits (w8a8, w4a8) or formats without (w8, w4)",
        )
    return requests


def _differ(requests: Sequence[FormatRequest]) -> bool:
    return len({request.activation_bits for request in requests}) > 1


def _outcome(model: ir.Model, target: Target, text: str, exclude: tuple[str, ...]) -> Outcome:
    """Formats that each node reads under one candidate: of weights and of activations, by input."""
    found: Outcome = {}
    for node in assigned(model, target, text, exclude).graph:
        decision = state.node_decision(node)
        if decision is not None and decision.integer:
            quants = {index: state.edge_quant(node, index) for index in range(len(node.inputs))}
            found[str(node.name)] = {index: str(quant.format) for index, quant in quants.items() if quant is not None}
    return found


def _weight_edges(node: ir.Node, nodes: IntegerNodes, formats: Mapping[int, str]) -> list[int]:
    """Inputs of a node that read a constant weight."""
    if node in nodes.owner or node not in nodes.rules:
        return []
    rule = nodes.rules[node]
    return [index for index in formats if rule.role(index) is Role.WEIGHT and is_constant(node.inputs[index])]


def _members(
    graph: ir.Graph, nodes: IntegerNodes, outcomes: Mapping[str, Outcome], *, weight_only: bool
) -> dict[ir.Node, list[int]]:
    """Nodes that can choose, and the inputs at which they read weights."""
    first, *others = outcomes.values()
    found = {}
    for node in graph:
        formats = first.get(str(node.name))
        if formats is None or node in nodes.owner:
            continue
        edges = _weight_edges(node, nodes, formats)
        if weight_only and (node.op_type not in (*LINEAR, LOOKUP) or not edges):
            continue
        moves = node in nodes.rules and nodes.rules[node].kind == "same-scale"
        if edges or (not moves and any(other.get(str(node.name)) != formats for other in others)):
            found[node] = edges
    return found


def _group(together: Mapping[ir.Node, list[int]], nodes: IntegerNodes, outcomes: Mapping[str, Outcome]) -> TieGroup:
    """The group, given the outcomes of those candidates that it follows."""
    options: dict[tuple[Signature, Signature], str] = {}
    for text, outcome in outcomes.items():
        options.setdefault(_signature(together, outcome), text)
    names = _names(together, nodes)
    shared = {node.inputs[index] for node, edges in together.items() for index in edges}
    differ = len({activations for _, activations in options}) > 1
    return TieGroup(names[0], names, sum(map(_size, shared)), tuple(options.values()), differ)


def _why_not(together: Mapping[ir.Node, list[int]], nodes: IntegerNodes, request: FormatRequest) -> str:
    """Why a group cannot follow a request to the letter; empty where it can."""
    choose = weight_only_format if request.weight_only else weight_format
    return _listed(choose(nodes.rules[node], request).reason for node, edges in together.items() if edges)


def _listed(reasons: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason))


def _signature(together: Mapping[ir.Node, list[int]], outcome: Outcome) -> tuple[Signature, Signature]:
    """Formats of the group's weights, and of its activations."""
    read = [
        (index in edges, form) for node, edges in together.items() for index, form in outcome[str(node.name)].items()
    ]
    return tuple(form for weight, form in read if weight), tuple(form for weight, form in read if not weight)


def _names(together: Iterable[ir.Node], nodes: IntegerNodes) -> tuple[str, ...]:
    own = set(together)
    absorbed = {user for user, owner in nodes.owner.items() if owner in own}
    return tuple(str(node.name) for node in nodes.decisions if node in own or node in absorbed)


def _size(value: ir.Value | None) -> int:
    shape = () if value is None or value.shape is None else value.shape
    return math.prod(item for item in shape if isinstance(item, int))


def _check_followed(requests: Sequence[FormatRequest], refusals: Sequence[Mapping[str, str]], target: Target) -> None:
    """Refuse a candidate that nothing in this model follows."""
    for request in requests:
        reasons = [refusal[request.text] for refusal in refusals]
        if all(reasons):
            why = _listed(reasons) or f"{target.name} quantizes none of its weights"
            raise UsageError(
                f"no node of this model can follow '{request.text}': {why}", hint="leave this candidate out"
            )
