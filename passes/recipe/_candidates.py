"""What the default recipe tries, in order, for a target and a format.

The list says what may help; whether it does is measured. A candidate that has nothing to do on a model costs next to
nothing: it is left before anything is measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from qcompiler.pipeline.grammar import parse_items
from qcompiler.pipeline.registry import find
from qcompiler.quant import state
from qcompiler.quant.operators import LINEAR, WEIGHT_INPUT

if TYPE_CHECKING:
    from qcompiler.passes.recipe._trial import Effort

__all__ = ["roundings", "transforms", "weight_bits"]


def transforms(effort: Effort) -> tuple[str, ...]:
    """Float-preserving transforms, as pipeline texts."""
    normal = (
        "equalize-channels{when=always}",
        "smooth-activations",
        "reparameterize-norms",
        "absorb-high-bias",
        "permute-channels",
    )
    more = ("rotate{kind=hadamard}", "rotate{kind=klt}", "split-concat")
    return tuple(text for text in (normal if effort == "normal" else (*normal, *more)) if _exists(text))


def roundings(effort: Effort, bits: int) -> tuple[str, ...]:
    """Ways to round weights, as pipeline texts; each starts from what was kept before it.

    Args:
        effort: How much may be tried.
        bits: Width of the narrowest weight.
    """
    normal: tuple[str, ...] = ("round-gptq",)
    if bits < 8:
        normal += ("round-coordinate-descent",)
    more = ("round-alternating", "reconstruct{unit=block}") if bits < 8 else ()
    return tuple(text for text in (normal if effort == "normal" else (*normal, *more)) if _exists(text))


def weight_bits(graph: ir.Graph) -> int | None:
    """Width of the narrowest weight of a linear node; ``None`` where none is quantized."""
    widths = []
    for node in graph:
        if node.op_type in LINEAR and len(node.inputs) > WEIGHT_INPUT:
            quant = state.edge_quant(node, WEIGHT_INPUT)
            if quant is not None:
                widths.append(quant.format.bits)
    return min(widths, default=None)


def _exists(text: str) -> bool:
    return all(find(name) is not None for name, _ in parse_items(text))
