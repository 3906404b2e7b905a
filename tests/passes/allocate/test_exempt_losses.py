"""What exemptions cost in predicted loss, against plans found by looking at all of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcompiler.analysis.allocation.problem import Problem, Solution
from qcompiler.analysis.allocation.shared import best
from qcompiler.analysis.group_costs import GroupCosts
from qcompiler.analysis.sensitivity import Sensitivity
from qcompiler.analysis.sensitivity.study import Cost
from qcompiler.passes.allocate import _exempt_losses
from qcompiler.passes.allocate._allocation import Material, problem_of
from qcompiler.passes.allocate._exempt_losses import ExemptLosses, exempt_losses, priced
from qcompiler.passes.allocate.groups import Grouping, TieGroup

OPTIONS = ("w8a8", "w4a8", "w2a8")
NAMES = ("a", "b", "c", "d")


def material(seed: int, only: tuple[str, ...]) -> Material:
    """Groups whose options lose more the fewer bits they have, and take less."""
    rng = np.random.default_rng(seed)
    groups = tuple(TieGroup(name, (name,), 10, OPTIONS) for name in NAMES)
    losses = {name: dict(zip(OPTIONS, np.sort(rng.random(3)).tolist(), strict=True)) for name in NAMES}
    sizes = {name: np.sort(rng.integers(1, 50, 3))[::-1].tolist() for name in NAMES}
    costs = {
        name: {option: {"size": float(size)} for option, size in zip(OPTIONS, own, strict=True)}
        for name, own in sizes.items()
    }
    found = Sensitivity("measured", 8, 0.0, Cost(0, 0.0, 0.0, 1.0), losses, {}, {})
    exempt = dict.fromkeys(only, ("w8a8", "first-last: it is; 9 bytes more"))
    return Material(Grouping(groups, order=NAMES), found, GroupCosts({"size": 5.0}, costs), exempt)


def least(given: Material, budget: float, only: Mapping[str, object]) -> float:
    """Least loss within a budget by looking at every plan; infinite where none keeps it."""
    free = [("w8a8",) if name in only else OPTIONS for name in NAMES]
    plans = [dict(zip(NAMES, choice, strict=True)) for choice in itertools.product(*free)]
    kept = [plan for plan in plans if given.costs.total(plan, "size") <= budget]
    return min((sum(given.found.losses[name][plan[name]] for name in NAMES) for plan in kept), default=np.inf)


@given(st.integers(0, 10**6), st.sets(st.sampled_from(NAMES), min_size=1), st.integers(20, 200), st.booleans())
def test_prices_are_those_of_all_plans(seed: int, only: set[str], budget: int, smallest: bool) -> None:
    case = material(seed, tuple(sorted(only)))
    room = {"size": float(budget)}
    plan = best(problem_of(case, room), ())
    if plan is None:
        return
    found = exempt_losses(case, {} if smallest else room, plan, smallest=smallest)
    assert found is not None
    limit = plan.costs["size"] if smallest else budget
    kept = least(case, limit, only)
    assert plan.loss == pytest.approx(kept)
    assert found.without == pytest.approx(least(case, limit, ()))
    assert set(found.each) == only
    for name, price in found.each.items():
        assert price == pytest.approx(kept - least(case, limit, only - {name}), abs=1e-12)
        assert 0 <= price <= kept - found.without + 1e-12


def test_prices_are_beside_the_bytes_and_many_are_priced_together(monkeypatch: pytest.MonkeyPatch) -> None:
    case = material(3, ("a", "d"))
    room = {"size": 140.0}
    plan = best(problem_of(case, room), ())
    assert plan is not None
    found = exempt_losses(case, room, plan)
    assert found is not None
    assert max(found.each.values()) > 0
    texts = [why for _, why in priced(case, found).only.values()]
    assert texts == [
        f"first-last: it is; 9 bytes more, and {found.each[name]:.3g} of predicted loss" for name in ("a", "d")
    ]
    texts = [why for _, why in priced(case, found, estimated=True).only.values()]
    assert all(text.endswith(" of predicted loss by sums of costs, which are estimates") for text in texts)
    assert exempt_losses(replace(case, only={}), room, plan) is None

    monkeypatch.setattr(_exempt_losses, "_LARGEST", 2 * 4 * 3)  # two exemptions, four groups, three options
    assert exempt_losses(case, room, plan) == found
    monkeypatch.setattr(_exempt_losses, "_LARGEST", 2 * 4 * 3 - 1)
    together = exempt_losses(case, room, plan)
    assert together is not None
    assert (together.each, together.without) == ({}, found.without)
    assert together.missing == "exemptions are priced together: there are too many for one by one"
    assert priced(case, together).only == case.only


def test_an_exemption_costs_nothing_where_all_together_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    case, room = material(3, ("a", "d")), {"size": 1000.0}
    plan = best(problem_of(case, room), ())
    assert plan is not None
    asked: list[Problem] = []
    monkeypatch.setattr(_exempt_losses, "best", lambda *given, **more: asked.append(given[0]) or best(*given, **more))
    assert exempt_losses(case, room, plan) == ExemptLosses({"a": 0.0, "d": 0.0}, plan.loss)
    assert len(asked) == 2


@pytest.mark.parametrize(("proven", "words"), [(0, "exemptions cost"), (1, "exemptions cost"), (3, "each exemption")])
def test_nothing_is_priced_that_is_not_proven_in_the_time_of_all_together(
    monkeypatch: pytest.MonkeyPatch, proven: int, words: str
) -> None:
    case, room = material(3, ("a", "d")), {"size": 140.0}
    plan = best(problem_of(case, room), ())
    assert plan is not None
    now, seconds = [0.0], []

    def slow(*given: Any, **more: float) -> Solution | None:
        """Every program takes six seconds; some are proven."""
        found = best(*given)
        now[0] += 6.0
        seconds.append(more["seconds"])
        return found if found is None or len(seconds) <= proven else replace(found, proof="none")

    monkeypatch.setattr(_exempt_losses.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(_exempt_losses, "best", slow)
    found = exempt_losses(case, room, plan)
    assert found is not None
    assert found.each == {}
    assert (found.without is None) == (proven < 2)
    assert f"what {words}" in found.missing
    assert found.missing.endswith("not proven in 20 s")
    assert seconds == [20.0, 14.0, 8.0, 2.0][: proven + 1]
