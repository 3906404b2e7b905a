"""What fitting codes of weights takes, known before: solvers multiply every weight by all inputs of its sum."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import onnx_ir as ir

from qcompiler.ir.constants import is_constant
from qcompiler.quant.operators import LINEAR, WEIGHT_INPUT
from qcompiler.target.axes import channel_axis

__all__ = ["AFFORDABLE", "affordable", "rounding_work"]

AFFORDABLE: Final = 2e10
"""Multiplications up to which GPTQ takes seconds and fitting codes and scales in turns up to some minutes: MiniLM has
7e9 (turns and draws 158 s on one busy core), ResNet-50 5e10."""


def affordable(nodes: Iterable[ir.Node]) -> bool:
    """Whether there are weights to fit, and fitting those of all these nodes is worth its time unasked."""
    return 0 < rounding_work(nodes) <= AFFORDABLE


def rounding_work(nodes: Iterable[ir.Node]) -> int:
    """Multiplications: ``channels x inputs^2``, summed over the weights of linear nodes.

    Args:
        nodes: Any nodes; a weight is a constant of known shape, so products of two activations have none.
    """
    work = 0
    for node in nodes:
        value = node.inputs[WEIGHT_INPUT] if node.op_type in LINEAR and len(node.inputs) > WEIGHT_INPUT else None
        axis = channel_axis(node) if value is not None and is_constant(value) else None
        if value is not None and value.shape is not None and axis is not None:
            shape = value.shape.numpy()
            work += shape[axis] * (math.prod(shape) // max(shape[axis], 1)) ** 2
    return work
