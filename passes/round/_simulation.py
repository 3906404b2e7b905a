"""The materialized model whose layers still read float weights: those that a rounding is about to choose."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from qcompiler.passes.place.simulate import materialized
from qcompiler.passes.round._layers import RoundLayer
from qcompiler.quant import state
from qcompiler.quant.operators import WEIGHT_INPUT
from qcompiler.quant.state import FLOAT

__all__ = ["with_float_weights"]


def with_float_weights(model: ir.Model, layers: Sequence[RoundLayer]) -> ir.Model:
    """A copy with Q/DQ nodes everywhere but at the weights of ``layers``; ``model`` stays as it is."""
    saved = [(layer.node, state.own_edge_quant(layer.node, WEIGHT_INPUT)) for layer in layers]
    try:
        for node, _ in saved:
            state.set_edge_quant(node, WEIGHT_INPUT, FLOAT)
        return materialized(model)
    finally:
        for node, quant in saved:
            state.set_edge_quant(node, WEIGHT_INPUT, quant)
