"""What samples are worth that nobody gave."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

__all__ = ["NEAR", "Made"]

NEAR: Final = 0.05
"""Distance per BatchNormalization up to which synthesised samples are like real ones, which lie at 0.02: weights of 4
bits were rounded to a divergence of 0.06 by samples at 0.02 (real ones: 0.04), of 1.4 by samples at 0.15 (0.3)."""


@dataclass(frozen=True)
class Made:
    """Samples that were made up. What is chosen by them is chosen with care.

    Attributes:
        distance: Their distance from the statistics of training (``batch_statistics``), per BatchNormalization;
            infinite for noise, which was fitted to nothing.
        words: Words in the table that token identifiers were drawn from; 0 where none were.
    """

    distance: float = math.inf
    words: int = 0

    @property
    def near(self) -> bool:
        """Whether they are about as like the data of training as real samples."""
        return self.distance <= NEAR

    @property
    def noise(self) -> bool:
        """Whether nothing in the model says what they are."""
        return math.isinf(self.distance) and not self.words
