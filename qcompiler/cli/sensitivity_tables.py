"""What ``qcompiler sensitivity`` shows: estimates of the metrics, the ranking, what to know of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from qcompiler.cli.show import pairs, table

if TYPE_CHECKING:
    from qcompiler.analysis.sensitivity import Sensitivity
    from qcompiler.driver.sensitivity import Estimate, Question

__all__ = ["seconds_text", "show_estimates", "show_question", "show_result"]

_NAMES = 5


def show_question(asked: Question, executor: str) -> None:
    """What is asked."""
    dataset = asked.ctx.calibration
    pairs(
        [
            ("model", asked.source.text),
            ("target", f"{asked.target.name}: {asked.target.title}"),
            ("candidates", ", ".join(asked.candidates)),
            ("calibration", "none" if dataset is None else "; ".join((f"{len(dataset)} samples", *dataset.notes))),
            ("rounding", asked.rounding),
            ("executor", executor),
        ]
    )
    click.echo()


def show_estimates(estimates: Sequence[Estimate], chosen: str) -> None:
    """What every metric would take; the chosen one has an arrow."""
    rate = next((item.cost.rate for item in estimates if item.cost.macs), 0.0)
    at = f" at {rate / 1e9:.3g} G multiply-accumulates per second" if rate else ""
    columns = ("", "metric", "samples", "runs of the model", "multiply-accumulates", f"estimate{at}")
    table(columns, [_estimate(item, chosen) for item in estimates])
    click.echo()


def _estimate(item: Estimate, chosen: str) -> tuple[str, ...]:
    arrow = "→" if item.metric == chosen else ""
    if not item.cost.runs:
        return arrow, item.metric, "none", "none: weights alone", "", ""
    numbers = f"{item.cost.runs:,.0f}", f"{item.cost.macs:.3g}", seconds_text(item.cost.seconds)
    return arrow, item.metric, str(item.samples), *numbers


def seconds_text(seconds: float) -> str:
    """A time for people."""
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s" if seconds >= 0.1 else "less than 0.1 s"


def show_result(asked: Question, found: Sensitivity) -> None:
    """The ranking, most sensitive first, and what to know of it."""
    kinds = {str(node.name): node.op_type for node in asked.model.graph}
    table(("group", "nodes", "weights", *asked.candidates), _rows(asked, found, kinds))
    click.echo()
    on = f" on {found.samples} samples" if found.samples else ""
    click.echo(f"{found.metric}{on}, {seconds_text(found.seconds)}; predicted loss of rounding one group alone")
    for note in (*found.notes, *asked.notes):
        click.echo(f"note: {note}")
    for (group, option), reason in found.dropped.items():
        click.echo(f"{group} cannot follow {option}: {reason}")
    refused = list(asked.grouping.refused.items())
    for name, reason in refused[:_NAMES]:
        click.echo(f"{name} follows no candidate: {reason}")
    if more := len(refused[_NAMES:]):
        click.echo(f"… and {more} more (--json has all)")


def _rows(asked: Question, found: Sensitivity, kinds: dict[str, str]) -> Iterator[tuple[str, ...]]:
    from qcompiler.driver.sensitivity import ranking

    for group in ranking(found):
        own = found.losses[group]
        counts: dict[str, int] = {}
        for name in found.nodes[group]:
            counts[kinds[name]] = counts.get(kinds[name], 0) + 1
        nodes = ", ".join(kind if count == 1 else f"{count} {kind}" for kind, count in counts.items())
        losses = (f"{own[option]:.3g}" if option in own else "" for option in asked.candidates)
        yield group, nodes, f"{found.weights[group]:,}", *losses
