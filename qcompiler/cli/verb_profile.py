"""``qcompiler profile --target TARGET``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from qcompiler.cli.guard import GuardedCommand, traceback_option
from qcompiler.cli.show import ISAS, as_json_option, print_json

__all__ = ["command"]

_EPILOG = """\b
A table of this machine, and what a compile says with it:
  qcompiler profile --target lowbit-cpu -o costs.json
  qcompile model.onnx -t lowbit-cpu -c samples.npz --cost-table costs.json
The very shapes of a model, in every width of weights, and how well the table predicts it:
  qcompiler profile --target lowbit-cpu --model model.lowbit-cpu.onnx -o costs.json
Exit codes: 0 done, 1 failed (the native library is not installed), 2 usage (the target is another machine,
instruction set that this machine lacks), 130 interrupted."""


@click.command("profile", cls=GuardedCommand, short_help="Measure what operators cost here.", epilog=_EPILOG)
@click.option("-t", "--target", required=True, metavar="NAME|FILE", help="Profile that our kernels run here.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the table as JSON.")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="MODEL",
    help="Compiled model whose shapes are measured first, and predicted (repeatable).",
)
@click.option("--grid/--no-grid", default=True, help="Measure the shapes that networks commonly have.")
@click.option(
    "--isa",
    "isas",
    multiple=True,
    metavar="NAME",
    help=f"Instruction set (repeatable): {ISAS}. [default: the best here]",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1, max=1024),
    multiple=True,
    default=(1,),
    help="Threads of each run (repeatable). [default: 1]",
)
@click.option(
    "--budget",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds for all measurements.",
)
@as_json_option
@traceback_option
def command(
    target: str, output: Path | None, models: tuple[str, ...], grid: bool, isas: tuple[str, ...],
    threads: tuple[int, ...], budget: float, as_json: bool, traceback: bool,
) -> None:  # fmt: skip
    """Measure what the operators of a target cost on this machine, for the compiler to predict latencies."""
    del traceback
    from qcompiler.analysis.cost_table import table_text
    from qcompiler.analysis.profile_plan import check_here, plan
    from qcompiler.analysis.profile_target import measure
    from qcompiler.cli.cost_tables import checked_models, show
    from qcompiler.cli.progress import progress_bars
    from qcompiler.driver.files import check_writable, write_text
    from qcompiler.driver.source import find
    from qcompiler.target.load import load

    profile = load(target)
    check_here(profile)
    if output is not None:
        check_writable(output)
    paths = [find(model).path for model in models]
    with progress_bars(quiet=False) as progress:
        chosen = plan(profile, paths, with_grid=grid)
        table = measure(profile, chosen, isas=isas or (None,), threads=threads, budget=budget, progress=progress)
    if output is not None:
        write_text(output, table_text(table))
    checked = checked_models(table, paths)
    if as_json:
        print_json({**json.loads(table_text(table)), "checked_models": checked})
        return
    show(table, checked)
    if output is not None:
        click.echo(f"\n{output}: {len(table.points)} points")
