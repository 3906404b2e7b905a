"""Which rows of a tensor are padding.

A model that takes an attention mask of shape ``N × L`` computes rows for padding tokens too, and nobody reads them:
they weigh 0. A tensor's token axis is found by shape, only where that leaves no doubt:

* ``(N, L, …)`` and the flattened ``(N·L, …)``: its leading axes,
* ``(N, H, L, D)`` and ``(N, H, D, L)`` where neither ``H`` nor ``D`` happens to equal ``L``.

Elsewhere every row weighs 1, which is what happened before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.checks import InputSpec

__all__ = ["FeedWeights", "RowWeights", "find"]


@dataclass(frozen=True)
class RowWeights:
    """The padding mask of a model.

    Attributes:
        mask: Name of the input that holds it: 1 for tokens, 0 for padding.
    """

    mask: str

    def of_feed(self, feed: Mapping[str, NDArray[Any]]) -> FeedWeights | None:
        """Weights in this feed; ``None`` where nothing is padding or the input is no 0/1 mask."""
        mask = np.asarray(feed[self.mask])
        if mask.ndim != 2 or not np.isin(mask, (0, 1)).all() or mask.all() or not mask.any():
            return None
        return FeedWeights(mask.astype(np.float32))


@dataclass(frozen=True, eq=False)
class FeedWeights:
    """Row weights of one feed: ``tokens`` has shape ``(N, L)``."""

    tokens: NDArray[np.float32]

    def of(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
        """Weights for a tensor, broadcastable to ``shape``; ``None`` where the token axis is not certain."""
        del name
        batch, length = self.tokens.shape
        rest = (1,) * len(shape)
        if len(shape) == 2 and shape[0] == batch * length and shape[1] != length:
            return self.tokens.reshape(batch * length, 1)
        if len(shape) < 3 or shape[0] != batch or shape[1:].count(length) != 1:
            return None
        if shape[1] == length:
            return self.tokens.reshape(batch, length, *rest[2:])
        if len(shape) != 4:
            return None
        return self.tokens.reshape((batch, 1, length, 1) if shape[2] == length else (batch, 1, 1, length))


def find(inputs: Mapping[str, InputSpec]) -> RowWeights | None:
    """The input that is a padding mask: of rank 2, named ``…attention_mask…``, else ``…mask…``."""
    ranked = [name for name, spec in inputs.items() if spec.shape is None or len(spec.shape) == 2]
    named = [name for name in ranked if "mask" in name.lower()]
    named.sort(key=lambda name: "attention_mask" not in name.lower())
    return RowWeights(named[0]) if named else None
