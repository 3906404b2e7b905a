"""Codes with their scales, and the ways to better ones: GPTQ, coordinate descent, turns of scales and codes, draws.

GPTQ gives one of many good sets of codes: another order of the columns, or steps a few percent wider or finer, give
others, some of them better for some output channels. Draws of both are the last stage of ``alternated``.

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
_NEAR: Final = (0.97, 1.03, 0.94, 1.06, 0.9)
"""Likewise, in units of the scales found so far."""
_SWEEPS: Final = 2
"""Sweeps of coordinate descent behind a draw: more of them cost more than further draws and gain less."""
_ORDER_WIDTH: Final = 0.7
"""Standard deviation of the noise on the logarithm of the Hessian's diagonal, by which drawn orders go."""
_SCALE_WIDTH: Final = 0.04
"""Standard deviation of the logarithm of drawn scales, in units of the best so far."""
_WORK: Final = 2e9
"""Multiply-accumulates of a layer's Hessian with its weights that are spent on scales nearby and draws: at 1536 x 384
weights one attempt takes most of a second."""
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


def alternated(problem: Problem, parts: Parts, start: Solution, sweeps: int, turns: int, draws: int = 0) -> Solution:
    """Scales around the present ones, turns of scales and codes, then draws of orders and scales and two turns more."""
    factorized = Successive.of(problem)
    best = start.or_better(_attempt(problem, parts, factorized, start.scale, start.zero, sweeps), parts)
    for factor in _FACTORS:
        scale = parts.project(start.scale * factor)
        best = best.or_better(_attempt(problem, parts, factorized, scale, start.zero, min(sweeps, 3)), parts)
    best = _in_turns(problem, parts, factorized, best, sweeps, turns)
    if not draws:
        return best
    affordable = int(_WORK / (problem.hessian.size * best.scale.shape[2]))
    around = best.scale
    for factor in _NEAR[:affordable]:
        scale = parts.project(around * factor)
        best = best.or_better(_attempt(problem, parts, factorized, scale, best.zero, min(sweeps, 3)), parts)
    best = _drawn(problem, parts, best, max(0, min(draws, affordable - len(_NEAR))))
    return _in_turns(problem, parts, factorized, best, sweeps, min(turns, 2))


def _attempt(
    problem: Problem,
    parts: Parts,
    factorized: Successive,
    scale: NDArray[np.float64],
    zero: NDArray[np.float64],
    sweeps: int,
) -> Solution:
    """GPTQ on given scales, refined by coordinate descent."""
    codes = factorized.round(parts.grid(scale, zero, problem.weights.dtype))
    return refined(problem, parts, solution(problem, parts, codes, scale, zero), sweeps)


def _in_turns(
    problem: Problem, parts: Parts, factorized: Successive, best: Solution, sweeps: int, turns: int
) -> Solution:
    """Scales for codes and codes for scales, until a turn gains next to nothing."""
    for _ in range(turns):
        before = best.loss.sum()
        fitted = fit_scales(problem, best.codes, best.scale, best.zero, parts)
        best = best.or_better(refined(problem, parts, solution(problem, parts, best.codes, *fitted), sweeps), parts)
        best = best.or_better(_attempt(problem, parts, factorized, *fitted, sweeps), parts)
        if best.loss.sum() > before - _LEAST_GAIN * abs(before):
            break
    return best


def _drawn(problem: Problem, parts: Parts, best: Solution, draws: int) -> Solution:
    """The best of GPTQ by drawn orders of the columns on drawn scales; the same draws for the same problem."""
    random = np.random.default_rng(0)
    groups, _, rows = best.scale.shape
    diagonal = np.log(np.diagonal(problem.hessian, axis1=1, axis2=2).astype(np.float64))
    for _ in range(draws):
        noise = _ORDER_WIDTH * random.standard_normal(diagonal.shape)
        order = np.argsort(-(diagonal + noise), axis=1, kind="stable")
        factor = np.exp(_SCALE_WIDTH * random.standard_normal((1, 1, 1) if parts.tied else (groups, 1, rows)))
        scale = parts.project(best.scale * factor)
        factorized = Successive.of(problem, order)
        best = best.or_better(_attempt(problem, parts, factorized, scale, best.zero, _SWEEPS), parts)
    return best
