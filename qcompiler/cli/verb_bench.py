"""``qcompiler bench MODEL…``."""

from __future__ import annotations

import click

from qcompiler.cli.guard import GuardedCommand, traceback_option
from qcompiler.cli.show import ISAS, as_json_option, print_json

__all__ = ["command"]

_EPILOG = """\b
One file with and without our kernels:
  qcompiler bench m.onnx m.onnx --provider stock --provider qcompiler
The best file of a stock runtime against ours, at one and at two threads, with the time of every node:
  qcompiler bench m.cpu-x86.onnx m.lowbit-cpu.onnx --provider stock --provider qcompiler --threads 1 --threads 2 --nodes
Exit codes: 0 done, 1 failed (a model cannot be run, the native library is not installed), 2 usage (unknown provider,
instruction set that this machine lacks, numbers that do not fit), 130 interrupted."""


@click.command("bench", cls=GuardedCommand, short_help="Time models in turns.", epilog=_EPILOG)
@click.argument("models", nargs=-1, required=True)
@click.option(
    "--provider",
    "providers",
    multiple=True,
    default=("stock",),
    metavar="stock|qcompiler",
    help="Who runs the models: ONNX Runtime alone, or with our kernels. One for all models, or one per "
    "model in their order. [default: stock]",
)
@click.option("--isa", metavar="NAME", help=f"Instruction set of our kernels: {ISAS}. [default: the best here]")
@click.option("--data", metavar="DATA", help="Time on the first sample of DATA. [default: made-up numbers]")
@click.option(
    "--threads",
    type=click.IntRange(min=1, max=1024),
    multiple=True,
    default=(1,),
    help="Threads of each run; several make several tables. [default: 1]",
)
@click.option(
    "--budget", type=click.FloatRange(min=0, min_open=True), default=3.0, show_default=True, help="Seconds per model."
)
@click.option(
    "--processor-time",
    is_flag=True,
    help="Time runs on one thread by processor time: for a machine that does other things too.",
)
@click.option("--nodes", is_flag=True, help="Say which provider ran which node, and how long.")
@as_json_option
@traceback_option
def command(
    models: tuple[str, ...], providers: tuple[str, ...], isa: str | None, data: str | None, threads: tuple[int, ...],
    budget: float, processor_time: bool, nodes: bool, as_json: bool, traceback: bool,
) -> None:  # fmt: skip
    """Time MODELS in turns in ONNX Runtime; the first is what the others are compared with."""
    del traceback
    from qcompiler.analysis.bench import bench
    from qcompiler.analysis.contestants import contestants
    from qcompiler.cli.bench_tables import show
    from qcompiler.driver.source import find

    entries = contestants([find(model).path for model in models], providers, isa)
    feed = None
    if data is not None:
        from qcompiler.calibration import data as samples
        from qcompiler.ir import io

        feed = next(iter(samples.load(data, samples.inputs_of(io.load(entries[0].path)), limit=1)))
    rows = bench(entries, feed, threads=threads, budget=budget, nodes=nodes, processor_time=processor_time)
    if as_json:
        print_json(rows)
    else:
        show(rows)
