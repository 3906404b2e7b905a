"""Give names to groups of nodes: normalisation, activation functions, attention."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from qcompiler.ir import regions
from qcompiler.passes.normalize._match_activations import activation
from qcompiler.passes.normalize._match_attention import attention
from qcompiler.passes.normalize._match_norms import normalisation
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves

__all__ = ["RecognizeRegions"]

Match = tuple[str, Iterable[ir.Node]]

_FUSED = {
    "Attention": "softmax-attention",
    "BiasGelu": "gelu",
    "FastGelu": "gelu",
    "Gelu": "gelu",
    "GroupQueryAttention": "softmax-attention",
    "LayerNormalization": "layer-norm",
    "MultiHeadAttention": "softmax-attention",
    "RMSNormalization": "rms-norm",
    "SimplifiedLayerNormalization": "rms-norm",
    "SkipLayerNormalization": "layer-norm",
    "SkipSimplifiedLayerNormalization": "rms-norm",
}
"""Operators that are a region by themselves, of the standard domain or of ``com.microsoft``."""


def _normalisation(anchor: ir.Node) -> Match | None:
    found = normalisation(anchor)
    return None if found is None else (found.kind, found.nodes)


_ANCHORS: dict[str, Callable[[ir.Node], Match | None]] = {
    "Erf": activation,
    "Pow": _normalisation,
    "Sigmoid": activation,
    "Softmax": attention,
    "Sqrt": _normalisation,
    "Tanh": activation,
}
"""The operator that every decomposition of a kind holds exactly once, and who looks around it."""


@dataclass(frozen=True)
class RecognizeRegions(Pass):
    """Name the regions LayerNorm, RMSNorm, GELU, SiLU and Softmax attention, fused or in parts.

    ``layer-norm`` and ``rms-norm``: the fused operator, or ReduceMean, Sub, Pow, Sqrt, Div and their variants with the
    factor and shift behind. ``gelu``: Erf, Tanh and ``x sigmoid(1.702 x)``; ``silu``: ``x sigmoid(x)``; checked by
    evaluating the nodes, so a wrong constant is no hit. ``softmax-attention``: from the product of two activations
    through scale, mask and Softmax to the product with the values. Only annotations: no node changes.
    """

    name: ClassVar[str] = "recognize-regions"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.SORTED})
    preserves: ClassVar[Preserves] = Preserves.EXACT

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Apply; see the class."""
        regions.clear(model.graph, regions=True)
        order = {node: index for index, node in enumerate(model.graph)}
        counts: Counter[str] = Counter()
        for node in order:
            match = _match(node)
            if match is None:
                continue
            kind, found = match
            members = sorted(set(found), key=order.__getitem__)
            if any(regions.region(member) is not None for member in members):
                ctx.skip(node, f"looks like {kind}, but some of its nodes belong to another region")
                continue
            regions.set_region(kind, counts[kind], members)
            counts[kind] += 1
        if counts:
            ctx.note("regions: " + ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())))


def _match(node: ir.Node) -> Match | None:
    """The region around an anchor, or of a fused operator."""
    if node.domain in ("", "ai.onnx", "com.microsoft") and node.op_type in _FUSED:
        return _FUSED[node.op_type], (node,)
    if node.domain in ("", "ai.onnx") and (finder := _ANCHORS.get(node.op_type)) is not None:
        return finder(node)
    return None
