"""Coordinate descent on codes: every weight in turn moves to where the objective is least, all others held.

Source: Behdin et al., "QuantEase: Optimization-based Quantization for Language Models" (2023), section 3. With the
gradient ``g = H e + c`` the objective ``e^T H e + 2 e^T c`` as a function of one error ``e_i`` is a parabola whose
least point is ``e_i - g_i / H_ii``; the code nearest to ``w_i`` less that is the best one, because a parabola is
symmetric. So no step can increase the objective. A step of column ``i`` changes the gradient by ``H_i (e_i' - e_i)``:
within a block of columns that is done at once, for all other columns as one matrix product per block.

It needs no factorization, but finds only what single steps reach: it is a refiner of a good start.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qcompiler.passes.round._problem import Columns, Problem

__all__ = ["descend"]

_BLOCK: Final = 64
"""Columns between two matrix products."""
_LEAST_GAIN: Final = 1e-4
"""A sweep that lowers the objective by less than this share of what it was at the start is the last."""


def descend(problem: Problem, grid: Columns, codes: NDArray[np.int32], sweeps: int) -> NDArray[np.int32]:
    """Better codes, ``(groups, columns, rows)``; never worse ones.

    Args:
        problem: What to minimise.
        grid: What codes stand for.
        codes: Where to start.
        sweeps: Most times that every weight is looked at.
    """
    real = grid.real(codes).astype(problem.weights.dtype)
    gradient = problem.gradient(problem.weights - real)
    least = _LEAST_GAIN * float(np.abs(problem.loss(real)).sum())
    for _ in range(sweeps):
        if _sweep(problem.hessian, grid, real, gradient) <= least:
            break
    return grid.codes(real)


def _sweep(hessian: NDArray[Any], grid: Columns, real: NDArray[Any], gradient: NDArray[Any]) -> float:
    """Visit every column once; changes ``real`` and ``gradient`` and returns by how much the objective fell."""
    columns, gain = real.shape[1], 0.0
    diagonal = np.diagonal(hessian, axis1=1, axis2=2)
    for start in range(0, columns, _BLOCK):
        end = min(start + _BLOCK, columns)
        slope, moved = gradient[:, start:end].copy(), np.zeros_like(real[:, start:end])
        for column in range(start, end):
            here, curvature = column - start, diagonal[:, column, None]
            new = grid.snap(column, real[:, column] + slope[:, here] / curvature)
            step = real[:, column] - new  # of the error
            if not step.any():
                continue
            gain -= float((step * (2 * slope[:, here] + curvature * step)).sum())
            real[:, column] = new
            moved[:, here] = step
            slope += hessian[:, start:end, column, None] * step[:, None, :]
        if moved.any():
            gradient += np.matmul(hessian[:, :, start:end], moved)
    return gain
