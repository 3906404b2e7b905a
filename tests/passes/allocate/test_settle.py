"""Plans that keep budgets by what they really take, where the solver only has estimates."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.analysis.allocation.problem import Group, InfeasibleError, Option, Problem
from qcompiler.analysis.allocation.shared import true_costs
from qcompiler.analysis.allocation.solve import solve
from qcompiler.analysis.group_costs import GroupCosts, SharedCost
from qcompiler.passes.allocate._settle import Exact, settled

NO_COSTS = GroupCosts({}, {})


def problem_of(losses: list[tuple[float, float]], budget: float) -> Problem:
    """Groups that take 8 or 4, and lose the first or the second figure."""
    groups = tuple(
        Group(f"g{place}", (Option("w8", low, {"size": 8.0}), Option("w4", high, {"size": 4.0})))
        for place, (low, high) in enumerate(losses)
    )
    return Problem(groups, {"size": budget})


def with_changes(problem: Problem, price: float) -> Exact:
    """True costs: where neighbours differ, something stands between them."""

    def exact(choice: Mapping[str, str]) -> Mapping[str, float]:
        names = [choice[group.name] for group in problem.groups]
        changes = sum(one != other for one, other in itertools.pairwise(names))
        return {"size": problem.costs(choice)["size"] + price * changes}

    return exact


def test_true_estimates_leave_the_plan() -> None:
    problem = problem_of([(0.0, 3.0), (0.0, 2.0), (0.0, 1.0)], 20)
    assert settled(problem, NO_COSTS, with_changes(problem, 0)).choice == solve(problem).choice


LOSSES = [(0.0, 10.0), (0.0, 9.9), (0.0, 1.0), (0.0, 9.8), (0.0, 1.1), (0.0, 1.2), (0.0, 1.3), (0.0, 1.4)]


def test_what_came_off_too_much_is_given_back() -> None:
    """The first plan is over by what stands between; the one for budgets less that fits, and perhaps a better one."""
    problem = problem_of(LOSSES, 48)
    exact = with_changes(problem, 3.0)
    first = solve(problem)
    over = exact(first.choice)["size"] - 48
    assert over > 0
    found = settled(problem, NO_COSTS, exact)
    assert exact(found.choice)["size"] <= 48
    assert first.loss <= found.loss <= solve(problem_of(LOSSES, 48 - over)).loss
    assert (found.proof, found.bound) == ("none", 0)


def test_what_was_estimated_too_much_is_used() -> None:
    """Estimates are 10 too high: a plan fits that the solver may not take."""
    problem = problem_of(LOSSES, 48)

    def exact(choice: Mapping[str, str]) -> Mapping[str, float]:
        return {"size": problem.costs(choice)["size"] - 10}

    found = settled(problem, NO_COSTS, exact)
    assert exact(found.choice)["size"] <= 48
    assert found.loss == solve(problem_of(LOSSES, 58)).loss < solve(problem).loss


def plans_of(problem: Problem) -> list[dict[str, str]]:
    names = [group.name for group in problem.groups]
    options = ([option.name for option in group.options] for group in problem.groups)
    return [dict(zip(names, each, strict=True)) for each in itertools.product(*options)]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(5, 40)), min_size=2, max_size=6),
    st.integers(-6, 40), st.sampled_from([-0.5, 0.0, 0.5, 2.0]),
)  # fmt: skip
def test_budgets_hold_and_the_bound_is_one(losses: list[tuple[int, int]], room: int, price: float) -> None:
    """The plan that takes least is all w4 by sums and in truth: where any plan fits, one is found."""
    problem = problem_of([(float(low), float(high)) for low, high in losses], 4.0 * len(losses) + room)
    exact = with_changes(problem, price)
    fitting = [problem.loss(plan) for plan in plans_of(problem) if exact(plan)["size"] <= problem.budgets["size"]]
    if not fitting:
        with pytest.raises(InfeasibleError) as refused:
            settled(problem, NO_COSTS, exact)
        assert refused.value.bounds == problem.budgets
        assert refused.value.least == {"size": 4.0 * len(losses)}
        return
    found = settled(problem, NO_COSTS, exact)
    assert exact(found.choice)["size"] <= problem.budgets["size"]
    assert found.bound <= min(fitting) <= found.loss
    if price == 0:
        assert found.loss == min(fitting)
    assert found.gap == pytest.approx(found.loss - found.bound)


def test_a_plan_that_sums_refuse_is_built() -> None:
    """Estimates are 100 too high: by sums no plan is within 20, in truth the best of all is."""
    problem = replace(problem_of([(0.0, 3.0), (0.0, 2.0)], 20), fixed={"size": 100.0})

    def exact(choice: Mapping[str, str]) -> Mapping[str, float]:
        return {"size": problem.costs(choice)["size"] - 100}

    found = settled(problem, NO_COSTS, exact)
    assert (found.choice, found.loss, found.costs["size"]) == ({"g0": "w8", "g1": "w8"}, 0.0, 116.0)


def test_a_refusal_after_building_is_of_the_budget_that_was_asked() -> None:
    """Every plan takes one more than its sum: the solver is asked for less, the user hears of what was asked."""
    problem = problem_of([(0.0, 3.0), (0.0, 2.0)], 8)

    def exact(choice: Mapping[str, str]) -> Mapping[str, float]:
        return {"size": problem.costs(choice)["size"] + 1}

    with pytest.raises(InfeasibleError, match="no plan found keeps size ≤ 8") as refused:
        settled(problem, NO_COSTS, exact)
    assert refused.value.hint == "the smallest found: size 9"
    assert (refused.value.bounds, refused.value.least) == ({"size": 8.0}, {"size": 9.0})
    assert settled(replace(problem, budgets={"size": 9.0}), NO_COSTS, exact).choice == {"g0": "w4", "g1": "w4"}


def with_memory(asked: float) -> Problem:
    """Two nodes that may be the peak: w8 of the one group adds to the first, w4 of the other to the second."""
    costs = ((0.0, 30.0, 0.0), (3.0, 10.0, 0.0)), ((0.0, 0.0, 10.0), (2.0, 0.0, 25.0))
    groups = tuple(
        Group(
            f"g{place}",
            tuple(
                Option(name, loss, {"size": 1.0, "memory@Conv_2": first, "memory@Relu_3": second})
                for name, (loss, first, second) in zip(("w8", "w4"), own, strict=True)
            ),
        )
        for place, own in enumerate(costs)
    )
    memory = dict.fromkeys(("memory@Conv_2", "memory@Relu_3"), asked)
    return Problem(groups, {"size": 9.0, **memory}, {"memory@Conv_2": 5.0, "memory@Relu_3": 7.0})


def test_memory_is_one_budget_to_the_user() -> None:
    with pytest.raises(InfeasibleError) as refused:
        settled(with_memory(16), NO_COSTS)
    assert refused.value.bounds == {"size": 9.0, "memory": 16.0}
    assert refused.value.least == {"size": 2.0, "memory": 17.0}
    assert "no plan keeps size ≤ 9, memory ≤ 16\n" in str(refused.value)
    assert refused.value.hint == "the smallest feasible: size 2, memory 17 at 'Relu_3'"
    assert settled(with_memory(17), NO_COSTS).choice == {"g0": "w4", "g1": "w8"}


def test_memory_is_one_budget_where_plans_are_built() -> None:
    def exact(choice: Mapping[str, str]) -> Mapping[str, float]:
        costs = with_memory(0).costs(choice)
        return {"size": costs["size"], "memory": 1 + max(costs["memory@Conv_2"], costs["memory@Relu_3"])}

    with pytest.raises(InfeasibleError) as refused:
        settled(with_memory(17), NO_COSTS, exact)
    assert refused.value.bounds == {"size": 9.0, "memory": 17.0}
    assert refused.value.least == {"size": 2.0, "memory": 18.0}
    assert exact(settled(with_memory(18), NO_COSTS, exact).choice)["memory"] == 18


def test_a_function_of_the_first_plan_is_given_up_for_a_better_one() -> None:
    """With both functions counted there is room for w4 and w2 alone; without the function of w2 both are w4."""
    options = (("w8", 0.0, 20.0), ("w4", 1.0, 10.0), ("w2", 9.0, 4.0))
    groups = tuple(Group(name, tuple(Option(n, loss, {"size": size}) for n, loss, size in options)) for name in "ab")
    shared = tuple(
        SharedCost(f"function {name}", "size", 10.0, frozenset({("a", name), ("b", name)})) for name in ("w4", "w2")
    )
    fixed = {"size": 20.0}
    problem = Problem(groups, {"size": 34.0}, fixed)
    assert solve(problem).loss == 10.0
    found = settled(problem, GroupCosts(fixed, {}, shared))
    assert (found.choice, found.loss) == ({"a": "w4", "b": "w4"}, 2.0)
    assert found.bound == pytest.approx(2.0)
    assert found.costs == {"size": 30.0}


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_more_room_or_candidates_never_lose_more(data: st.DataObject) -> None:
    number = st.integers(0, 30).map(float)
    names = ("w8", "w4", "w2")
    groups = tuple(
        Group(f"g{place}", tuple(Option(name, data.draw(number), {"size": data.draw(number)}) for name in names))
        for place in range(data.draw(st.integers(2, 4)))
    )
    shared = tuple(
        SharedCost(f"function {name}", "size", data.draw(number), frozenset((group.name, name) for group in groups))
        for name in names
    )
    costs = GroupCosts({"size": sum(item.amount for item in shared)}, {}, shared)

    def loss(candidates: int, size: float) -> float:
        few = tuple(replace(group, options=group.options[:candidates]) for group in groups)
        try:
            return settled(Problem(few, {"size": size}, costs.fixed), costs).loss
        except InfeasibleError:
            return math.inf

    size = data.draw(st.integers(0, 150).map(float))
    assert loss(3, size) <= loss(2, size)
    assert loss(3, size + data.draw(number)) <= loss(3, size)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 12), st.lists(st.integers(0, 20), min_size=4, max_size=4), st.integers(0, 20))
def test_the_least_that_is_named_is_kept(budget: int, sizes: list[int], amount: int) -> None:
    """The smallest feasible budget counts the functions that the smallest plan does without."""
    own = [float(size) for size in sizes]
    groups = (
        Group("a", (Option("w8", 0.0, {"size": own[0]}), Option("w4", 1.0, {"size": own[1]}))),
        Group("b", (Option("w8", 0.0, {"size": own[2]}), Option("w4", 1.0, {"size": own[3]}))),
    )
    shared = (SharedCost("function", "size", float(amount), frozenset({("a", "w4"), ("b", "w4")})),)
    costs = GroupCosts({"size": float(amount)}, {}, shared)
    problem = Problem(groups, {"size": float(budget)}, costs.fixed)
    least = min(true_costs(problem, shared, plan)["size"] for plan in plans_of(problem))
    if least <= budget:
        assert settled(problem, costs).costs["size"] <= budget
        return
    with pytest.raises(InfeasibleError) as refused:
        settled(problem, costs)
    assert refused.value.least == {"size": least}
    assert settled(replace(problem, budgets={"size": least}), costs).costs["size"] == least


@settings(deadline=None, max_examples=10)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40)), min_size=2, max_size=5),
    st.integers(0, 120), st.integers(0, 60), st.sampled_from([-2.0, -0.5, 0.5, 3.0]),
)  # fmt: skip
def test_several_budgets_hold_in_truth(
    numbers: list[tuple[int, int, int]], size: int, memory: int, price: float
) -> None:
    """Whatever estimates say: a plan keeps every budget, a refusal names what a plan that was built takes."""
    groups = tuple(
        Group(
            f"g{place}",
            (
                Option("w8", 0.0, {"size": 2.0 * own, "memory@a": float(first), "memory@b": 3.0}),
                Option("w4", float(loss), {"size": float(own), "memory@a": 2.0, "memory@b": float(first)}),
            ),
        )
        for place, (loss, own, first) in enumerate(numbers)
    )
    problem = Problem(groups, {"size": float(size), "memory@a": float(memory), "memory@b": float(memory)})

    def exact(choice: Mapping[str, str]) -> Mapping[str, float]:
        names = [choice[group.name] for group in groups]
        between = price * sum(one != other for one, other in itertools.pairwise(names))
        costs = problem.costs(choice)
        return {"size": costs["size"] + between, "memory": max(costs["memory@a"], costs["memory@b"]) + between}

    every = [exact(plan) for plan in plans_of(problem)]
    try:
        found = settled(problem, NO_COSTS, exact)
    except InfeasibleError as error:
        refused = error
    else:
        taken = exact(found.choice)
        assert taken["size"] <= size
        assert taken["memory"] <= memory
        return
    assert refused.bounds == {"size": size, "memory": memory}
    assert all(refused.least[name] in {costs[name] for costs in every} for name in refused.bounds)
    assert refused.least["size"] > size or refused.least["memory"] > memory
