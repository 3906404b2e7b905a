"""``qcompiler bench MODEL…``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from qcompiler.cli.guard import GuardedCommand, traceback_option
from qcompiler.cli.show import as_json_option, bytes_text, print_json, table

if TYPE_CHECKING:
    from qcompiler.analysis.bench import BenchRow

__all__ = ["command"]


@click.command("bench", cls=GuardedCommand, short_help="Time models in turns.")
@click.argument("models", nargs=-1, required=True)
@click.option("--data", metavar="DATA", help="Time on the first sample of DATA. [default: made-up numbers]")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of each run.")
@click.option("--budget", type=click.FloatRange(min=0, min_open=True), default=3.0, show_default=True,
              help="Seconds per model.")
@as_json_option
@traceback_option
def command(
    models: tuple[str, ...], data: str | None, threads: int, budget: float, as_json: bool, traceback: bool
) -> None:
    """Time MODELS in turns in ONNX Runtime; the first is what the others are compared with."""
    del traceback
    from qcompiler.analysis.bench import bench
    from qcompiler.driver.source import find

    paths = [find(model).path for model in models]
    feed = None
    if data is not None:
        from qcompiler.calibration import data as samples
        from qcompiler.ir import io

        feed = next(iter(samples.load(data, samples.inputs_of(io.load(paths[0])), limit=1)))
    rows = bench(paths, feed, threads=threads, budget=budget)
    if as_json:
        print_json(rows)
    else:
        _show(rows)


def _show(rows: tuple[BenchRow, ...]) -> None:
    columns = ("model", "median", "speedup (95 %)", "file", "integer nodes", "float nodes", "conversions left")
    cells = [
        (
            str(row.path),
            f"{row.timing.median:.3g} ms",
            f"{row.speedup.value:.2f} × ({row.speedup.low:.2f} to {row.speedup.high:.2f})",
            bytes_text(row.bytes),
            str(row.integer_nodes),
            str(row.float_nodes),
            str(row.conversions),
        )
        for row in rows
    ]
    table(columns, cells)
