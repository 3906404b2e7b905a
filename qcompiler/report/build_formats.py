"""From an allocation of formats and a comparison with the float model to the part of the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from qcompiler.report.formats import (
    SIZE,
    CandidatePart,
    FormatsPart,
    FrontPointPart,
    GroupPart,
    LossBoundPart,
    ResourcePart,
)
from qcompiler.report.measured import OutputPart

if TYPE_CHECKING:
    from qcompiler.analysis.allocation.record import AllocatedGroup, Allocation
    from qcompiler.target.formats import FormatRequest

__all__ = ["SOFTENED", "formats_part", "formats_warnings", "measured_loss"]

LOSS: Final = "loss"
SOFTENED: Final = "softened-kl"
_EXACT: Final = "exact"
SAME_UNIT: Final = frozenset({"measured", "gauss-newton"})
"""Metrics whose losses are those of the outputs: measured, and to second order. Others only rank."""


def formats_part(
    found: Allocation,
    requests: Mapping[str, FormatRequest],
    written: int,
    outputs: Iterable[OutputPart],
    vectors: frozenset[str],
    metric: str = "",
) -> FormatsPart:
    """What was decided.

    Args:
        found: The decision.
        requests: Every format text that occurs in it, read; the widest first (``target.formats.widest_first``).
        written: Bytes of the files of the compiled model.
        outputs: How close it comes to the float model.
        vectors: Outputs that the graph says are embeddings or states; all others are scores.
        metric: What a bound on the loss is of.
    """
    outputs, groups = tuple(outputs), tuple(map(_group, found.groups))
    texts = {text for group in found.groups for text in (*group.sizes, *group.losses)}
    return FormatsPart(
        base=found.base,
        candidates=tuple(_candidate(requests[text], groups) for text in requests if text in texts),
        metric=found.metric,
        samples=found.samples,
        groups=groups,
        resources=_resources(found, written),
        loss=found.loss,
        bound=found.bound,
        gap=found.loss - found.bound,
        proof=found.proof,
        measured=measured_loss(outputs, vectors, SOFTENED),
        comparable=found.metric in SAME_UNIT,
        loss_bound=_loss_bound(found, outputs, vectors, metric),
        front=tuple(FrontPointPart(point.loss, point.costs) for point in found.front),
        dropped=found.dropped,
        unexempted=found.unexempted,
        estimated=found.estimated,
    )


def _group(group: AllocatedGroup) -> GroupPart:
    return GroupPart(
        group.name, group.nodes, group.weights, group.choice, group.losses.get(group.choice, 0.0), group.losses,
        group.sizes[group.choice], group.exempt,
    )  # fmt: skip


def _resources(found: Allocation, written: int) -> tuple[ResourcePart, ...]:
    return tuple(
        ResourcePart(
            name, found.budgets.get(name), taken, float(written) if name == SIZE else None, found.asked.get(name)
        )
        for name, taken in found.costs.items()
    )


def measured_loss(outputs: Iterable[OutputPart], vectors: frozenset[str], metric: str) -> float | None:
    """Loss of the compiled model on the evaluation samples.

    Args:
        outputs: The comparison with the float model.
        vectors: Outputs that the graph says are embeddings or states; all others are scores.
        metric: ``softened-kl`` as predicted, ``kl``, ``cosine`` or ``agreement`` (the share of other decisions); empty
            is ``kl``. With the divergences, embeddings have one minus the cosine, unless ``kl`` is named.

    Returns:
        A mean over the floating-point outputs; ``None`` where one has no figure (a mean of the others is of another
        loss than what was predicted and bounded), and of any other metric.
    """
    known = [output for output in outputs if output.kind != _EXACT]
    losses = [_output_loss(output, metric, vector=output.name in vectors) for output in known]
    found = [max(loss, 0.0) for loss in losses if loss is not None]
    return sum(found) / len(found) if found and len(found) == len(losses) else None


def _output_loss(output: OutputPart, metric: str, *, vector: bool) -> float | None:
    if not metric and output.kl is None:
        return None  # single numbers: the mean of their noise over signal is not known
    if metric == "cosine" or (vector and metric in ("", SOFTENED)):
        return None if output.cosine is None else 1.0 - output.cosine
    if metric == "agreement":
        return None if output.agreement is None else 1.0 - output.agreement / 100
    return {"": output.kl, "kl": output.kl, SOFTENED: output.softened_kl}.get(metric)


def _candidate(request: FormatRequest, groups: Iterable[GroupPart]) -> CandidatePart:
    own = [group for group in groups if group.choice == request.text]
    return CandidatePart(
        request.text, request.weight_bits, request.activation_bits, len(own),
        sum(group.weights for group in own), sum(group.bytes for group in own),
    )  # fmt: skip


def _loss_bound(
    found: Allocation, outputs: tuple[OutputPart, ...], vectors: frozenset[str], metric: str
) -> LossBoundPart | None:
    if found.measured is None:
        return None
    kinds = [_figure(output, vector=output.name in vectors) for output in outputs if output.kind != _EXACT]
    return LossBoundPart(
        metric or ", ".join(dict.fromkeys(kinds)), found.budgets[LOSS], found.measured,
        measured_loss(outputs, vectors, metric), found.evaluations, found.most_evaluations,
    )  # fmt: skip


def _figure(output: OutputPart, *, vector: bool) -> str:
    """What the held-out loss of an output is of where none was named, as ``plan_loss.sample_losses`` takes it."""
    if output.kl is None:  # single numbers
        return "sqnr"
    return "cosine" if vector else "kl"


def formats_warnings(part: FormatsPart | None) -> tuple[str, ...]:
    """A bound on the held-out loss that was kept by the plan, but not by the file on the evaluation samples."""
    bound = None if part is None else part.loss_bound
    if bound is None or bound.measured is None or bound.measured <= bound.bound:
        return ()
    found = (
        f"the held-out loss ({bound.metric}) of the file on the evaluation samples, {bound.measured:.4g}, is over the "
        f"bound of {bound.bound:g}"
    )
    tried = f"on the samples that the plan was measured on it was at most {bound.upper:.4g}"
    return (f"{found}: {tried}; ask for less, or give more calibration samples",)
