"""The integer program and the enumeration, each without the help of the other."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qcompiler.analysis.allocation import enumeration
from qcompiler.analysis.allocation.backend import Backend, Program
from qcompiler.analysis.allocation.problem import InfeasibleError
from qcompiler.analysis.allocation.solve import solve


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("solver", ["cbc", "highs"])
def test_the_scaled_program_alone_is_right_at_any_scale(
    seed: int, solver: str, random_problem: Callable, least_loss: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    if solver == "highs":
        pytest.importorskip("highspy")
    monkeypatch.setattr(enumeration, "_MOST", 0)
    rng = np.random.default_rng(seed)
    proofs = set()
    for _ in range(8):
        problem = random_problem(
            rng, int(rng.integers(3, 9)), 4, int(rng.integers(1, 3)), *10.0 ** rng.integers(-12, 7, 2)
        )
        best = least_loss(problem)
        if best < math.inf:
            solution = solve(problem, solver=solver)
            proofs.add(solution.proof)
            assert solution.loss == pytest.approx(best, rel=1e-12, abs=0)
    assert "solver" in proofs
    assert "none" not in proofs


def _first_options(program: Program) -> np.ndarray:
    values = np.zeros(len(program.objective))
    values[[terms[0][0] for terms, _ in program.equal if (terms[1] == 1).all()]] = 1
    return values


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: (None, True),
        lambda _: (None, False),
        lambda program: (_first_options(program), True),
        lambda program: (np.full(len(program.objective), 0.5), True),
    ],
    ids=["infeasible", "nothing", "another plan", "fractions"],
)
def test_whatever_a_solver_says_the_plan_is_right(
    answer: Callable, random_problem: Callable, least_loss: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backend, "solved", lambda self, program: answer(program))  # noqa: ARG005
    monkeypatch.setattr(Backend, "relaxed", lambda self, program: None)  # noqa: ARG005
    rng = np.random.default_rng(0)
    for _ in range(12):
        problem = random_problem(rng, 7, 4, int(rng.integers(1, 3)))
        best = least_loss(problem)
        if best == math.inf:
            with pytest.raises(InfeasibleError):
                solve(problem)
            continue
        solution = solve(problem)
        assert solution.loss == pytest.approx(best, rel=1e-12)
        assert problem.keeps(solution.choice)
        assert solution.bound <= solution.loss


def test_what_the_package_says_of_itself() -> None:
    text = (Path(enumeration.__file__).parent / "README.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(snippets) == 1
    exec(snippets[0], {})  # noqa: S102
    files = {path.name for path in Path(enumeration.__file__).parent.glob("*.py")} - {"__init__.py"}
    assert files == set(re.findall(r"`(\w+\.py)`", text))
