"""Which nodes run on integers, which stayed float and why.

Read off the decisions on the nodes (``qcompiler.quant.state``), before or after Q/DQ nodes were placed. A model
without decisions, such as one read from a file, is judged by its Q/DQ nodes and its integer operators. Nodes without a
floating-point result (shapes, indices) are not counted: there is nothing to quantize.

Lowering replaces nodes: what was decided about them is taken down before, and ``without`` says afterwards which of
them have no integer form after all.

The *fallback share* is the part of the multiply-accumulates that stayed float, in percent; in a model without any,
the part of the nodes.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir

from qcompiler.analysis.work import macs
from qcompiler.ir.constants import is_constant
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.quant.operators import LINEAR, is_log
from qcompiler.quant.state import NodeDecision, node_decision
from qcompiler.target.lowered import stands_for

__all__ = ["Coverage", "Fallback", "NodeCoverage", "OperatorCoverage", "coverage"]

_QDQ = frozenset({"QuantizeLinear", "DequantizeLinear"})
_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})
_FUSED = frozenset({"Relu", "Clip"})


@dataclass(frozen=True, slots=True)
class OperatorCoverage:
    """Nodes and multiply-accumulates of one operator."""

    op_type: str
    integer: int
    float: int
    integer_macs: int
    float_macs: int


@dataclass(frozen=True, slots=True)
class Fallback:
    """A node that stayed float."""

    node: str
    op_type: str
    reason: str
    macs: int


@dataclass(frozen=True, slots=True)
class NodeCoverage:
    """One node: whether it runs on integers, why not, and its multiply-accumulates."""

    name: str
    op_type: str
    integer: bool
    reason: str
    macs: int


@dataclass(frozen=True)
class Coverage:
    """What runs on integers.

    Attributes:
        nodes: Every node that computes real numbers, in graph order.
    """

    nodes: tuple[NodeCoverage, ...]

    @functools.cached_property
    def by_operator(self) -> tuple[OperatorCoverage, ...]:
        """One entry per operator, most multiply-accumulates first, then most nodes."""
        table: dict[str, list[int]] = {}
        for node in self.nodes:
            counts = table.setdefault(node.op_type, [0, 0, 0, 0])
            side = 0 if node.integer else 1
            counts[side] += 1
            counts[side + 2] += node.macs
        rows = [OperatorCoverage(op_type, *counts) for op_type, counts in table.items()]
        rows.sort(key=lambda row: (-row.integer_macs - row.float_macs, -row.integer - row.float, row.op_type))
        return tuple(rows)

    @property
    def fallbacks(self) -> tuple[Fallback, ...]:
        """Nodes that stayed float, in graph order."""
        return tuple(
            Fallback(node.name, node.op_type, node.reason or "no reason given", node.macs)
            for node in self.nodes
            if not node.integer
        )

    def without(self, reasons: Mapping[str, str]) -> Coverage:
        """The coverage in which more nodes stay float.

        Args:
            reasons: Why, by node name. A node that is float already keeps the reason it has.
        """
        return Coverage(
            tuple(
                replace(node, integer=False, reason=reasons[node.name])
                if node.integer and node.name in reasons
                else node
                for node in self.nodes
            )
        )

    @property
    def integer_nodes(self) -> int:
        """Nodes on integers."""
        return sum(item.integer for item in self.by_operator)

    @property
    def float_nodes(self) -> int:
        """Nodes left in float."""
        return sum(item.float for item in self.by_operator)

    @property
    def share_nodes(self) -> float:
        """Percentage of nodes on integers; 100 where there is nothing to quantize."""
        total = self.integer_nodes + self.float_nodes
        return 100 * self.integer_nodes / total if total else 100.0

    @property
    def share_macs(self) -> float | None:
        """Percentage of multiply-accumulates on integers; ``None`` where there are none or shapes are unknown."""
        integer = sum(item.integer_macs for item in self.by_operator)
        total = integer + sum(item.float_macs for item in self.by_operator)
        return 100 * integer / total if total else None

    @property
    def fallback_share(self) -> float:
        """Percentage left in float: of the multiply-accumulates, or of the nodes where there are none."""
        return 100 - (self.share_nodes if self.share_macs is None else self.share_macs)

    def reasons(self) -> dict[str, int]:
        """Number of fallbacks by reason, most frequent first."""
        return dict(Counter(item.reason for item in self.fallbacks).most_common())


def coverage(model: ir.Model, dimensions: Mapping[str, int] | None = None) -> Coverage:
    """Count integer and float nodes of the main graph.

    Args:
        model: A model with decisions or with Q/DQ nodes.
        dimensions: Sizes of symbolic dimensions; those not listed count as 1.
    """
    decided = any(node_decision(node) is not None for node in model.graph)
    found: list[NodeCoverage] = []
    for node in model.graph:
        if is_log(node):
            continue  # a way of storing what its neighbours compute, like Q/DQ nodes
        if node.domain == DOMAIN:
            found.append(NodeCoverage(_name(node), stands_for(node.op_type), True, "", macs(node, dimensions)))
            continue
        if node.op_type in _QDQ or not _computes_floats(node):
            continue
        decision = node_decision(node) if decided else _from_pairs(node)
        if decision is not None:
            work = macs(node, dimensions)
            found.append(NodeCoverage(_name(node), node.op_type, decision.integer, decision.reason, work))
    return Coverage(tuple(found))


def _computes_floats(node: ir.Node) -> bool:
    if node.op_type == "Constant" or not node.inputs:
        return False
    return any(value.dtype is None or value.dtype in _FLOATS for value in node.outputs)


def _name(node: ir.Node) -> str:
    return str(node.name or (node.outputs[0].name if node.outputs else "?"))


def _from_pairs(node: ir.Node) -> NodeDecision:
    """Judge a node by the Q/DQ nodes around it."""
    for index, value in enumerate(node.inputs):
        if value is None or (value.dtype is not None and value.dtype not in _FLOATS):
            continue
        if is_constant(value) and not (node.op_type in LINEAR and index == 1):
            continue  # a bound or a bias
        producer = value.producer()
        if producer is None or producer.op_type != "DequantizeLinear":
            return NodeDecision(False, "it reads a float tensor")
    if node.op_type != "MatMul" and not all(_ends_quantized(value) for value in node.outputs):
        return NodeDecision(False, "its result is read in float")
    return NodeDecision(True)


def _ends_quantized(value: ir.Value) -> bool:
    readers = list(value.consumers())
    if len(readers) == 1 and readers[0].op_type in _FUSED:
        readers = list(readers[0].outputs[0].consumers())
    return bool(readers) and all(reader.op_type == "QuantizeLinear" for reader in readers)
