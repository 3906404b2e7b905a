"""The formats that layers have in the end: what a compile in mixed precision is made of, however it was decided.

A layer is a node with weights of few bits. Its format is the one that it follows; where its weights have other bits
(the profile offers no such weights, or a plan was edited by hand), it is called by the bits that they have.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

import onnx_ir as ir

from qcompiler.passes.allocate.format_marks import followed
from qcompiler.passes.allocate.groups import weight_inputs
from qcompiler.quant import state
from qcompiler.quant.operators import LOOKUP
from qcompiler.quant.state import TensorQuant
from qcompiler.target.formats import FormatRequest
from qcompiler.target.schema import Target

__all__ = ["counted", "layer_formats"]

_BITS: Final = re.compile(r"w(\d+)(?:a(\d+))?")
_REAL_BITS: Final = 32


def layer_formats(graph: ir.Graph, target: Target, request: FormatRequest) -> dict[str, str]:
    """Format texts by name of layer, in graph order.

    Args:
        graph: With decisions on formats.
        target: The profile.
        request: What nodes follow that have no mark.
    """
    found: dict[str, str] = {}
    for node in graph:
        own = followed(node, request)
        for index in weight_inputs(node, target):
            quant = state.edge_quant(node, index)
            if isinstance(quant, TensorQuant):
                found[str(node.name)] = _text(own, quant.format.bits, rows=node.op_type == LOOKUP)
    return found


def counted(texts: Iterable[str]) -> Mapping[str, int]:
    """How often each format text occurs, from the most bits to the fewest, those of activations first."""
    counts = Counter(texts)
    return {text: counts[text] for text in sorted(counts, key=_width)}


def _width(text: str) -> tuple[int, int, str]:
    found = _BITS.match(text)
    return (0, 0, text) if found is None else (-int(found[2] or _REAL_BITS), -int(found[1]), text)


def _text(own: FormatRequest, bits: int, *, rows: bool) -> str:
    """What a layer's format is called; rows of tables have their scales whatever a format says of those of weights."""
    if bits == own.weight_bits and not rows:
        return own.text
    return f"w{bits}" + ("" if own.activation_bits is None else f"a{own.activation_bits}")
