"""Scales and zero points for given codes, by least squares, and the turns of both.

Source: Guo et al., "decoupleQ: Towards 2-bit Post-Training Uniform Quantization via decoupling Parameters into
Integer and Floating Points" (2024), section 3: with codes fixed the objective is a quadratic function of the scales,
with scales fixed it is an integer problem; both are solved in turn.

Let one scale ``s`` hold the weights ``P`` of one output channel and ``u`` be their codes less the zero point (0
elsewhere). Moving ``s`` by ``d`` changes the error by ``-d u``, hence the objective by ``-2 d u^T g + d^2 u^T H u``
with the gradient ``g = H e + c``: least at ``d = u^T g / u^T H u``. A zero point that moves by a whole number ``k``
changes the error by ``k s 1_P``: least near ``k = -1_P^T g / (s 1_P^T H 1_P)``. Blocks are taken in turn, each with
the gradient that the one before left.

What a target can hold decides: scales are then rounded to powers of two, or to multiples of one scale per row, and
the objective of the result is computed. A row takes it only where it is lower; so no half of a turn increases the
objective.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qcompiler.passes.round._problem import Columns, Problem

__all__ = ["Parts", "fit_scales"]

Project = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Turns scales ``(groups, parts, rows)`` into ones that the target can hold."""

_RANGE: Final = (0.51, 4.0)
"""How far a scale may move from its present value at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Columns that share a scale per output channel.

    Attributes:
        columns: The part that each column belongs to, ``(columns,)``.
        count: How many there are; 1 for scales per channel.
        tied: Whether one scale serves all channels (a format per tensor).
        moving_zero: Whether zero points may move.
        project: What the target can hold.
        limits: Least and greatest code; zero points lie between.
    """

    columns: NDArray[np.int64]
    count: int
    tied: bool
    moving_zero: bool
    project: Project
    limits: tuple[int, int]

    def grid(self, scale: NDArray[Any], zero: NDArray[Any], dtype: Any = np.float64) -> Columns:
        """The grid of scales and zero points ``(groups, parts, rows)``."""
        if self.count > 1:
            scale, zero = scale[:, self.columns], zero[:, self.columns]
        return Columns(scale.astype(dtype), zero.astype(dtype), *self.limits)


def fit_scales(
    problem: Problem,
    codes: NDArray[np.int32],
    scale: NDArray[np.float64],
    zero: NDArray[np.float64],
    parts: Parts,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scales and zero points ``(groups, parts, rows)`` with an objective that is not higher.

    Args:
        problem: What to minimise.
        codes: Codes, ``(groups, columns, rows)``; they stay.
        scale: Scales now.
        zero: Zero points now.
        parts: Which weights share them.
    """
    before = problem.loss(parts.grid(scale, zero).real(codes))
    wanted, moved = _wish(problem, codes, scale.copy(), zero.copy(), parts)
    held = parts.project(np.clip(wanted, _RANGE[0] * scale, _RANGE[1] * scale))
    after = problem.loss(parts.grid(held, moved).real(codes))
    better = np.broadcast_to(after.sum() < before.sum(), after.shape) if parts.tied else after < before
    pick = better[:, None, :]
    return np.where(pick, held, scale), np.where(pick, moved, zero)


def _wish(
    problem: Problem,
    codes: NDArray[np.int32],
    scale: NDArray[np.float64],
    zero: NDArray[np.float64],
    parts: Parts,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The least-squares scales and zero points, part after part, as if every scale could be held."""
    grid = parts.grid(scale, zero)
    steps = codes - grid.zero
    slope = problem.gradient(problem.weights - steps * grid.scale)
    for part in range(parts.count):
        chosen = np.flatnonzero(parts.columns == part)
        rows = problem.hessian[:, :, chosen]
        units = steps[:, chosen]
        along = np.einsum("gkr,gkr->gr", units, slope[:, chosen])
        curve = np.einsum("gkr,gkr->gr", units, np.matmul(rows[:, chosen], units))
        if parts.tied:
            along, curve = (np.broadcast_to(item.sum(), item.shape) for item in (along, curve))
        change = np.divide(along, curve, out=np.zeros_like(along), where=curve > 0)
        scale[:, part] += change
        slope -= np.matmul(rows, units * change[:, None])
        if not parts.moving_zero:
            continue
        ones = rows[:, chosen].sum(axis=(1, 2))[:, None] * scale[:, part]
        push = np.divide(-slope[:, chosen].sum(axis=1), ones, out=np.zeros_like(along), where=ones > 0)
        shifted = np.clip(zero[:, part] + np.rint(push), *parts.limits)
        change = (shifted - zero[:, part]) * scale[:, part]
        zero[:, part] = shifted
        slope += rows.sum(axis=2)[:, :, None] * change[:, None]
    return scale, zero
