"""Shrink the range of each scale to where the squared quantization error of a constant is least."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.quant.format import QFormat
from qcompiler.quant.params import QParams

__all__ = ["least_squares", "squared_error"]

_COARSE = np.linspace(0.95, 0.2, 16)
_FINE = np.array([0.975, 1.025])
_HALVES = np.array([0.5, 0.25, 0.125])
"""All that scales which are powers of two can do."""
_PIECE = 1 << 20
"""Elements whose error is computed at once: temporary memory stays at a few times 4 MB."""

Make = Callable[[NDArray[np.float64], NDArray[np.float64]], QParams]


def least_squares(
    groups: NDArray[Any], low: NDArray[np.float64], high: NDArray[np.float64], full: QParams, make: Make, form: QFormat
) -> QParams:
    """Parameters with the least squared error per group, never worse than ``full``.

    Args:
        groups: Values that share a scale as rows, ``(G, n)``.
        low: Least value of each group, or 0.
        high: Greatest value of each group, or 0.
        full: Parameters of the full ranges.
        make: Turns ranges into parameters.
        form: The format, per tensor.
    """
    best, error = full, squared_error(groups, full, form)
    factors = np.ones((2, low.size))
    steps = [(0, 1)] if form.symmetric else [(0, 1), (1,), (0,)]
    for ends in steps:
        for grid in (_HALVES,) if form.power_of_two else (_COARSE, _FINE):
            base = factors.copy()
            for fraction in grid:
                trial = base.copy() if grid is _FINE else factors.copy()
                for end in ends:
                    trial[end] = np.minimum(base[end] * fraction, 1.0) if grid is _FINE else fraction
                params = make(low * trial[0], high * trial[1])
                candidate = squared_error(groups, params, form)
                better = candidate < error
                error = np.where(better, candidate, error)
                factors = np.where(better, trial, factors)
                best = QParams(
                    np.where(better, params.scale, best.scale).astype(np.float32),
                    np.where(better, params.zero_point, best.zero_point).astype(np.int32),
                )
    return best


def squared_error(groups: NDArray[Any], params: QParams, form: QFormat) -> NDArray[np.float64]:
    """Sum of squared quantization errors of each group, in pieces."""
    total = np.zeros(len(groups))
    width = min(groups.shape[1], _PIECE) or 1
    rows = max(_PIECE // width, 1)
    for first in range(0, len(groups), rows):
        part = slice(first, first + rows)
        scale = params.scale[part, None]
        zero = params.zero_point[part, None].astype(np.float32)
        for start in range(0, groups.shape[1], width):
            piece = groups[part, start : start + width]
            codes = np.rint(piece / scale)
            np.clip(codes, form.minimum - zero, form.maximum - zero, out=codes)
            codes *= scale
            codes -= piece
            total[part] += np.einsum("ij,ij->i", codes, codes, dtype=np.float64)
    return total
