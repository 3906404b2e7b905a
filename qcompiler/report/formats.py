"""The part of a report on formats that were chosen among candidates (mixed precision), as data.

Predicted and measured loss have one unit: the divergence of scores (``metrics.softened_kl``, nats), one minus the
cosine of embeddings and states, a mean over floating-point outputs. The prediction adds up what groups lose one at a
time, on calibration samples; the measurement is that of the file as it was written, on the evaluation samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from qcompiler.report.measured import OutputPart

if TYPE_CHECKING:
    from qcompiler.analysis.allocation.record import Allocation
    from qcompiler.target.formats import FormatRequest

__all__ = [
    "CandidatePart",
    "FormatsPart",
    "FrontPointPart",
    "GroupPart",
    "LossBoundPart",
    "ResourcePart",
    "formats_part",
    "measured_loss",
]

SIZE: Final = "size"
LOSS: Final = "loss"
SAME_UNIT: Final = frozenset({"measured", "gauss-newton"})
"""Metrics whose losses are those of the outputs: measured, and to second order. Others only rank."""


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
        loss: Predicted loss of the choice; 0 where there was no choice and so nothing was measured.
        losses: Predicted loss of every option, by format; empty where nothing was measured.
        bytes: Bytes of the choice by the cost model.
        exempt: Why it was not free to choose, and what that costs; empty where it was.
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
    """

    resource: str
    budget: float | None
    predicted: float
    actual: float | None


@dataclass(frozen=True)
class LossBoundPart:
    """How a bound on the loss itself was kept: by measuring plans on samples left out of fitting them.

    Attributes:
        metric: What the loss is of; empty: ``kl`` of scores (not softened), one minus the cosine of embeddings.
        bound: The bound.
        upper: Upper bound (95 %) of the loss of the plan.
        evaluations: Plans that were quantized and measured.
        most_evaluations: As many as were allowed.
    """

    metric: str
    bound: float
    upper: float
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
        metric: Sensitivity metric behind the predicted losses.
        samples: Calibration samples it was measured on.
        groups: What was decided.
        resources: What the plan takes, and the budgets.
        loss: Predicted loss of the plan.
        bound: No plan within the budgets (with a bound on the loss: no plan of this size) has less predicted loss.
        gap: ``loss - bound``.
        proof: What shows that no plan is better: ``enumeration``, ``bound``, ``solver`` (its word) or ``none``.
        measured: Loss of the written file on the evaluation samples; ``None`` where no output has one.
        comparable: Whether predicted losses have the unit of ``measured``; those of other metrics only rank.
        loss_bound: The bound on the measured loss; ``None`` where none was asked for.
        front: Plans for other budgets, where they were asked for.
        dropped: Options that were left out, and why, by ``group: option``.
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


def formats_part(
    found: Allocation, requests: Mapping[str, FormatRequest], written: int, measured: float | None, metric: str = ""
) -> FormatsPart:
    """What was decided.

    Args:
        found: The decision.
        requests: Every format text that occurs in it, read.
        written: Bytes of the files of the compiled model.
        measured: Its loss (``measured_loss``).
        metric: What a bound on the loss is of.
    """
    groups = tuple(
        GroupPart(
            group.name, group.nodes, group.weights, group.choice, group.losses.get(group.choice, 0.0),
            group.losses, group.sizes[group.choice], group.exempt,
        )
        for group in found.groups
    )  # fmt: skip
    texts = {text for group in found.groups for text in (*group.sizes, *group.losses)}
    return FormatsPart(
        base=found.base,
        candidates=tuple(_candidate(requests[text], groups) for text in _widest_first(texts, requests)),
        metric=found.metric,
        samples=found.samples,
        groups=groups,
        resources=tuple(
            ResourcePart(name, found.budgets.get(name), taken, float(written) if name == SIZE else None)
            for name, taken in found.costs.items()
        ),
        loss=found.loss,
        bound=found.bound,
        gap=found.loss - found.bound,
        proof=found.proof,
        measured=measured,
        comparable=found.metric in SAME_UNIT,
        loss_bound=_loss_bound(found, metric),
        front=tuple(FrontPointPart(point.loss, point.costs) for point in found.front),
        dropped=found.dropped,
    )


def measured_loss(outputs: Iterable[OutputPart], vectors: frozenset[str]) -> float | None:
    """Loss of the compiled model in the unit of the predicted one.

    Args:
        outputs: The comparison with the float model.
        vectors: Outputs that the graph says are embeddings or states; all others are scores.

    Returns:
        A mean over the outputs that have a figure; ``None`` where none has.
    """
    losses: list[float] = []
    for output in outputs:
        likeness = None if output.cosine is None else 1.0 - output.cosine
        loss = likeness if output.name in vectors else output.softened_kl
        if loss is not None:
            losses.append(max(loss, 0.0))
    return sum(losses) / len(losses) if losses else None


def _widest_first(texts: Iterable[str], requests: Mapping[str, FormatRequest]) -> list[str]:
    """Format texts from the most bits to the fewest; real activations are wider than any code."""

    def bits(text: str) -> tuple[int, int, str]:
        return -(requests[text].activation_bits or 32), -requests[text].weight_bits, text

    return sorted(texts, key=bits)


def _candidate(request: FormatRequest, groups: Iterable[GroupPart]) -> CandidatePart:
    own = [group for group in groups if group.choice == request.text]
    return CandidatePart(
        request.text, request.weight_bits, request.activation_bits, len(own),
        sum(group.weights for group in own), sum(group.bytes for group in own),
    )  # fmt: skip


def _loss_bound(found: Allocation, metric: str) -> LossBoundPart | None:
    if found.measured is None:
        return None
    return LossBoundPart(metric, found.budgets[LOSS], found.measured, found.evaluations, found.most_evaluations)
