"""GPTQ: round one input's weights after the other, and let those still real make up for the error.

Source: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers" (2022),
section 3: columns are rounded in turn; the real columns left over are moved to where the objective ``e^T H e`` is
least,

    w_F  +=  -(w_i - q_i) / [H_F^-1]_ii * [H_F^-1]_i,F,

and all of it is read off one Cholesky factor of ``H^-1``. The inverse is not needed, though. Let ``H = V V^T`` with an
upper triangular ``V`` (a Cholesky factorization from the last column to the first). Then

    e^T H e + 2 e^T c  =  |V^T e + z|^2 - |z|^2     with     V z = c,
    (V^T e + z)_i  =  V_ii e_i + sum_{j<i} V_ji e_j + z_i.

Term ``i`` only depends on the columns up to ``i``, and whatever was rounded before, column ``i`` can make it 0 while it
is real. That is what moving all remaining columns to their optimum does, so column ``i`` is to be rounded at

    t_i  =  w_i + (sum_{j<i} V_ji e_j + z_i) / V_ii,       q_i = nearest(t_i),    e_i = w_i - q_i.

(GPTQ is the nearest-plane algorithm of Babai, in other words.) The sum over earlier columns is done once per block of
columns as a matrix product, within a block column by column. With ``c`` the same loop solves the asymmetric problem.

Columns go by descending ``H_ii``: the inputs that matter most are rounded first, while all others can still make up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qcompiler.passes.round._problem import Columns, Problem

__all__ = ["Successive", "by_diagonal", "round_successively"]

_BLOCK: Final = 64
"""Columns between two matrix products."""
_PANEL: Final = 128
"""Columns that are factorized at once."""


def by_diagonal(hessian: NDArray[Any]) -> NDArray[np.int64]:
    """Columns of each group by descending diagonal, ``(groups, columns)``; equals keep their order."""
    return np.argsort(-np.diagonal(hessian, axis1=1, axis2=2), axis=1, kind="stable")


@dataclass(frozen=True, slots=True, eq=False)
class Successive:
    """A factorized problem: rounding it to one grid after another costs no further factorization.

    Attributes:
        order: Columns in the order in which they are rounded, ``(groups, columns)``.
        weights: Real weights in that order.
        target: What each column is to be rounded at before any other was, ``w_i + z_i / V_ii``.
        factor: ``V_ji / V_ii``.
    """

    order: NDArray[np.int64]
    weights: NDArray[Any]
    target: NDArray[Any]
    factor: NDArray[Any]

    @classmethod
    def of(cls, problem: Problem, order: NDArray[np.int64] | None = None) -> Successive:
        """Factorize a problem; by default columns go by descending diagonal."""
        order = by_diagonal(problem.hessian) if order is None else order
        pick = order[:, :, None]
        hessian = np.take_along_axis(np.take_along_axis(problem.hessian, pick, 1), order[:, None, :], 2)
        factor = _cholesky(hessian[:, ::-1, ::-1])[:, ::-1, ::-1]
        weights = target = np.take_along_axis(problem.weights, pick, 1)
        diagonal = np.diagonal(factor, axis1=1, axis2=2)
        if problem.linear is not None:
            target = weights + _solve(factor, np.take_along_axis(problem.linear, pick, 1)) / diagonal[:, :, None]
        return cls(order, weights, target, factor / diagonal[:, None, :])

    def round(self, grid: Columns) -> NDArray[np.int32]:
        """Codes ``(groups, columns, rows)`` on a grid."""
        rounded = _in_turn(self.weights, self.target, self.factor, grid.taken(self.order))
        result = np.empty_like(rounded)
        np.put_along_axis(result, self.order[:, :, None], rounded, 1)
        return grid.codes(result)


def round_successively(problem: Problem, grid: Columns, order: NDArray[np.int64] | None = None) -> NDArray[np.int32]:
    """Codes ``(groups, columns, rows)`` of one problem on one grid."""
    return Successive.of(problem, order).round(grid)


def _cholesky(matrix: NDArray[Any]) -> NDArray[Any]:
    """The lower factor of definite matrices, block by block.

    NumPy's own leaves most of the processor idle on large matrices. Here all but the diagonal blocks are products.
    """
    rest, factor = matrix.copy(), np.zeros_like(matrix)
    columns = matrix.shape[1]
    for start in range(0, columns, _PANEL):
        end = min(start + _PANEL, columns)
        corner = np.linalg.cholesky(rest[:, start:end, start:end].astype(np.float64))
        factor[:, start:end, start:end] = corner
        if end < columns:
            turned = np.linalg.inv(corner).transpose(0, 2, 1).astype(matrix.dtype)
            panel = np.matmul(rest[:, end:, start:end], turned)
            factor[:, end:, start:end] = panel
            rest[:, end:, end:] -= np.matmul(panel, panel.transpose(0, 2, 1))
    return factor


def _in_turn(weights: NDArray[Any], target: NDArray[Any], factor: NDArray[Any], grid: Columns) -> NDArray[Any]:
    """The rounded weights; ``factor`` is ``V_ji / V_ii``."""
    rounded, error = np.empty_like(weights), np.zeros_like(weights)
    columns = weights.shape[1]
    for start in range(0, columns, _BLOCK):
        end = min(start + _BLOCK, columns)
        wanted = target[:, start:end].copy()
        if start:
            wanted += np.matmul(factor[:, :start, start:end].transpose(0, 2, 1), error[:, :start])
        for column in range(start, end):
            rounded[:, column] = grid.snap(column, wanted[:, column - start])
            error[:, column] = weights[:, column] - rounded[:, column]
            later = factor[:, column, column + 1 : end, None]
            wanted[:, column + 1 - start :] += later * error[:, column, None]
    return rounded


def _solve(factor: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """``z`` of ``V z = c`` with an upper triangular ``V``, from the last block of rows to the first."""
    solution = np.empty_like(right)
    columns = right.shape[1]
    for start in range((columns - 1) // _BLOCK * _BLOCK, -1, -_BLOCK):
        end = min(start + _BLOCK, columns)
        rest = right[:, start:end] - np.matmul(factor[:, start:end, end:], solution[:, end:])
        solution[:, start:end] = np.matmul(np.linalg.inv(factor[:, start:end, start:end]), rest)
    return solution
