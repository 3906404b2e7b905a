"""What an allocation decided and why: kept beside the model, for reports, plans and fronts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["BY_SUMS", "AllocatedGroup", "Allocation", "FrontPoint"]

BY_SUMS: Final = "by sums of costs, which are estimates"
"""What is said of a figure from sums of the costs of groups where those are estimates (``Allocation.estimated``)."""


@dataclass(frozen=True, slots=True)
class AllocatedGroup:
    """One group and what it got.

    Attributes:
        name: Name of the group.
        nodes: Names of its nodes.
        weights: Numbers in its weights.
        choice: The format it got.
        losses: Predicted loss by format.
        sizes: Bytes by format.
        exempt: Why it was not free to choose; empty where it was.
    """

    name: str
    nodes: tuple[str, ...]
    weights: int
    choice: str
    losses: Mapping[str, float]
    sizes: Mapping[str, float]
    exempt: str = ""


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """A plan of the front.

    Attributes:
        loss: Its predicted loss.
        costs: What it takes, by resource.
        choice: Format by group.
    """

    loss: float
    costs: Mapping[str, float]
    choice: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Allocation:
    """A plan of formats, the budgets it keeps, and how it was found.

    Attributes:
        base: Format of what is in no group.
        metric: Sensitivity metric behind the predicted loss.
        samples: Samples that it was measured on.
        groups: The groups in graph order.
        budgets: Most that the plan may take, by resource.
        costs: What it takes by the cost model, by resource.
        loss: Its predicted loss.
        bound: No plan within the budgets has a lower predicted loss than this.
        proof: What shows that no plan is better (``Solution.proof``).
        measured: Upper bound of the loss of the quantized model on samples left out, where a bound on it was asked for.
        evaluations: Plans that were quantized and measured for that.
        most_evaluations: As many as were allowed.
        front: Plans for other budgets.
        dropped: Options that were left out, and why.
        asked: Budgets as the user wrote them (``0.25x``), by resource.
        unexempted: Predicted loss of the best plan without exemptions, by sums of costs; ``None`` where there are none,
            or where that was not proven in time.
        estimated: Whether sums of the costs of groups, by which the front and ``unexempted`` are, are estimates:
            activations have several widths.
    """

    base: str
    metric: str
    samples: int
    groups: tuple[AllocatedGroup, ...]
    budgets: Mapping[str, float]
    costs: Mapping[str, float]
    loss: float
    bound: float
    proof: str
    measured: float | None = None
    evaluations: int = 0
    most_evaluations: int = 0
    front: tuple[FrontPoint, ...] = ()
    dropped: Mapping[str, str] = field(default_factory=dict)
    asked: Mapping[str, str] = field(default_factory=dict)
    unexempted: float | None = None
    estimated: bool = False

    def formats(self, choice: Mapping[str, str] | None = None) -> dict[str, str]:
        """The format of every node of every group, by its name: of this plan, or of another choice."""
        return {
            node: group.choice if choice is None else choice[group.name]
            for group in self.groups
            for node in group.nodes
        }
