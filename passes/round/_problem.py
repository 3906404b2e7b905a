"""The quadratic problem that rounding a layer is.

A layer computes ``Y = X W`` for rows of inputs ``X`` (here weights are ``(columns, rows)``, so that all weights of
one input lie together). With codes it computes ``X' W'`` from inputs ``X'`` that carry the errors of earlier layers.
Written with the error of the weights ``E = W - W'`` and what is wrong without any, ``R = X W - X' W``, the mean
squared error of the outputs is per output channel

    |X W - X' W'|^2 / n  =  |R + X' E|^2 / n  =  e^T H e + 2 e^T c + |r|^2 / n,     H = X'^T X' / n,  C = X'^T R / n.

``H`` (the *Hessian*, up to a factor 2) is shared by all output channels, ``c`` is a column of ``C`` of each. ``C =
0`` is the symmetric case, where the layer is asked to answer the inputs it gets as the float layer would; otherwise
it is asked to also make up for the errors it gets. If the bias takes the mean error, ``H`` and ``C`` are those of
inputs and errors less their means.

Damping adds ``d * mean(diag H)`` to the diagonal: it makes ``H`` definite, and means that weights are held near their
real values where the samples say nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.passes.round._layers import Grid

__all__ = ["Columns", "Problem", "damped"]


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Least squares over codes: minimise ``e^T H e + 2 e^T c`` for every output channel.

    Attributes:
        weights: Real weights ``W``, ``(groups, columns, rows)``.
        hessian: ``H``, ``(groups, columns, columns)``, definite.
        linear: ``C``, ``(groups, columns, rows)``; ``None`` where it is 0.
    """

    weights: NDArray[Any]
    hessian: NDArray[Any]
    linear: NDArray[Any] | None = None

    def gradient(self, error: NDArray[Any]) -> NDArray[Any]:
        """Half the derivative by the error, ``H E + C``."""
        slope: NDArray[Any] = np.matmul(self.hessian, error)
        if self.linear is not None:
            slope += self.linear
        return slope

    def loss(self, real: NDArray[Any]) -> NDArray[np.float64]:
        """The objective per output channel, ``(groups, rows)``, for rounded weights ``real``."""
        error = self.weights - real
        slope = np.matmul(self.hessian, error)
        if self.linear is not None:
            slope += 2 * self.linear
        found: NDArray[np.float64] = np.einsum("gkr,gkr->gr", error, slope, dtype=np.float64)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """A grid with weights as ``(groups, columns, rows)``; one column where all share their scales.

    Attributes:
        scale: ``(groups, columns or 1, rows)``.
        zero: Zero points, of the same shape.
        minimum: Least code.
        maximum: Greatest code.
    """

    scale: NDArray[Any]
    zero: NDArray[Any]
    minimum: int
    maximum: int

    @classmethod
    def of(cls, grid: Grid, dtype: Any = np.float64) -> Columns:
        """The grid of a layer, in the precision that the search computes in."""
        scale, zero = (np.ascontiguousarray(a.transpose(0, 2, 1), dtype) for a in (grid.scale, grid.zero))
        return cls(scale, zero, grid.minimum, grid.maximum)

    def taken(self, order: NDArray[np.int64]) -> Columns:
        """The grid with columns in another order, ``(groups, columns)``."""
        if self.scale.shape[1] == 1:
            return self
        scale, zero = (np.take_along_axis(a, order[:, :, None], 1) for a in (self.scale, self.zero))
        return Columns(scale, zero, self.minimum, self.maximum)

    def at(self, column: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Scale and zero point of one column, ``(groups, rows)``."""
        index = column if self.scale.shape[1] > 1 else 0
        return self.scale[:, index], self.zero[:, index]

    def snap(self, column: int, real: NDArray[Any]) -> NDArray[Any]:
        """The numbers of the grid nearest to ``real`` in one column."""
        scale, zero = self.at(column)
        codes: NDArray[Any] = np.rint(real / scale)
        np.clip(codes, self.minimum - zero, self.maximum - zero, out=codes)
        codes *= scale
        return codes

    def codes(self, real: NDArray[Any]) -> NDArray[np.int32]:
        """Codes of numbers on the grid, or the nearest ones."""
        found = np.clip(np.rint(real / self.scale) + self.zero, self.minimum, self.maximum)
        codes: NDArray[np.int32] = found.astype(np.int32)
        return codes

    def real(self, codes: NDArray[Any]) -> NDArray[Any]:
        """The numbers that codes stand for."""
        numbers: NDArray[Any] = (codes - self.zero) * self.scale
        return numbers


def damped(hessian: NDArray[Any], share: float) -> NDArray[Any]:
    """The Hessian with a share of its mean diagonal added; inputs that are always 0 depend on no others."""
    diagonal = np.diagonal(hessian, axis1=1, axis2=2)
    mean = diagonal.mean(axis=1, keepdims=True)
    added = np.where(mean > 0, share * mean, 1.0) + np.zeros_like(diagonal)
    added = np.where((diagonal <= 0) & (mean > 0), mean, added)
    result = hessian.copy()
    index = np.arange(hessian.shape[1])
    result[:, index, index] += added
    return result
