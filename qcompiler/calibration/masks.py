"""Observe the input of a masked Softmax without the mask constant.

Attention masks are additive: a constant like −1e4 or −1e9 goes onto the scores of masked positions. Observed plainly
the constant becomes the low end of the range, and all scores fall into one or two codes. What the Softmax needs of a
masked position is a probability near zero. With ``m`` the least unmasked score, the greatest score of a row is at
least ``m`` (or the row is masked whole), so a masked score that saturates at ``m − 16`` gets a probability below
``exp(−16) = 1.1e-7``. So masked elements are not counted, and the low end is moved down by 16.

The operand itself, when it holds nothing but zeros and the constant, is exact in every format that reaches the
constant. Beyond −1e4 it saturates: that still masks, and with a scale of 1e9 / 255 beside one of 0.03 an integer Add
that works in float32 (ONNX Runtime's QLinearAdd) loses the scores. When the operand also carries real numbers (a
position bias), its masked elements are left out in the same way as those of the scores.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.histogram import NotFiniteError
from qcompiler.calibration.observers import Observer, Range, State, broadcast
from qcompiler.quant.format import QFormat

__all__ = ["MARGIN", "MaskedObserver"]

MARGIN = 16.0
"""Distance of masked scores below the least unmasked one: ``exp(-16) < 1e-6``."""

_FAR = -1e4
"""Enough for a mask before it is added to scores: the constant of BERT."""


class MaskedObserver:
    """Lets another observer see the unmasked elements only.

    Args:
        inner: Learns from the unmasked elements, as from a 1-D tensor (so it must not observe along an axis).
        constant: What the mask adds to masked positions: large and negative, or −infinity.
        operand: The tensor is the mask itself, not the masked scores.
    """

    def __init__(self, inner: Observer, constant: float, *, operand: bool = False) -> None:
        self.inner = inner
        self.constant = constant
        self.operand = operand
        self.masked = 0

    def update(self, array: NDArray[Any], weights: NDArray[Any] | None = None) -> None:
        """Let the inner observer see what is above half the constant."""
        real = array.astype(np.float32) if array.dtype == np.float16 else array
        kept = ~(real <= self.constant / 2)  # a NaN is kept, and found by the inner observer
        self.masked += int(kept.size - kept.sum())
        if np.isposinf(real).any():
            raise NotFiniteError("infinity")
        if self.masked == 0 and weights is None:
            self.inner.update(array)
            return
        flat = None if weights is None else broadcast(array, weights)[kept]
        if kept.any():
            self.inner.update(real[kept], flat)

    def range(self, form: QFormat) -> Range:
        """The inner range, its low end moved down so that masked positions stay far below."""
        low, high = self.inner.range(form)
        if not self.operand:
            return low - MARGIN, high
        if self.masked and bool((low == 0) & (high == 0)):
            return np.array(max(self.constant, _FAR)), high
        return low - (MARGIN if self.masked else 0.0), high

    def merge(self, other: MaskedObserver) -> None:
        """Merge the inner observers."""
        self.inner.merge(other.inner)
        self.masked += other.masked

    def settings(self) -> str:
        """The inner settings and the constant."""
        return f"masked {self.constant!r} {self.operand} {self.inner.settings()}"

    def state(self) -> State:
        """The inner state and the count of masked elements."""
        return {**{f"inner.{key}": array for key, array in self.inner.state().items()}, "masked": np.array(self.masked)}

    def restore(self, state: State) -> None:
        """Set both."""
        self.masked = int(state["masked"])
        inner = {key.removeprefix("inner."): array for key, array in state.items() if key.startswith("inner.")}
        self.inner.restore(inner)
