"""Which nodes run on integers: the greatest set that the profile allows.

Every node with a rule and no reason against it starts as integer; nodes that the profile wants only *between*
integer neighbours, and nodes that merely move values, leave the set while a neighbour is float, until nothing
changes. So a CNN's residual Add, whose convolutions write codes anyway, stays, and a transformer's residual stream,
fed by matrix products that give real numbers at no cost, leaves as a whole.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Container, Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from qcompiler.ir.constants import is_constant
from qcompiler.ir.operators import has_type, operator_name
from qcompiler.ir.uses import only_use
from qcompiler.passes.allocate.tails import tail
from qcompiler.quant.factors import why_float
from qcompiler.quant.operators import LOOKUP, TABLE_INPUT
from qcompiler.quant.state import NodeDecision
from qcompiler.target.legality import why_not
from qcompiler.target.rules import rule_for
from qcompiler.target.schema import OperatorRule, Target

__all__ = ["IntegerNodes", "decide", "results"]

_PROBABILITIES = frozenset({"Softmax", "LogSoftmax"})


@dataclass(slots=True)
class IntegerNodes:
    """The decision on every node of a graph.

    Attributes:
        target: The profile.
        rules: Rule of every node that was a candidate.
        decisions: Decision per node.
        owner: For an activation fused into another node: that node.
    """

    target: Target
    rules: dict[ir.Node, OperatorRule] = field(default_factory=dict)
    decisions: dict[ir.Node, NodeDecision] = field(default_factory=dict)
    owner: dict[ir.Node, ir.Node] = field(default_factory=dict)

    def integer(self, node: ir.Node | None) -> bool:
        """Whether ``node`` runs on integers."""
        return node is not None and (decision := self.decisions.get(node)) is not None and decision.integer

    def rule(self, node: ir.Node) -> OperatorRule:
        """The rule that governs what ``node`` writes: its owner's where it is fused."""
        return self.rules[self.owner.get(node, node)]

    def activation_inputs(self, node: ir.Node) -> list[int]:
        """Indices of inputs that carry quantized activations (constant operands included)."""
        return [i for i in range(len(node.inputs)) if self.role(node, i) == "activation"]

    def role(self, node: ir.Node, index: int) -> str:
        """Role of one input: ``activation``, ``weight``, ``bias`` or ``float``."""
        value = node.inputs[index]
        if value is None or node in self.owner:
            return "float"
        roles = self.rules[node].inputs
        role = roles[min(index, len(roles) - 1)]
        return "activation" if role == "weight" and not is_constant(value) else role


def decide(graph: ir.Graph, target: Target, excluded: dict[ir.Node, str]) -> IntegerNodes:
    """Decide on every node of ``graph``."""
    nodes = IntegerNodes(target)
    for node in graph:
        nodes.decisions[node] = _first_decision(node, nodes, excluded)
    _fuse_followers(graph, nodes, excluded)
    _settle(nodes, deque(node for node in graph if nodes.integer(node)))
    if target.lowering == "integer":
        _end_once(graph, nodes)
    return nodes


def _end_once(graph: ir.Graph, nodes: IntegerNodes) -> None:
    """Leave what lies between float nodes and the outputs in float."""
    found = set(tail(graph, {node for node in graph if nodes.integer(node)}))
    left = [node for node in graph if node in found and nodes.owner.get(node, node) in found]
    for node in left:
        if nodes.owner.pop(node, None) is None:
            _release_fused(node, nodes)
        reason = "it stands between a float node and the outputs: going back to codes would gain nothing"
        nodes.decisions[node] = NodeDecision(False, reason)
    _settle(nodes, deque(neighbour for node in left for neighbour in _neighbours(node, nodes)))


def _settle(nodes: IntegerNodes, queue: deque[ir.Node]) -> None:
    """Let nodes become float until every integer node has a reason to be one."""
    while queue:
        node = queue.popleft()
        if not nodes.integer(node) or (reason := _why_leave(node, nodes)) is None:
            continue
        nodes.decisions[node] = NodeDecision(False, reason)
        for follower in _release_fused(node, nodes):
            queue.append(follower)
        queue.extend(_neighbours(node, nodes))


def _first_decision(node: ir.Node, nodes: IntegerNodes, excluded: dict[ir.Node, str]) -> NodeDecision:
    rule = rule_for(nodes.target, node)
    if rule is not None:
        nodes.rules[node] = rule
    if node in excluded:
        return NodeDecision(False, f"excluded by '{excluded[node]}'")
    if reason := why_float(node):
        return NodeDecision(False, reason)
    if rule is None:
        return NodeDecision(False, f"{nodes.target.name} has no integer {operator_name(node)}")
    if (illegal := why_not(nodes.target, node)) is not None:
        return NodeDecision(False, illegal)
    data = _operands(node, nodes)
    if (unfit := _why_unfit(node, data)) is not None:
        return NodeDecision(False, unfit)
    if any((info := value.meta.get("qcompiler.mask")) and not math.isfinite(info.constant) for value in data if value):
        return NodeDecision(False, "an infinite mask has no integer code")
    if rule.place == "between" and len(data) > 1 and sum(not is_constant(value) for value in data) <= 1:
        return NodeDecision(False, "its other operand is a constant: adding it in float is cheaper and exact")
    if node.op_type in _PROBABILITIES and node.outputs[0].is_graph_output():
        return NodeDecision(False, "it makes a graph output: 8-bit probabilities would tie")
    return NodeDecision(True)


def _operands(node: ir.Node, nodes: IntegerNodes) -> list[ir.Value | None]:
    """What a node computes with: activations; of a look-up the table."""
    found = [node.inputs[index] for index in nodes.activation_inputs(node)]
    return [node.inputs[TABLE_INPUT]] if not found and node.op_type == LOOKUP else found


def _why_unfit(node: ir.Node, data: list[ir.Value | None]) -> str | None:
    """Why the operands of a node are nothing to quantize."""
    if not data or any(value is None or value.dtype != ir.DataType.FLOAT for value in data):
        return "it carries no float32 data"
    empty = [value for value in node.inputs if value is not None and is_constant(value) and 0 in (value.shape or ())]
    if any(value.dtype is ir.DataType.FLOAT for value in empty):
        return "a constant operand is empty: there is nothing to compute"
    return None


def _neighbours(node: ir.Node, nodes: IntegerNodes) -> Iterator[ir.Node]:
    """The nodes whose decision may hang on that of ``node``; for what another node absorbed, that node."""
    for value in node.inputs:
        if value is not None and (producer := value.producer()) is not None:
            yield nodes.owner.get(producer, producer)
    for output in node.outputs:
        yield from output.consumers()


def _fuse_followers(graph: ir.Graph, nodes: IntegerNodes, excluded: Container[ir.Node]) -> None:
    """Find biases and activations that the node before them absorbs; they share its decision, no scale lies between."""
    for node in graph:
        if not nodes.integer(node) or node in nodes.owner:
            continue
        last: ir.Node | None = node
        while last is not None:
            follower = _follower(last, nodes.rules[node].fuse)
            if follower in excluded or follower in nodes.owner:
                break
            if follower is not None:
                nodes.owner[follower] = node
                nodes.decisions[follower] = NodeDecision(True, f"fused into {node.name}")
            last = follower


def _follower(node: ir.Node, fuse: tuple[str, ...]) -> ir.Node | None:
    """The sole reader of ``node`` when its kernel absorbs it: a listed activation (of Min, constant bounds).

    An Add is absorbed where it adds a constant vector. What stands in the body of an If or a Loop is not absorbed.
    """
    use = only_use(node.outputs[0])
    if use is None or len(node.outputs) != 1 or node.outputs[0].is_graph_output():
        return None
    user, index = use
    if not has_type(user, *fuse) or user.graph is not node.graph:
        return None
    if user.op_type == "Add":
        return user if _is_vector(user.inputs[1 - index]) else None
    if user.op_type == "Min":
        return user if len(user.inputs) == 2 and is_constant(user.inputs[1 - index]) else None
    return user if index == 0 else None


def _is_vector(value: ir.Value | None) -> bool:
    return is_constant(value) and value is not None and value.shape is not None and len(value.shape) <= 1


def _release_fused(node: ir.Node, nodes: IntegerNodes) -> list[ir.Node]:
    """When ``node`` becomes float, what it had absorbed must stand on its own."""
    released = []
    for user in _absorbed(node, nodes):
        del nodes.owner[user]
        nodes.decisions[user] = _first_decision(user, nodes, {})
        released.append(user)
    return released


def _reads_codes_anyway(node: ir.Node, nodes: IntegerNodes) -> bool:
    """Whether everything the node reads is codes whatever becomes of the node.

    Kernels with an optional output give real numbers for nothing: they do not count, and neither do nodes that
    merely move what such a kernel gives.
    """
    for index in nodes.activation_inputs(node):
        value = node.inputs[index]
        if value is None or is_constant(value):
            continue
        producer = value.producer()
        if producer is None or not nodes.integer(producer) or nodes.rule(producer).output != "quantized":
            return False
        if nodes.rule(producer).kind == "same-scale" and not _reads_codes_anyway(producer, nodes):
            return False
    return True


def _absorbed(node: ir.Node, nodes: IntegerNodes) -> list[ir.Node]:
    """What ``node`` absorbs, in order."""
    chain: list[ir.Node] = []
    value = node.outputs[0]
    while (user := next((user for user in value.consumers() if nodes.owner.get(user) is node), None)) is not None:
        chain.append(user)
        value = user.outputs[0]
    return chain


def _why_leave(node: ir.Node, nodes: IntegerNodes) -> str | None:
    """Why an integer node must become float, given its neighbours; ``None`` when it may stay."""
    if node in nodes.owner:
        return None
    rule = nodes.rules[node]
    if rule.place != "between" and rule.kind != "same-scale":
        return None
    for index in nodes.activation_inputs(node):
        value = node.inputs[index]
        if value is not None and not is_constant(value) and not nodes.integer(value.producer()):
            return "its input is float"
    users = [user for output in results(node, nodes) for user in output.uses()]
    wanted = any(nodes.integer(use.node) and nodes.role(use.node, use.idx) == "activation" for use in users)
    if rule.kind == "same-scale":
        # (A float Reshape right behind an int8 DequantizeLinear also keeps ONNX Runtime 1.31 from loading the model.)
        return None if wanted or _reads_codes_anyway(node, nodes) else "no integer node reads it"
    if not wanted:
        return "no integer node reads it"
    return None if _reads_codes_anyway(node, nodes) else "its input comes in real numbers at no cost"


def results(node: ir.Node, nodes: IntegerNodes) -> list[ir.Value]:
    """Output values of a node, seen behind what it absorbs."""
    chain = _absorbed(node, nodes)
    return list(chain[-1].outputs) if chain else list(node.outputs)
