"""Seconds of a plan from the facts of a profile: per node its products or its bytes, whichever takes longer.

Works on a float graph to which formats are assigned. Weights are read once a run, of tables the rows that are looked
up; activations that a node reads and writes cost bandwidth where they do not fit the fast memory together.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from qcompiler.analysis.activation_bytes import activation_bytes, in_place
from qcompiler.analysis.work import macs
from qcompiler.ir.constants import is_constant
from qcompiler.ir.operators import has_type
from qcompiler.quant import state
from qcompiler.quant.operators import LOOKUP, TABLE_INPUT, WEIGHT_INPUT
from qcompiler.target.cost import CostFacts

__all__ = ["roofline"]


def roofline(model: ir.Model, facts: CostFacts) -> dict[str, float]:
    """Seconds by node name; a run takes ``facts.run_overhead`` besides.

    Nodes that take over a buffer (views, and what the kernel before does) take none.

    Args:
        model: The graph; unknown dimensions count as 1.
        facts: Rates of the target.
    """
    return {str(node.name): _seconds(node, facts) for node in model.graph if node.op_type != "Constant"}


def _seconds(node: ir.Node, facts: CostFacts) -> float:
    if in_place(node) is not None:
        return 0.0
    read = dict.fromkeys(value for value in node.inputs if value is not None)
    constants = sum(_constant_bytes(node, value) for value in read if is_constant(value))
    moved = sum(activation_bytes(value) for value in read if not is_constant(value))
    moved += sum(activation_bytes(_result(value)) for value in node.outputs)
    traffic = constants + (moved if moved > facts.sram else 0)
    products = macs(node) / facts.rate(_bits(node, WEIGHT_INPUT), _bits(node, 0))
    return max(products, traffic / facts.bandwidth) + facts.node_overhead


def _result(value: ir.Value) -> ir.Value:
    """What the kernel writes: the result of the last node that it absorbs."""
    for reader in value.consumers():
        if in_place(reader) is value and activation_bytes(value) == 0:
            return _result(reader.outputs[0])
    return value


def _bits(node: ir.Node, index: int) -> int | None:
    quant = state.edge_quant(node, index) if index < len(node.inputs) else None
    return None if quant is None else quant.format.bits


def _constant_bytes(node: ir.Node, value: ir.Value) -> int:
    """Bytes of a constant in the format in which this node reads it; of a table the rows that it looks up."""
    stored = value.const_value
    if stored is None:
        return 0
    index = next(index for index, item in enumerate(node.inputs) if item is value)
    quant = state.edge_quant(node, index)
    whole = stored.nbytes if quant is None else math.ceil(stored.size * quant.format.bits / 8)
    found = node.outputs[0].shape if has_type(node, LOOKUP) and index == TABLE_INPUT else None
    if found is None or not stored.size:
        return whole
    asked = math.prod(item if isinstance(item, int) else 1 for item in found)
    return min(whole, math.ceil(whole * asked / stored.size))
