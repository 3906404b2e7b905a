"""The part of a report on formats that were chosen among candidates (mixed precision), as data.

There are two losses. The *predicted loss* chooses: the sum of the sensitivities of groups, each measured alone on
calibration samples. By the default metric its unit is that of ``measured``, the *softened loss* of the file as it was
written, on the evaluation samples: softened KL of scores (``metrics.softened_kl``, nats), one minus the cosine of
embeddings and states, a mean over floating-point outputs. The *held-out loss* is what ``--budget loss`` bounds: plain
``kl`` of scores, one minus the cosine of embeddings or the loss of ``--metric``, of quantized models, on samples that
nothing was fitted on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = [
    "CandidatePart",
    "FormatsPart",
    "FrontPointPart",
    "GroupPart",
    "LossBoundPart",
    "ResourcePart",
]

SIZE: Final = "size"


@dataclass(frozen=True)
class CandidatePart:
    """A format that groups could follow, and how many do.

    Attributes:
        text: The format.
        weight_bits: Bits of a weight.
        activation_bits: Bits of an activation; ``None`` where activations stay real numbers.
        groups: Groups that follow it.
        weights: Numbers in their weights.
        bytes: Bytes of these groups by the cost model.
    """

    text: str
    weight_bits: int
    activation_bits: int | None
    groups: int
    weights: int
    bytes: float


@dataclass(frozen=True)
class GroupPart:
    """Nodes that share one decision, and what was decided.

    Attributes:
        name: Name of the group: its first node.
        nodes: Its nodes.
        weights: Numbers in its weights.
        choice: The format it got.
        loss: Sensitivity: predicted loss of the choice; 0 where there was no choice and so nothing was measured.
        losses: Sensitivity of every option, by format; empty where nothing was measured.
        bytes: Bytes of the choice by the cost model.
        exempt: Why it was not free to choose, and what that costs in bytes (against its smallest option) and predicted
            loss (of the plan, against the best one within the same budgets in which it is free); empty where it was.
    """

    name: str
    nodes: tuple[str, ...]
    weights: int
    choice: str
    loss: float
    losses: Mapping[str, float]
    bytes: float
    exempt: str = ""


@dataclass(frozen=True)
class ResourcePart:
    """What the plan takes of one resource.

    Attributes:
        resource: ``size`` and ``memory`` in bytes, ``bops`` in bit operations, ``latency`` in seconds.
        budget: Most that it may take; ``None`` without a budget.
        predicted: What it takes by the cost model.
        actual: What the written file takes after packing, external data included; ``None`` where it is not known.
        asked: The budget as the user wrote it, such as ``0.25x`` or ``500KB``; ``None`` without a budget.
    """

    resource: str
    budget: float | None
    predicted: float
    actual: float | None
    asked: str | None = None


@dataclass(frozen=True)
class LossBoundPart:
    """How a bound on the held-out loss was kept: by measuring plans on samples left out of fitting them.

    Attributes:
        metric: The figure that the loss is of: that of ``--metric``, else by kind of output ``kl`` (plain, not
            softened), ``cosine`` of embeddings, ``sqnr`` of single numbers; several with commas.
        bound: The bound.
        upper: Upper bound of the held-out loss of the plan.
        measured: The same loss of the written file on the evaluation samples; ``None`` where they have no such figure.
        evaluations: Plans that were quantized and measured.
        most_evaluations: As many as were allowed.
    """

    metric: str
    bound: float
    upper: float
    measured: float | None
    evaluations: int
    most_evaluations: int


@dataclass(frozen=True)
class FrontPointPart:
    """A plan for another budget.

    Attributes:
        loss: Its predicted loss.
        costs: What it takes by the cost model, by resource.
    """

    loss: float
    costs: Mapping[str, float]


@dataclass(frozen=True)
class FormatsPart:
    """Formats chosen among candidates within budgets.

    Attributes:
        base: Format of what is in no group.
        candidates: Formats that groups could follow, the widest first.
        metric: Sensitivity metric, in whose unit losses are predicted.
        samples: Calibration samples it was measured on.
        groups: What was decided.
        resources: What the plan takes, and the budgets.
        loss: Predicted loss of the plan, the sum of sensitivities.
        bound: No plan within the budgets (with one of the held-out loss: none of this size) has less predicted loss.
        gap: ``loss - bound``.
        proof: What shows that no plan is better: ``enumeration``, ``bound``, ``solver`` (its word) or ``none``.
        measured: Softened loss of the written file on the evaluation samples; ``None`` where a real output has none.
        comparable: Whether predicted losses have the unit of ``measured``; those of other metrics only rank.
        loss_bound: The bound on the held-out loss; ``None`` where none was asked for.
        front: Plans for other budgets, where they were asked for.
        dropped: Options that were left out, and why, by ``group: option``.
        unexempted: Predicted loss of the best plan without exemptions within the same budgets (under a bound on the
            held-out loss: of the same size), by sums of costs; ``None`` where no group is exempt, or where that was
            not proven in time.
        estimated: Whether sums of the costs of groups, by which ``front``, ``unexempted`` and the prices of exemptions
            are, are estimates: activations have several widths.
    """

    base: str
    candidates: tuple[CandidatePart, ...]
    metric: str
    samples: int
    groups: tuple[GroupPart, ...]
    resources: tuple[ResourcePart, ...]
    loss: float
    bound: float
    gap: float
    proof: str
    measured: float | None
    comparable: bool
    loss_bound: LossBoundPart | None = None
    front: tuple[FrontPointPart, ...] = ()
    dropped: Mapping[str, str] = field(default_factory=dict)
    unexempted: float | None = None
    estimated: bool = False
