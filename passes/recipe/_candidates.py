"""What the default recipe tries, in order, for a target and a format.

The list says what may help; whether it does is measured. A candidate that has nothing to do on a model costs next to
nothing: it is left before anything is measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from qcompiler.quant import state
from qcompiler.quant.format import BYTE, LOG_BITS, QFormat
from qcompiler.quant.operators import LINEAR, WEIGHT_INPUT

if TYPE_CHECKING:
    from qcompiler.passes.recipe._trial import Effort
    from qcompiler.target.formats import FormatRequest
    from qcompiler.target.schema import Target

__all__ = ["attention", "mostly_few_bits", "reads_few_bits", "roundings", "transforms", "weight_bits"]

_PROBABILITIES: Final = "Softmax"
_MORE: Final = "damping=0.1 samples=1024"
"""For models whose samples hold few of their words: more damping, and drawn samples too."""
_REAL: Final = f"inputs=float {_MORE}"
"""The same where activations are quantized: fitted to inputs that carry their errors, codes were worse for other texts
(MiniLM, w4a8, mean cosine 0.956 against 0.964)."""
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
    if request.weight_bits < BYTE:
        found.append("rotate{kind=hadamard}")
    if request.weight_only:
        found.append("permute-channels")
    if effort == "high":
        found += ["rotate{kind=klt-hadamard}", "reparameterize-norms", "absorb-high-bias", "split-concat"]
    return tuple(found)


def roundings(
    effort: Effort,
    bits: int,
    *,
    narrow: bool = False,
    few_words: bool = False,
    weight_only: bool = False,
    gradients: bool = True,
    turns: bool = True,
) -> tuple[str, ...]:
    """Ways to round weights, as pipeline texts; each starts from what was kept before it.

    Args:
        effort: How much may be tried.
        bits: Width of the narrowest weight.
        narrow: Whether layers read activations of less than 8 bits: where those are clipped matters then, and weights
            are rounded for what they are multiplied with.
        few_words: Whether words were drawn, because the given samples hold few of them (``words.enriched``).
        weight_only: Whether activations stay real numbers.
        turns: Whether layers are small enough for codes and scales to be fitted in turns.
        gradients: Whether so many weights have few bits that gradients may pay.
    """
    options = f"{{{_MORE if weight_only else _REAL}}}" if few_words else ""
    found = [f"round-gptq{options}"]
    if narrow and effort == "high":
        found.append(f"fit-ranges,round-gptq{options}")
    if bits < BYTE and (turns or effort == "high"):
        found.append(f"round-alternating{options}")
    if few_words and (effort == "normal" or not weight_only):  # stories260k, w2: gradients took 484 s, and 1.4 % of it
        return tuple(found)
    if (bits <= _FEW and gradients) or (bits < BYTE and effort == "high"):
        found.append("reconstruct{bias_rate=0.003}")
    if bits < BYTE:
        found.append("correct-outputs")
    if effort == "high":
        found.append("round-coordinate-descent")
    return tuple(found)


def attention(effort: Effort, request: FormatRequest, target: Target) -> tuple[str, ...]:
    """Codes along a grid for attention weights that would have as few bits on a uniform one, as pipeline texts.

    Two nodes each, and products that take longer: only where all effort was asked for. vit_mnist w4a4: KL 0.0152 with
    uniform codes, 0.0113 with these.
    """
    bits, rule = request.activation_bits, target.operators.get(_PROBABILITIES)
    if effort != "high" or request.log is not None or rule is None or bits not in LOG_BITS:
        return ()
    offered = QFormat(bits, logarithmic=True) in rule.log_results()
    return (f"choose-log-formats{{bits={bits} operators={_PROBABILITIES}}}",) if offered else ()


def reads_few_bits(graph: ir.Graph) -> bool:
    """Whether a linear node reads activations of less than 8 bits that have a range."""
    quants = (state.edge_quant(node, 0) for node in graph if node.op_type in LINEAR)
    forms = [quant.format for quant in quants if quant is not None]
    return any(form.bits < BYTE and not form.logarithmic for form in forms)


def weight_bits(graph: ir.Graph) -> int | None:
    """Width of the narrowest weight of a linear node; ``None`` where none is quantized."""
    return min((bits for bits, _ in _weights(graph)), default=None)


def mostly_few_bits(graph: ir.Graph) -> bool:
    """Whether half of the numbers in weights of linear nodes have so few bits that gradients pay.

    resnet20 with one of 20 layers at 2 bits, the others wider: gradients took 100 s and were rejected.
    """
    found = list(_weights(graph))
    return 2 * sum(count for bits, count in found if bits <= _FEW) >= sum(count for _, count in found)


def _weights(graph: ir.Graph) -> Iterator[tuple[int, int]]:
    """Bits and number of numbers of every quantized weight of a linear node."""
    for node in graph:
        if node.op_type in LINEAR and len(node.inputs) > WEIGHT_INPUT:
            quant, value = state.edge_quant(node, WEIGHT_INPUT), node.inputs[WEIGHT_INPUT]
            if quant is not None and value is not None and value.shape is not None:
                yield quant.format.bits, math.prod(size for size in value.shape if isinstance(size, int))
