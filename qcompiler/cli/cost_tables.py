"""A cost table as tables: what was measured, how well it predicts, what was left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qcompiler.cli.show import pairs, table

if TYPE_CHECKING:
    from qcompiler.analysis.cost_table import CostTable
    from qcompiler.analysis.predicted import Checked

__all__ = ["checked_models", "show"]

_SKIPPED = 5


def checked_models(costs: CostTable, paths: Sequence[Path]) -> list[Checked]:
    """Predicted and measured latency of models, for every instruction set and number of threads of the table."""
    from qcompiler.analysis.predicted import check_model

    return [
        check_model(path, costs, isa, threads) for path in paths for isa in costs.isas() for threads in costs.threads()
    ]


def show(costs: CostTable, checked: Sequence[Checked]) -> None:
    """Write what was measured and how far to trust it."""
    machine = costs.machine
    pairs(
        [
            ("machine", f"{machine.cpu}, {machine.cores} cores, {machine.system}"),
            ("runtime", f"ONNX Runtime {machine.onnxruntime}, native library {machine.library}"),
            ("date", costs.date),
            ("a run", f"{costs.run_microseconds:.3g} µs besides its nodes"),
        ]
    )
    click.echo()
    table(("operator", "format", "instruction set", "threads", "points", "others predict it within"), _rows(costs))
    if checked:
        click.echo()
        columns = (
            "model",
            "instruction set",
            "threads",
            "predicted",
            "measured",
            "off by",
            "minima",
            "off by",
            "exact",
        )
        table(columns, map(_checked, checked))
    for text in costs.skipped[:_SKIPPED]:
        click.echo(f"not measured: {text}")
    if more := len(costs.skipped[_SKIPPED:]):
        click.echo(f"… and {more} more (--json has all)")


def _rows(costs: CostTable) -> Iterator[tuple[str, ...]]:
    from qcompiler.analysis.cost import cross_check

    for isa in costs.isas():
        for threads in costs.threads():
            errors = cross_check(costs, isa, threads)
            points = [point for point in costs.points if (point.isa, point.threads) == (isa, threads)]
            for kind, form in sorted({(point.kind, point.format) for point in points}):
                count = sum((point.kind, point.format) == (kind, form) for point in points)
                error = errors.get((kind, form))
                within = f"{100 * error[1]:.0f} % (at most {100 * error[2]:.0f} %)" if error is not None else ""
                yield kind, form, isa, str(threads), str(count), within


def _checked(item: Checked) -> tuple[str, ...]:
    return (
        item.path.name,
        item.isa,
        str(item.threads),
        f"{'at least ' if item.unknown else ''}{item.predicted:.3g} ms",
        f"{item.measured:.3g} ms",
        f"{100 * (item.predicted / item.measured - 1):+.0f} %",
        f"{item.predicted_minimum:.3g}, {item.measured_minimum:.3g} ms",
        f"{100 * (item.predicted_minimum / item.measured_minimum - 1):+.0f} %",
        f"{100 * item.measured_share:.0f} %",
    )
