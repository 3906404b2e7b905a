"""Codes with their scales, and the ways to better ones: GPTQ, coordinate descent, turns of scales and codes.

For a given Hessian the output channels are problems of their own, so each keeps the best that any attempt found; only
a format per tensor has to agree. Every attempt starts from or is compared with the best so far: the objective never
rises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from qcompiler.passes.round._descent import descend
from qcompiler.passes.round._problem import Problem
from qcompiler.passes.round._scales import Parts, fit_scales
from qcompiler.passes.round._successive import Successive

__all__ = ["Solution", "alternated", "refined", "solution", "successive"]

_FACTORS: Final = (0.94, 0.88, 0.82, 0.76, 0.7, 1.06)
"""Scales to try, in units of those that round to nearest with the least error: making up for errors also makes up for
weights that are cut, so finer steps pay."""
_LEAST_GAIN: Final = 1e-3
"""A turn that lowers the objective by less than this share is the last."""


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """Codes with their scales.

    Attributes:
        codes: ``(groups, columns, rows)``.
        scale: ``(groups, parts, rows)``.
        zero: Zero points, likewise.
        loss: The objective per output channel, ``(groups, rows)``.
    """

    codes: NDArray[np.int32]
    scale: NDArray[np.float64]
    zero: NDArray[np.float64]
    loss: NDArray[np.float64]

    def or_better(self, other: Solution, parts: Parts) -> Solution:
        """Of both the better one for each output channel; as a whole where one scale serves all."""
        better = other.loss < self.loss
        if parts.tied:
            better = np.broadcast_to(other.loss.sum() < self.loss.sum(), better.shape)
        pick = better[:, None, :]
        return Solution(
            np.where(pick, other.codes, self.codes),
            np.where(pick, other.scale, self.scale),
            np.where(pick, other.zero, self.zero),
            np.where(better, other.loss, self.loss),
        )


def solution(
    problem: Problem, parts: Parts, codes: NDArray[np.int32], scale: NDArray[np.float64], zero: NDArray[np.float64]
) -> Solution:
    """Codes with their scales and what they reach."""
    return Solution(codes, scale, zero, problem.loss(parts.grid(scale, zero).real(codes)))


def successive(problem: Problem, parts: Parts, start: Solution) -> Solution:
    """GPTQ on the scales of ``start``; its codes do not matter."""
    codes = Successive.of(problem).round(parts.grid(start.scale, start.zero, problem.weights.dtype))
    return solution(problem, parts, codes, start.scale, start.zero)


def refined(problem: Problem, parts: Parts, start: Solution, sweeps: int) -> Solution:
    """Coordinate descent from ``start``."""
    grid = parts.grid(start.scale, start.zero, problem.weights.dtype)
    codes = descend(problem, grid, start.codes, sweeps)
    return start.or_better(solution(problem, parts, codes, start.scale, start.zero), parts)


def alternated(problem: Problem, parts: Parts, start: Solution, sweeps: int, turns: int) -> Solution:
    """Scales around the present ones, then turns of scales and codes; both GPTQ and descent find codes for scales."""
    factorized = Successive.of(problem)

    def attempt(scale: NDArray[np.float64], zero: NDArray[np.float64], sweeps: int) -> Solution:
        codes = factorized.round(parts.grid(scale, zero, problem.weights.dtype))
        return refined(problem, parts, solution(problem, parts, codes, scale, zero), sweeps)

    best = start.or_better(attempt(start.scale, start.zero, sweeps), parts)
    for factor in _FACTORS:
        best = best.or_better(attempt(parts.project(start.scale * factor), start.zero, min(sweeps, 3)), parts)
    for _ in range(turns):
        before = best.loss.sum()
        fitted = fit_scales(problem, best.codes, best.scale, best.zero, parts)
        best = best.or_better(refined(problem, parts, solution(problem, parts, best.codes, *fitted), sweeps), parts)
        best = best.or_better(attempt(*fitted, sweeps), parts)
        if best.loss.sum() > before - _LEAST_GAIN * abs(before):
            break
    return best
