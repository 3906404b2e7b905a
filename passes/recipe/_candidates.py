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

__all__ = ["reads_tokens", "roundings", "transforms", "weight_bits"]

_BYTE: Final = 8
_WORDS: Final = "round-gptq{inputs=float damping=0.1}"
"""MiniLM, w4a8, 300 pairs, mean and least cosine to float: nearest 0.943, 0.906; this 0.981, 0.852; with little damping
0.978, 0.746; fitted to quantized inputs, smoothed before and with scales in turns 0.889, 0.332 (all pairs)."""
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


def roundings(effort: Effort, bits: int, *, few_words: bool = False) -> tuple[str, ...]:
    """Ways to round weights, as pipeline texts; each starts from what was kept before it.

    Args:
        effort: How much may be tried.
        bits: Width of the narrowest weight.
        few_words: Whether the model reads tokens, and activations are quantized. Samples hold few of the words and
            positions there are, those that judge no others than those that fit, and codes fitted to errors of
            activations do not carry over (``_WORDS``).
    """
    if few_words and bits < _BYTE:
        return (_WORDS,)
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


def reads_tokens(graph: ir.Graph) -> bool:
    """Whether the model reads numbers that stand for words."""
    return any(value.dtype in (ir.DataType.INT32, ir.DataType.INT64) for value in graph.inputs)


def weight_bits(graph: ir.Graph) -> int | None:
    """Width of the narrowest weight of a linear node; ``None`` where none is quantized."""
    widths = []
    for node in graph:
        if node.op_type in LINEAR and len(node.inputs) > WEIGHT_INPUT:
            quant = state.edge_quant(node, WEIGHT_INPUT)
            if quant is not None:
                widths.append(quant.format.bits)
    return min(widths, default=None)
