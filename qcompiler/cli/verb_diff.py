"""``qcompiler diff A B``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from qcompiler.cli.guard import GuardedCommand, traceback_option
from qcompiler.cli.progress import progress_bars
from qcompiler.cli.show import as_json_option, print_json, table

if TYPE_CHECKING:
    from qcompiler.analysis.diff import Diff
    from qcompiler.analysis.quality import Quality
    from qcompiler.calibration.data import Dataset

__all__ = ["command"]


@click.command("diff", cls=GuardedCommand, short_help="Compare two models.")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("-d", "--data", metavar="DATA", help="Samples to run both on; without them only structure is compared.")
@click.option("--metric", default="sqnr", show_default=True, metavar="NAME", help="Figure of the outputs that matters.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Take at most N samples.")
@click.option("--preprocessing", metavar="FILE|TEXT", help="How images become inputs.")
@click.option("--all", "every", is_flag=True, help="List every layer, in graph order.")
@as_json_option
@traceback_option
def command(
    first: str,
    second: str,
    data: str | None,
    metric: str,
    limit: int | None,
    preprocessing: str | None,
    every: bool,
    as_json: bool,
    traceback: bool,
) -> None:
    """Compare B with A (usually the float model): structure and, given data, outputs and layers."""
    del traceback
    from qcompiler.analysis.diff import diff
    from qcompiler.analysis.quality import metric as metric_called
    from qcompiler.driver.source import find

    chosen = metric_called(metric)
    one, two = find(first).path, find(second).path
    dataset: Dataset | None = None
    if data is not None:
        from qcompiler.calibration import data as samples
        from qcompiler.ir import io

        dataset = samples.load(data, samples.inputs_of(io.load(one)), preprocessing=preprocessing, limit=limit)
    with progress_bars(quiet=as_json) as progress:
        result = diff(one, two, dataset, metric=chosen, progress=progress)
    if as_json:
        print_json(result)
    else:
        _show(result, every)


def _show(result: Diff, every: bool) -> None:
    table(("", "A", "B"), [(row.name, _number(row.first), _number(row.second)) for row in result.facts])
    if result.operators:
        click.echo()
        table(("operator", "A", "B"), [(row.name, str(row.first), str(row.second)) for row in result.operators])
    if result.weights:
        click.echo()
        table(("weight", "A", "B"), [(row.name, str(row.first), str(row.second)) for row in result.weights])
    if result.quality is not None:
        click.echo()
        _show_quality(result, result.quality, every)


def _show_quality(result: Diff, quality: Quality, every: bool) -> None:
    columns = ("output", "SQNR", "cosine", "KL", "agreement", "largest error")
    rows = [
        (
            item.name, _figure(item.sqnr, " dB", 1), _figure(item.cosine, "", 5), _figure(item.kl, " nats", 5),
            _figure(item.agreement, " %", 1), _figure(item.max_abs_error, "", 4),
        )
        for item in quality.outputs
    ]  # fmt: skip
    table(columns, rows, title=f"{quality.samples} samples")
    layers = list(quality.layers) if every else list(quality.worst_layers(8))
    if layers:
        click.echo()
        cells = [(layer.node, layer.op_type, layer.value, _figure(layer.sqnr, " dB", 1)) for layer in layers]
        title = "every layer" if every else "layers furthest from A"
        table(("node", "operator", "tensor", "SQNR up to here"), cells, title=title)
    if result.falls:
        click.echo()
        falls = [(f.layer.node, f.layer.op_type, f"{f.before:.1f} → {f.layer.sqnr:.1f} dB") for f in result.falls]
        table(("node", "operator", "SQNR before → after"), falls, title="layers that add most error of their own")
    for note in quality.notes:
        click.echo(f"note: {note}")


def _number(value: int | str) -> str:
    return f"{value:,}" if isinstance(value, int) else value


def _figure(value: float | None, unit: str, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}{unit}"
