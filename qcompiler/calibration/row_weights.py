"""Which rows of a tensor are padding.

A model that takes an attention mask of shape ``N × L`` computes rows for padding tokens too, and nobody reads them:
they weigh 0. A tensor's token axis is found by shape, only where that leaves no doubt:

* ``(N, L, …)`` and the flattened ``(N·L, D)``: its leading axes,
* ``(N, H, L, D)``: its third axis; neither ``H`` nor ``D`` may happen to equal ``L``.

Tensors that carry the mask are read at padded positions above all: what is computed from the mask alone (the additive
mask: 0 and −1e4) and the results of nodes that mix it in keep every row. Elsewhere, too, every row weighs 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.calibration.checks import InputSpec

__all__ = ["FeedWeights", "RowWeights", "find"]

_SHAPE_ONLY = frozenset({"Shape", "Size"})


@dataclass(frozen=True)
class RowWeights:
    """The padding mask of a model.

    Attributes:
        mask: Name of the input that holds it: 1 for tokens, 0 for padding.
        exempt: Tensors that carry the mask; all their rows count.
    """

    mask: str
    exempt: frozenset[str] = frozenset()

    def of_feed(self, feed: Mapping[str, NDArray[Any]]) -> FeedWeights | None:
        """Weights in this feed; ``None`` where nothing is padding or the input is no 0/1 mask."""
        mask = np.asarray(feed[self.mask])
        if mask.ndim != 2 or not np.isin(mask, (0, 1)).all() or mask.all() or not mask.any():
            return None
        return FeedWeights(mask.astype(np.float32), self.exempt)

    def key(self) -> str:
        """What the weights depend on, for the cache."""
        return f"{self.mask} {sorted(self.exempt)}"


@dataclass(frozen=True, eq=False)
class FeedWeights:
    """Row weights of one feed: ``tokens`` has shape ``(N, L)``."""

    tokens: NDArray[np.float32]
    exempt: frozenset[str] = frozenset()

    def of(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
        """Weights for a tensor, broadcastable to ``shape``; ``None`` where the token axis is not certain."""
        batch, length = self.tokens.shape
        if name in self.exempt:
            return None
        if len(shape) == 2 and shape[0] == batch * length and shape[1] != length:
            return self.tokens.reshape(batch * length, 1)
        if len(shape) < 3 or shape[0] != batch or shape[1:].count(length) != 1:
            return None
        if shape[1] == length:
            return self.tokens.reshape(batch, length, *(1 for _ in shape[2:]))
        return self.tokens.reshape(batch, 1, length, 1) if len(shape) == 4 and shape[2] == length else None


def find(inputs: Mapping[str, InputSpec], graph: ir.Graph | None = None) -> RowWeights | None:
    """The input that is a padding mask: of rank 2, named ``…attention_mask…``, else ``…mask…``.

    Args:
        inputs: The model's inputs.
        graph: Its graph, to know which tensors carry the mask.
    """
    ranked = [name for name, spec in inputs.items() if spec.shape is None or len(spec.shape) == 2]
    named = [name for name in ranked if "mask" in name.lower()]
    named.sort(key=lambda name: "attention_mask" not in name.lower())
    if not named:
        return None
    return RowWeights(named[0], frozenset() if graph is None else frozenset(_carriers(graph, named[0])))


def _carriers(graph: ir.Graph, mask: str) -> set[str]:
    """Names of values computed from the mask alone, and of results of nodes that read such a value."""
    alone = {mask}
    computed = {value.name for value in graph.inputs if value.name not in graph.initializers}
    mixed: set[str] = set()
    for node in graph:
        outputs = {str(value.name) for value in node.outputs}
        if node.op_type in _SHAPE_ONLY:
            continue
        reads = {str(value.name) for value in node.inputs if value is not None and value.name in computed}
        if not reads:
            continue
        computed |= outputs
        if reads <= alone:
            alone |= outputs
        elif reads & alone:
            mixed |= outputs
    return alone | mixed
