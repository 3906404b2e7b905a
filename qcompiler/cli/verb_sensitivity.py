"""``qcompiler sensitivity MODEL --target TARGET --candidates A,B,…``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qcompiler.cli.guard import GuardedCommand, traceback_option
from qcompiler.cli.show import as_json_option, print_json

if TYPE_CHECKING:
    from qcompiler.analysis.sensitivity import Sensitivity
    from qcompiler.driver.sensitivity import Question

__all__ = ["command"]

_FILE = click.Path(dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)

_EPILOG = """\b
What every layer loses in fewer bits, and the same as a picture:
  qcompiler sensitivity model.onnx -t lowbit-cpu --candidates w8a8,w4a8,w2a8 -c samples.npz --plot losses.svg
On two processes, or on a cluster (pip install 'qcompiler[dask]', 'qcompiler[ray]'):
  qcompiler sensitivity digits_cnn -t edge-npu --candidates w8a8,w4a8 --workers 2
  qcompiler sensitivity model.onnx … --executor dask://scheduler:8786
Exit codes: 0 done, 1 failed (a library is not installed, the cluster does not answer), 2 usage, 130 interrupted."""


@click.command("sensitivity", cls=GuardedCommand, short_help="Rank layers by what they lose.", epilog=_EPILOG)
@click.argument("model")
@click.option("-t", "--target", required=True, metavar="NAME|FILE", help="Shipped profile or a profile of your own.")
@click.option("--candidates", required=True, metavar="A,B,…", help="Formats to compare, such as w8a8,w4a8,w2a8.")
@click.option("-c", "--calibration", metavar="DATA", help="Samples: as qcompile takes them, the last eighth held out.")
@click.option("-e", "--evaluation", metavar="DATA", help="Samples that a compile judges by: none is held out then.")
@click.option("--metric", default="measured", show_default=True, metavar="NAME", help="Metric of the predicted loss.")
@click.option("--list-metrics", is_flag=True, help="Only show the metrics, and what each would take.")
@click.option("--samples", type=int, metavar="N", help="Samples to run. [default: up to 128, by the model's size]")
@click.option("--rounding", metavar="nearest|gptq", help="How weights are rounded. [default: as qcompile does]")
@click.option("-o", "--output", type=_FILE, help="Write the result as JSON.")
@click.option("--plot", "picture", type=_FILE, help="Draw losses: .svg or .png (needs 'qcompiler[plot]').")
@click.option("--exclude", multiple=True, metavar="NAME|TYPE|re:…", help="Leave nodes in float (repeatable).")
@click.option("--workers", type=int, default=0, metavar="N", help="Processes that measure. [default: this one]")
@click.option("--executor", metavar="dask://HOST:PORT|ray|ray://HOST:PORT", help="Measure on a cluster.")
@click.option("-j", "--jobs", type=int, default=0, help="Threads that a run of the model may use. [default: all]")
@click.option("--select", multiple=True, metavar="HOW", help="Which samples, as qcompile takes it (repeatable).")
@click.option("--limit", type=int, metavar="N", help="Take at most N samples of each data set.")
@click.option("--preprocessing", metavar="FILE|TEXT", help="How images become inputs.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything drawn at random.")
@click.option("--cache-dir", type=_FOLDER, help="Cache. [default: the user's cache folder]")
@click.option("--cache/--no-cache", default=True, help="Keep and reuse what was measured.")
@as_json_option
@traceback_option
def command(
    metric: str, list_metrics: bool, samples: int | None, rounding: str | None, output: Path | None,
    picture: Path | None, workers: int, executor: str | None, as_json: bool, traceback: bool, **options: Any,
) -> None:  # fmt: skip
    """Rank the layers of MODEL by what its outputs lose when one of them follows a candidate format.

    Layers that must agree are one group. The model is made ready as qcompile does it, but for --effort.
    """
    del traceback
    from qcompiler.analysis.sensitivity import metric_named
    from qcompiler.cli.progress import progress_bars
    from qcompiler.cli.sensitivity_tables import show_estimates, show_question, show_result
    from qcompiler.driver.executors import check_executor, executor_of
    from qcompiler.driver.options import CompileOptions
    from qcompiler.driver.sensitivity import question, result_json
    from qcompiler.report.words import count_text

    metric_named(metric)
    check_executor(executor, workers)
    _check_files(output, picture)
    with progress_bars(quiet=False) as progress:
        asked = question(CompileOptions(**options), rounding, progress)
        estimates = asked.estimates(samples)
    _warn(asked.warnings)
    if list_metrics and as_json:
        print_json(estimates)
        return
    if not as_json:
        show_question(asked, executor or (count_text(workers, "worker") if workers else "this process"))
        show_estimates(estimates, "" if list_metrics else metric)
    if list_metrics:
        return
    with progress_bars(quiet=False) as progress, executor_of(executor, workers) as opened:
        asked.ctx.progress = progress or asked.ctx.progress
        found = asked.answer(metric, samples, opened)
    _write(asked, found, output, picture)
    if as_json:
        print_json(result_json(asked, found))
    else:
        show_result(asked, found)


def _warn(texts: Iterable[str]) -> None:
    for text in texts:
        click.secho("warning: ", fg="yellow", bold=True, err=True, nl=False)
        click.echo(text, err=True)


def _check_files(output: Path | None, picture: Path | None) -> None:
    """Refuse what cannot be written before anything is measured."""
    from qcompiler.driver.files import check_writable
    from qcompiler.report.sensitivity_plot import check_plot

    if picture is not None:
        check_plot(picture)
    for path in (output, picture):
        if path is not None:
            check_writable(path)


def _write(asked: Question, found: Sensitivity, output: Path | None, picture: Path | None) -> None:
    from qcompiler.driver.files import write_bytes, write_text
    from qcompiler.driver.sensitivity import result_json
    from qcompiler.report.sensitivity_plot import plot

    if output is not None:
        write_text(output, json.dumps(result_json(asked, found), indent=2, ensure_ascii=False) + "\n")
    if picture is not None:
        title = f"{asked.source.stem} on {asked.target.name}: {found.metric}, {found.samples} samples"
        write_bytes(picture, plot(found.losses, title, picture.suffix.lower().lstrip(".")))
