"""Codes on their way from real numbers to integers: the soft rounding of AdaRound.

Source: Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization" (2020), section 3.4. A weight lies
between two codes, ``f`` and ``f + 1``; which of them it gets is a variable ``h`` in ``[0, 1]``:

    ŵ = s (f + h - z),      h = clip(1.2 σ(v) - 0.1, 0, 1)      (the rectified sigmoid, equation 23),

so ``h`` reaches 0 and 1 at finite ``v``, and its gradient is that of a sigmoid in between. A regulariser draws every
``h`` to an end, at first hardly, at last strongly, as its exponent ``β`` falls (equation 24):

    r(h) = 1 - |2h - 1|^β,      ∂r/∂h = -2β |2h - 1|^(β-1) sign(2h - 1).

At the start ``h`` is where the real weight lies, unless the present code is to be kept in mind: then it is drawn
towards that code, and the two codes are the present one and its neighbour on the weight's side, which after GPTQ need
not be the two that the weight lies between.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qcompiler.passes.round._layers import Grid

__all__ = ["Adam", "SoftCodes"]

_STRETCH: Final = 1.2
_SHIFT: Final = 0.1
_EDGE: Final = 0.02
"""How far from both ends a variable starts, where the sigmoid still has slope."""


@dataclass(slots=True)
class Adam:
    """Steps of even size along a noisy gradient (Kingma and Ba, 2015, algorithm 1).

    Attributes:
        rate: Size of a step.
    """

    rate: float
    _mean: NDArray[np.float32] | None = None
    _square: NDArray[np.float32] | None = None
    _count: int = 0

    def step(self, gradient: NDArray[Any], factor: float = 1.0) -> NDArray[np.float32]:
        """What to subtract from the variables; ``factor`` scales the rate of this step."""
        slope = np.asarray(gradient, np.float32)
        if self._mean is None or self._square is None:
            self._mean, self._square = np.zeros_like(slope), np.zeros_like(slope)
        self._count += 1
        self._mean += 0.1 * (slope - self._mean)
        self._square += 0.001 * (slope * slope - self._square)
        mean = self._mean / (1 - 0.9**self._count)
        root = np.sqrt(self._square / (1 - 0.999**self._count)) + 1e-12
        return np.asarray(self.rate * factor * mean / root, np.float32)


@dataclass(slots=True)
class SoftCodes:
    """The codes of one layer while they are fitted; arrays are ``(groups, rows, columns)``.

    Attributes:
        grid: What codes stand for.
        lower: The lower of the two codes that each weight may get.
        variable: ``v``.
        adam: Makes its steps.
    """

    grid: Grid
    lower: NDArray[np.float32]
    variable: NDArray[np.float32]
    adam: Adam
    _sigmoid: NDArray[np.float32] = field(init=False)

    @classmethod
    def of(cls, grid: Grid, weights: NDArray[Any], codes: NDArray[np.int32], *, keep: float, rate: float) -> SoftCodes:
        """Start at real weights, drawn by the share ``keep`` towards ``codes``."""
        wanted = weights / grid.scale + grid.zero
        lower = np.where(codes > wanted, codes - 1, codes) if keep > 0 else np.floor(wanted)
        lower = np.clip(lower, grid.minimum, grid.maximum - 1).astype(np.float32)
        share = np.clip(wanted - lower, 0, 1)
        if keep > 0:
            share = (1 - keep) * share + keep * (codes - lower)
        share = np.clip(share, _EDGE, 1 - _EDGE)
        inside = (share + _SHIFT) / _STRETCH
        return cls(grid, lower, np.log(inside / (1 - inside)).astype(np.float32), Adam(rate))

    def __post_init__(self) -> None:
        self._sigmoid = _sigmoid(self.variable)

    def share(self) -> NDArray[np.float32]:
        """``h``."""
        return np.asarray(np.clip(_STRETCH * self._sigmoid - _SHIFT, 0, 1), np.float32)

    def real(self) -> NDArray[np.float32]:
        """The weights that the codes stand for now."""
        return (self.lower + self.share() - self.grid.zero) * self.grid.scale

    def codes(self) -> NDArray[np.int32]:
        """The codes nearest to where the variables are."""
        return (self.lower + (self.share() >= 0.5)).astype(np.int32)

    def step(self, gradient: NDArray[Any], strength: float, exponent: float, factor: float) -> None:
        """One step down.

        Args:
            gradient: The loss's, by the real weights.
            strength: Weight of the regulariser's sum; 0 leaves it out.
            exponent: Its ``β``.
            factor: Scales the step.
        """
        slope: NDArray[Any] = gradient * self.grid.scale
        if strength:
            far = 2 * self.share() - 1
            slope = slope - strength * 2 * exponent * np.abs(far) ** (exponent - 1) * np.sign(far)
        raw = _STRETCH * self._sigmoid - _SHIFT
        inside = (raw > 0) & (raw < 1)
        slope = slope * inside * (_STRETCH * self._sigmoid * (1 - self._sigmoid))
        self.variable -= self.adam.step(slope, factor)
        self._sigmoid = _sigmoid(self.variable)


def _sigmoid(variable: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(0.5 * (np.tanh(0.5 * variable) + 1), np.float32)
