"""Bit operations: multiply-accumulates times bits of both operands, as HAWQ-V3 counts them (Yao et al. 2021, eq. 9).

A node that computes in real numbers counts 32 bits for each operand; where only the weight is stored in few bits, the
activation does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import onnx_ir as ir

from qcompiler.analysis.work import macs
from qcompiler.quant import state
from qcompiler.quant.operators import WEIGHT_INPUT

__all__ = ["bit_operations"]

_REAL: Final = 32


def bit_operations(model: ir.Model, dimensions: Mapping[str, int] | None = None) -> dict[str, int]:
    """Bit operations by node name of a float graph on which formats are assigned; nodes without products have none.

    Args:
        model: The graph.
        dimensions: Sizes of symbolic dimensions; others count as 1.
    """
    found = {}
    for node in model.graph:
        if count := macs(node, dimensions):
            found[str(node.name)] = count * _bits(node, 0) * _bits(node, WEIGHT_INPUT)
    return found


def _bits(node: ir.Node, index: int) -> int:
    quant = state.edge_quant(node, index)
    return _REAL if quant is None else quant.format.bits
