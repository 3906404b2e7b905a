"""Time to allocate bits exactly: ``allocation.py [--solver cbc highs] [--sizes 300x2 2000x1] [--repeat 3]``.

Measured, never asserted: layers of five options with random losses (spread as Hessian traces are, of size 1e-9) and
costs, budgets between a quarter and three quarters of the range. Printed are the time, what the greedy plan loses more,
the gap to the relaxed bound, and what proves the plan.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from qcompiler.analysis.allocation.greedy import greedy
from qcompiler.analysis.allocation.problem import Group, Option, Problem
from qcompiler.analysis.allocation.solve import solve

BITS = np.array([2.0, 3.0, 4.0, 6.0, 8.0])


def problem(rng: np.random.Generator, layers: int, resources: int, integers: bool) -> Problem:
    """Layers whose options lose a quarter per bit and take costs nearly in proportion to their bits."""
    losses = 1e-9 * rng.lognormal(0, 2, (layers, 1)) * 4.0**-BITS * rng.uniform(0.8, 1.2, (layers, 5))
    shape = (layers, 5, resources)
    costs = 1e5 * rng.lognormal(0, 1.5, (layers, 1, 1)) * BITS[:, None] * rng.uniform(0.9, 1.1, shape)
    costs = np.round(costs) if integers else costs
    least, most = costs.min(axis=1).sum(axis=0), costs.max(axis=1).sum(axis=0)
    budgets = least + rng.uniform(0.25, 0.75) * (most - least)
    groups = tuple(
        Group(
            f"layer{g}",
            tuple(
                Option(f"w{bits:g}", loss, {f"r{r}": c for r, c in enumerate(cost)})
                for bits, loss, cost in zip(BITS, losses[g].tolist(), costs[g].tolist(), strict=True)
            ),
        )
        for g in range(layers)
    )
    return Problem(groups, {f"r{r}": float(budget) for r, budget in enumerate(budgets)})


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--solver", nargs="*", default=["cbc"])
    parser.add_argument("--sizes", nargs="*", default=["300x1", "300x2", "2000x1", "2000x2"])
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    sys.stdout.write("solver  layers  resources  seconds  greedy more  gap      proof\n")
    for solver in arguments.solver:
        for size in arguments.sizes:
            layers, resources = (int(part) for part in size.split("x"))
            for seed in range(arguments.repeat):
                case = problem(np.random.default_rng(seed), layers, resources, integers=seed % 2 == 0)
                found, start = solve(case, solver=solver), greedy(case)
                more = "none" if start is None else f"{start.loss / found.loss - 1:.3%}"
                sys.stdout.write(
                    f"{solver:7} {layers:6}  {resources:9}  {found.seconds:7.2f}  {more:>11}"
                    f"  {found.gap / found.loss:.1e}  {found.proof}\n"
                )
                sys.stdout.flush()


if __name__ == "__main__":
    main()
