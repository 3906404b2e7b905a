"""The smallest plan whose *measured* loss keeps a bound, with few measurements.

Plans of the Pareto front of predicted loss form a ladder, from the one that takes least to the one that loses least.
The first measured is the one that the prediction says to be the smallest within the bound; then each measurement halves
the steps that are left. A ladder of n steps takes at most 1 + ceil(log2 n) measurements: after the first, at most n - 1
steps remain on one side, n outcomes with "none of them". With n = 2^ceil(log2 groups), that is ceil(log2 groups) + 1.

Measured loss need not fall from step to step. What is returned was itself measured to keep the bound; that no smaller
step would is known only where the loss does fall.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from qcompiler.analysis.allocation.pareto import front
from qcompiler.analysis.allocation.problem import Problem, Solution
from qcompiler.analysis.allocation.solve import SECONDS
from qcompiler.analysis.group_costs import SharedCost
from qcompiler.errors import UsageError

__all__ = ["BoundMissedError", "Measured", "ladder_steps", "most_evaluations", "smallest_step", "smallest_within"]


@dataclass(frozen=True)
class Measured:
    """A plan measured to keep the bound.

    Attributes:
        solution: The plan, with its predicted loss.
        value: Its measured loss.
        trials: Every plan measured, in order, with its loss.
    """

    solution: Solution
    value: float
    trials: tuple[tuple[Solution, float], ...]

    @property
    def evaluations(self) -> int:
        """Number of measurements."""
        return len(self.trials)


class BoundMissedError(UsageError):
    """No plan measured keeps the bound, the one of least predicted loss among them.

    Attributes:
        least: The least loss measured.
        trials: Every plan measured, in order, with its loss.
    """

    def __init__(self, bound: float, trials: tuple[tuple[Solution, float], ...]) -> None:
        self.least = min((value for _, value in trials if not math.isnan(value)), default=math.nan)
        self.trials = trials
        super().__init__(
            f"no plan keeps a measured loss ≤ {bound:.6g}",
            hint=f"the least of {len(trials)} measured: {self.least:.6g}",
        )


def most_evaluations(groups: int) -> int:
    """Measurements that a bisection over the plans of so many groups takes at most: ceil(log2 groups) + 1."""
    return (groups - 1).bit_length() + 1


def ladder_steps(groups: int) -> int:
    """Steps of a ladder that so many measurements suffice for: a power of two, at least the number of groups."""
    return 1 << (most_evaluations(groups) - 1)


def smallest_within(
    problem: Problem,
    resource: str,
    bound: float,
    measure: Callable[[Mapping[str, str]], float],
    *,
    predicted: float | None = None,
    shared: Sequence[SharedCost] = (),
    solver: str | None = None,
    seconds: float = SECONDS,
) -> Measured:
    """The plan that takes least of a resource among those of a ladder measured to keep a bound.

    Args:
        problem: What to decide; its budgets hold as well.
        resource: What is to be small.
        bound: Most that ``measure`` may give.
        measure: Loss of a plan (option by group). NaN misses every bound.
        predicted: Predicted loss at which the bound is expected to be met; ``bound`` itself without it.
        shared: Costs that are paid once (``shared``).
        solver: As for ``solve``.
        seconds: For each plan of the ladder, as for ``solve``.

    Raises:
        BoundMissedError: Even the plan of least predicted loss misses the bound.
        InfeasibleError: No plan is within the problem's budgets.
    """
    ladder = front(problem, resource, ladder_steps(len(problem.groups)), shared=shared, solver=solver, seconds=seconds)
    return smallest_step(ladder, bound, measure, predicted=predicted)


def smallest_step(
    ladder: Sequence[Solution],
    bound: float,
    measure: Callable[[Mapping[str, str]], float],
    *,
    predicted: float | None = None,
) -> Measured:
    """The lowest step of a ladder (a front, at least one plan) measured to keep a bound; as ``smallest_within``."""
    if not math.isfinite(bound):
        raise UsageError(f"bound on the measured loss is {bound}, not a finite number")
    expected = bound if predicted is None else predicted
    probe = next((i for i, plan in enumerate(ladder) if plan.loss <= expected), len(ladder) - 1)
    trials: list[tuple[Solution, float]] = []
    met: tuple[Solution, float] | None = None
    low, high = 0, len(ladder)  # steps below low are given up, step high (if there is one) keeps the bound
    while low < high:
        trials.append((ladder[probe], measure(ladder[probe].choice)))
        if trials[-1][1] <= bound:
            met, high = trials[-1], probe
        else:
            low = probe + 1
        probe = (low + high) // 2
    if met is None:
        raise BoundMissedError(bound, tuple(trials))
    return Measured(*met, tuple(trials))
