"""How far the outputs of a changed model are from the float model's: one non-negative number, 0 for equal ones.

Scores of a classifier or a language model lose their Kullback-Leibler divergence (nats per row), embeddings and states
one minus the cosine. Rows that are padding do not count. Several outputs count alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.analysis import metrics

__all__ = ["Reference", "output_loss"]


@dataclass(frozen=True, eq=False)
class Reference:
    """What the float model gives for one batch.

    Attributes:
        outputs: Its floating-point outputs.
        vectors: Which of them are embeddings.
        counted: Per output, which leading positions count; ``None`` where all do.
    """

    outputs: tuple[NDArray[Any], ...]
    vectors: tuple[bool, ...]
    counted: tuple[NDArray[np.bool_] | None, ...]


def output_loss(reference: Reference, found: Sequence[NDArray[Any]]) -> float:
    """The loss of one batch, a mean over its rows and over outputs; infinite where an output is not finite."""
    losses = []
    for wanted, got, vector, counted in zip(
        reference.outputs, found, reference.vectors, reference.counted, strict=True
    ):
        if not (np.isfinite(got) | ~np.isfinite(wanted)).all():
            return math.inf
        one, other = (wanted, got) if counted is None else (wanted[counted], got[counted])
        losses.append(1.0 - metrics.cosine(one, other) if vector else metrics.kl(one, other))
    return max(float(np.mean(losses)), 0.0) if losses else 0.0
