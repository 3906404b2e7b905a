"""The 18 published allocation problems of HAWQ-V3, with their published plans."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from qcompiler.analysis.allocation.problem import Group, Option, Problem
from qcompiler.analysis.allocation.solve import solve

INSTANCES = [
    (model, resource, share)
    for model in ("resnet18", "resnet50")
    for resource in ("modelsize", "bops", "latency")
    for share in ("0.75", "0.5", "0.25")
]
BETTER = {("resnet50", "modelsize", "0.25")}


@pytest.fixture(scope="module")
def published(zoo_folder: Path) -> dict:
    return json.loads((zoo_folder / "hawq_v3_ilp.json").read_text())["models"]


def costs(model: dict, resource: str) -> tuple[list[float], list[float]]:
    """Cost of each layer at 8 and at 4 bits."""
    if resource == "latency":
        return model["latency_int8"], model["latency_int4"]
    key, wide, narrow = {"modelsize": ("parameters_mb", 1, 0.5), "bops": ("bops", 1 / 16, 1 / 64)}[resource]
    return [wide * each for each in model[key]], [narrow * each for each in model[key]]


def leader(model: dict) -> list[int]:
    """Of each layer the first of those that share its bits."""
    first = list(range(len(model["trace"])))
    for one, other in sorted(model["tied"]):
        first[other] = first[one]
    return first


@pytest.fixture(scope="module")
def instance(published: dict) -> Callable[[str, str, str], tuple[Problem, list[int]]]:
    def make(name: str, resource: str, share: str) -> tuple[Problem, list[int]]:
        model, first = published[name], leader(published[name])
        wide, narrow = costs(model, resource)
        gain = [t * (d8 - d4) for t, d8, d4 in zip(model["trace"], model["delta8"], model["delta4"], strict=True)]
        groups = []
        for layer in sorted(set(first)):
            members = [i for i, each in enumerate(first) if each == layer]
            options = (
                Option("4", 0.0, {resource: sum(narrow[i] for i in members)}),
                Option("8", sum(gain[i] for i in members), {resource: sum(wide[i] for i in members)}),
            )
            groups.append(Group(str(layer), options))
        budget = sum(narrow) + (sum(wide) - sum(narrow)) * float(share)
        return Problem(tuple(groups), {resource: budget}), first

    return make


@pytest.mark.parametrize(("name", "resource", "share"), INSTANCES)
@pytest.mark.parametrize("solver", ["cbc", "highs"])
def test_published_plans_are_found_or_bettered(
    name: str, resource: str, share: str, solver: str, published: dict, instance: Callable
) -> None:
    if solver == "highs":
        pytest.importorskip("highspy")
    problem, first = instance(name, resource, share)
    solution = solve(problem, solver=solver)
    theirs = published[name]["published_bits"][f"{resource}_{share}"]
    bits = [int(solution.choice[str(layer)]) for layer in first]
    assert problem.keeps(solution.choice)
    assert solution.bound <= solution.loss
    assert solution.proof == "enumeration"
    if (name, resource, share) not in BETTER:
        assert bits == theirs
        return
    plan = {str(layer): str(theirs[layer]) for layer in set(first)}
    assert problem.keeps(plan)
    assert problem.loss(plan) == pytest.approx(-0.82323, abs=5e-6)
    assert solution.loss == pytest.approx(-0.83139, abs=5e-6)
