"""From sensitivities and costs to the problem that the solver gets, and from its plan to the record that is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from qcompiler.analysis.allocation.problem import Group, Option, Pair, Problem, Solution
from qcompiler.analysis.allocation.record import AllocatedGroup, Allocation, FrontPoint
from qcompiler.analysis.bit_operations import bit_operations
from qcompiler.analysis.group_costs import BOPS, MEMORY, SIZE, GroupCosts
from qcompiler.analysis.memory_plan import memory_plan
from qcompiler.analysis.sensitivity import Sensitivity
from qcompiler.errors import UsageError
from qcompiler.passes.allocate._open_shapes import Shapes, bound_copy
from qcompiler.passes.allocate.budgets import LOSS, Budget
from qcompiler.passes.allocate.groups import Grouping, TieGroup

__all__ = ["Material", "absolute", "problem_of", "record_of", "wholes"]


@dataclass(frozen=True)
class Material:
    """What a plan is made of.

    Attributes:
        grouping: What there is to decide.
        found: Losses by group and option; of groups that are fixed there are none.
        costs: Costs of all groups.
        only: Groups that are not free to choose: the option they keep, and why.
    """

    grouping: Grouping
    found: Sensitivity
    costs: GroupCosts
    only: Mapping[str, tuple[str, str]]

    @property
    def groups(self) -> tuple[TieGroup, ...]:
        """All groups that have a format to be given."""
        return self.grouping.all

    def options(self, group: TieGroup) -> list[str]:
        """What a group may take."""
        if group.name in self.only:
            return [self.only[group.name][0]]
        return list(self.found.losses[group.name]) if group.name in self.found.losses else list(group.options)

    def loss(self, group: TieGroup, option: str) -> float:
        """What it loses then; 0 where there was nothing to choose and so nothing was measured."""
        return self.found.losses.get(group.name, {}).get(option, 0.0)


def wholes(
    budgets: Iterable[Budget], model: ir.Model, float_bytes: int, shapes: Shapes | None = None
) -> dict[str, float]:
    """What the float model takes of the resources of which a share is asked for.

    Args:
        budgets: As the user gave them.
        model: The normalized float model.
        float_bytes: Bytes of the float model's files; 0 where they are not known.
        shapes: Shapes of the inputs that costs are for, where dimensions are open; ``None``: made-up ones.

    Raises:
        UsageError: It is not known.
    """
    found = {item.resource: _whole(item.resource, model, float_bytes, shapes) for item in budgets if item.relative}
    for resource, whole in found.items():
        if whole <= 0:
            raise UsageError(
                f"the float model's {resource} is not known, so no share of it can be asked for",
                where="--budget", hint=f"give {resource} as a number",
            )  # fmt: skip
    return found


def absolute(budgets: Iterable[Budget], whole: Mapping[str, float], costs: GroupCosts) -> dict[str, float]:
    """Budgets as amounts of the resources in ``costs``; the loss has none there.

    Args:
        budgets: As the user gave them.
        whole: What the float model takes (``wholes``).
        costs: Peak memory has one resource per node that may be the peak.
    """
    found: dict[str, float] = {}
    for budget in budgets:
        if budget.resource == LOSS:
            continue
        names = [name for name in costs.fixed if name == budget.resource or name.startswith(f"{budget.resource}@")]
        found |= dict.fromkeys(names, budget.of(whole.get(budget.resource, 0.0)))
    return found


def _whole(resource: str, model: ir.Model, float_bytes: int, shapes: Shapes | None) -> float:
    if resource == SIZE:
        return float(float_bytes)
    bound = bound_copy(model, shapes)
    if resource == BOPS:
        return float(sum(bit_operations(bound).values()))
    return float(memory_plan(bound.graph).peak) if resource == MEMORY else 0.0


def problem_of(material: Material, budgets: Mapping[str, float]) -> Problem:
    """Groups with options, losses and costs."""
    costs = material.costs
    groups = tuple(
        Group(
            group.name,
            tuple(
                Option(option, material.loss(group, option), costs.options[group.name][option])
                for option in material.options(group)
            ),
        )
        for group in material.groups
    )
    return Problem(groups, budgets, costs.fixed, _pairs(material))


def _pairs(material: Material) -> tuple[Pair, ...]:
    """What two groups lose together beyond the sum, for options that they may take."""
    free = {group.name: material.options(group) for group in material.groups}
    joint: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
    for ((first, one), (second, other)), loss in material.found.pairs.items():
        if one in free[first] and other in free[second]:
            joint.setdefault((first, second), {})[one, other] = loss
    return tuple(Pair(*names, losses) for names, losses in joint.items())


def record_of(
    material: Material,
    base: str,
    budgets: Mapping[str, float],
    plan: Solution,
    front: Sequence[Solution],
    taken: Mapping[str, float] | None = None,
) -> Allocation:
    """What was decided; ``taken`` is what the plan really takes, where sums of ``material.costs`` are estimates."""
    groups = tuple(
        AllocatedGroup(
            group.name,
            group.nodes,
            group.weights,
            plan.choice[group.name],
            dict(material.found.losses.get(group.name, {})),
            {option: material.costs.options[group.name][option][SIZE] for option in group.options},
            material.only.get(group.name, ("", ""))[1],
        )
        for group in material.groups
    )
    dropped = {f"{group}: {option}": why for (group, option), why in material.found.dropped.items()}
    costs = dict(taken) if taken is not None else _taken(material.costs, plan.choice)
    return Allocation(
        base, material.found.metric, material.found.samples, groups, _merged(budgets), costs, plan.loss, plan.bound,
        plan.proof, dropped=dropped, estimated=taken is not None,
        front=tuple(FrontPoint(each.loss, _taken(material.costs, each.choice), each.choice) for each in front),
    )  # fmt: skip


def _taken(costs: GroupCosts, choice: Mapping[str, str]) -> dict[str, float]:
    return _merged({name: costs.total(choice, name) for name in costs.fixed})


def _merged(amounts: Mapping[str, float]) -> dict[str, float]:
    """Amounts by resource, with the peak instead of the bytes at every node."""
    found: dict[str, float] = {}
    for name, amount in amounts.items():
        resource = name.partition("@")[0]
        found[resource] = max(found.get(resource, amount), amount)
    return found
