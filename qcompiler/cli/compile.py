"""``qcompile MODEL --target T``: the compiler driver. Options become ``CompileOptions``; no logic lives here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from qcompiler.cli.config import read_config
from qcompiler.cli.guard import GuardedCommand, NearChoice, traceback_option
from qcompiler.driver.options import CALIBRATION_METHODS, EFFORTS, LOWERINGS, VERIFY_LEVELS

__all__ = ["main"]

_FILE = click.Path(dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)

_EPILOG = """\b
Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 a gate is not met, 130 interrupted.
--pareto without --budget is done when plans are written, --budget that no plan keeps is usage.
Samples to try: qcompile digits_cnn --target edge-npu"""


@click.command(cls=GuardedCommand, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model")
@click.option("-t", "--target", required=True, metavar="NAME|FILE", help="Shipped profile or a profile of your own.")
@click.option("-c", "--calibration", metavar="DATA",
              help="Samples to fit on: .npz, folder, generator:FILE.py:FUNCTION, none (synthesised), random.")
@click.option("--select", multiple=True, metavar="HOW",
              help="Which of them: outliers (left out), clusters:N (one of each), stratify:INPUT[:N] (repeatable).")
@click.option("-e", "--evaluation", metavar="DATA", help="Samples to judge by. [default: held out from calibration]")
@click.option("-f", "--format", metavar="FORMAT", help="Such as w4a8, or w4: weights only. [default: the profile's]")
@click.option("--candidates", metavar="A,B,…", help="Formats to choose among, within --budget.")
@click.option("--budget", metavar="WHAT=N,…",
              help="What the result may take: size=0.25x, size=500kB, latency=2ms, bops=…, memory=…, loss=0.05.")
@click.option("--sensitivity", metavar="NAME", help="Metric of the predicted loss of a layer. [default: measured]")
@click.option("--pairs", is_flag=True, help="Measure what neighbouring layers lose together, too.")
@click.option("--exempt", metavar="RULE,…",
              help="Layers that keep the widest candidate: first-last, tiny, spikes. [default: none]")
@click.option("--pareto", type=_FILE,
              help="Write plans for other budgets; without --budget, plans for all sizes and no model.")
@click.option("--lowering", type=NearChoice(*LOWERINGS), help="Form of the quantized graph. [default: the profile's]")
@click.option("-o", "--output", type=_FILE, help="Compiled model. [default: MODEL.TARGET.onnx]")
@click.option("--exclude", multiple=True, metavar="NAME|TYPE|re:…", help="Leave nodes in float (repeatable).")
@click.option("--pipeline", metavar="TEXT|FILE|NAME", help="Passes to run. [default: default]")
@click.option("--plan", type=_FILE, help="Apply the decisions of a plan.json; what it leaves open follows --format.")
@click.option("--plan-out", type=_FILE, help="Write the decisions.")
@click.option("--report", type=_FILE, help="Write the report as JSON.")
@click.option("--depfile", type=_FILE, help="Write the files that were read, in Make syntax.")
@click.option("--metric", metavar="NAME",
              help="Figure to report first, and of --budget loss: sqnr, cosine, kl, agreement, top1, or a plugin's. "
                   "[default: sqnr; of --budget loss: kl, cosine of embeddings]")
@click.option("--calibration-method", "--observer", type=NearChoice(*CALIBRATION_METHODS),
              help="Observer of activations. [default: the pipeline's]")
@click.option("--bias-correction/--no-bias-correction", default=True, help="Correct biases where it measures a gain.")
@click.option("--effort", type=NearChoice(*EFFORTS), default="normal", show_default=True,
              help="How much is tried to lower the loss; kept is what gains.")
@click.option("--min-sqnr", type=float, metavar="DB", help="Gate: least SQNR of an output.")
@click.option("--min-agreement", type=float, metavar="PERCENT", help="Gate: least agreement with the float model.")
@click.option("--max-fallback", type=float, metavar="PERCENT", help="Gate: greatest share of the work in float.")
@click.option("--keep", is_flag=True, help="Keep the output although a gate is not met.")
@click.option("--verify", type=NearChoice(*VERIFY_LEVELS), default="facts", show_default=True,
              help="What is checked after each pass.")
@click.option("--cost-table", type=_FILE, help="Predict latency from a table of 'qcompiler profile'.")
@click.option("--latency/--no-latency", default=True, help="Measure latency where the target is this machine.")
@click.option("--bisect", is_flag=True, help="Name the pass after which the metric fell.")
@click.option("--dump-dir", type=_FOLDER, help="Write the model as text after each pass that changed it.")
@click.option("--repro-dir", type=_FOLDER, help="Where to write a reproducer, should a pass fail.")
@click.option("--limit", type=int, metavar="N", help="Take at most N samples of each data set.")
@click.option("--preprocessing", metavar="FILE|TEXT", help="How images become inputs.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything drawn at random.")
@click.option("--cache-dir", type=_FOLDER, help="Calibration cache. [default: the user's cache folder]")
@click.option("--cache/--no-cache", default=True, help="Keep and reuse calibration results.")
@click.option("-j", "--jobs", type=int, default=0, help="Threads that a run of the model may use. [default: all]")
@click.option("--workers", type=int, default=0, metavar="N",
              help="Processes that measure what --candidates lose. [default: this one]")
@click.option("--executor", metavar="dask://HOST:PORT|ray|ray://HOST:PORT", help="Measure that on a cluster.")
@click.option("--plugin", "plugins", multiple=True, type=_FILE, help="Python file with passes or metrics (repeatable).")
@click.option("--config", type=_FILE, is_eager=True, expose_value=False, callback=read_config,
              help="Options from a TOML file; the command line wins.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors and warnings.")
@click.option("--json", "as_json", is_flag=True, help="Write the report as JSON to standard output.")
@traceback_option
@click.version_option(package_name="qcompiler", prog_name="qcompile")
def main(quiet: bool, as_json: bool, traceback: bool, **options: Any) -> None:
    """Compile a float ONNX MODEL into a quantized one for a target, and prove that it still works.

    MODEL is an ONNX file, or the name of a shipped sample, which brings its own data.
    """
    del traceback  # read by the guard
    from qcompiler.cli.session import compile_and_show
    from qcompiler.driver.options import CompileOptions

    compile_and_show(CompileOptions(**options), quiet=quiet, as_json=as_json)
