"""What the default recipe tries, in order, for a target and a format.

The list says what may help; whether it does is measured. A candidate that has nothing to do on a model costs next to
nothing: it is left before anything is measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from qcompiler.quant import state
from qcompiler.quant.operators import LINEAR, WEIGHT_INPUT

if TYPE_CHECKING:
    from qcompiler.passes.recipe._trial import Effort
    from qcompiler.target.formats import FormatRequest

__all__ = ["roundings", "transforms", "weight_bits"]

_BYTE: Final = 8
_FEW: Final = 2
"""Width from which on rounding leaves so much to gain that gradients pay."""


def transforms(effort: Effort, request: FormatRequest) -> tuple[str, ...]:
    """Float-preserving transforms, as pipeline texts.

    Args:
        effort: How much may be tried.
        request: The format asked for: rotations cost more time than they gave at 8 bits, and the order of channels
            matters only where a scale does not belong to a whole channel.
    """
    found = ["equalize-channels{when=always}", "smooth-activations"]
    if request.weight_bits < _BYTE:
        found.append("rotate{kind=hadamard}")
    if request.weight_only:
        found.append("permute-channels")
    if effort == "high":
        found += ["rotate{kind=klt-hadamard}", "reparameterize-norms", "absorb-high-bias", "split-concat"]
    return tuple(found)


def roundings(effort: Effort, bits: int) -> tuple[str, ...]:
    """Ways to round weights, as pipeline texts; each starts from what was kept before it.

    Args:
        effort: How much may be tried.
        bits: Width of the narrowest weight.
    """
    found = ["round-gptq"]
    if bits < _BYTE:
        found.append("round-alternating")
    if bits <= _FEW or (bits < _BYTE and effort == "high"):
        found.append("reconstruct{bias_rate=0.003}")
    if bits < _BYTE:
        found.append("correct-outputs")
    if effort == "high":
        found.append("round-coordinate-descent")
    return tuple(found)


def weight_bits(graph: ir.Graph) -> int | None:
    """Width of the narrowest weight of a linear node; ``None`` where none is quantized."""
    widths = []
    for node in graph:
        if node.op_type in LINEAR and len(node.inputs) > WEIGHT_INPUT:
            quant = state.edge_quant(node, WEIGHT_INPUT)
            if quant is not None:
                widths.append(quant.format.bits)
    return min(widths, default=None)
