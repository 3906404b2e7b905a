"""``qcompiler diff A B``, ``qcompiler diff --bitwise A [B]``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from qcompiler.cli.guard import GuardedCommand, traceback_option
from qcompiler.cli.progress import progress_bars
from qcompiler.cli.show import ISAS, as_json_option, pairs, print_json, table

if TYPE_CHECKING:
    from pathlib import Path

    from qcompiler.analysis.bitwise import BitRow, Bitwise
    from qcompiler.analysis.diff import Diff
    from qcompiler.analysis.quality import Quality
    from qcompiler.calibration.data import Dataset

__all__ = ["command"]


@click.command("diff", cls=GuardedCommand, short_help="Compare two models.")
@click.argument("first", metavar="A")
@click.argument("second", metavar="[B]", required=False)
@click.option("-d", "--data", metavar="DATA", help="Samples to run both on; without them only structure is compared.")
@click.option("--metric", default="sqnr", show_default=True, metavar="NAME", help="Figure of the outputs that matters.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Take at most N samples.")
@click.option("--preprocessing", metavar="FILE|TEXT", help="How images become inputs.")
@click.option("--bitwise", "bits", is_flag=True, help="Compare outputs bit for bit; a difference ends with code 3.")
@click.option("--interpreter", is_flag=True, help="With --bitwise: run B (by default A again) in the interpreter.")
@click.option("--provider", default="stock", show_default=True, metavar="NAME",
              help="With --bitwise: what runs A, stock or qcompiler (our native kernels).")
@click.option("--isa", metavar="NAME", help=f"With --provider qcompiler: instruction set of the kernels: {ISAS}.")
@click.option("--codes", is_flag=True, help="With --bitwise: also the integers that become outputs.")
@click.option("--batch", type=click.IntRange(min=1), metavar="N", help="With --bitwise: samples per run. [default: 1]")
@click.option("--all", "every", is_flag=True, help="List every layer, in graph order.")
@as_json_option
@traceback_option
def command(
    first: str,
    second: str | None,
    data: str | None,
    metric: str,
    limit: int | None,
    preprocessing: str | None,
    bits: bool,
    interpreter: bool,
    provider: str,
    isa: str | None,
    codes: bool,
    batch: int | None,
    every: bool,
    as_json: bool,
    traceback: bool,
) -> None:
    """Compare B with A (usually the float model): structure and, given data, outputs and layers.

    With --bitwise outputs must be equal to the last bit: those of two models, or those of one model in ONNX Runtime,
    with our native kernels, and in the interpreter, which defines what integer graphs compute.
    """
    del traceback
    from qcompiler.driver.source import find

    if bits:
        pair = find(first).path, None if second is None else find(second).path
        choices = {"interpreter": interpreter, "provider": provider, "isa": isa, "codes": codes, "batch": batch or 1}
        _bitwise(*pair, _samples(pair[0], data, preprocessing, limit), choices, as_json)
        return
    only_bits = {"--interpreter": interpreter, "--codes": codes, "--batch": batch is not None}
    _refuse(second, {**only_bits, "--provider": provider != "stock", "--isa": isa is not None})
    from qcompiler.analysis.diff import diff
    from qcompiler.analysis.quality import metric as metric_called

    chosen = metric_called(metric)
    one, two = find(first).path, find(str(second)).path
    dataset = _samples(one, data, preprocessing, limit)
    with progress_bars(quiet=as_json) as progress:
        result = diff(one, two, dataset, metric=chosen, progress=progress)
    if as_json:
        print_json(result)
    else:
        _show(result, every)


def _refuse(second: str | None, given: dict[str, bool]) -> None:
    """What only makes sense with --bitwise."""
    from qcompiler.errors import UsageError

    for option, is_given in given.items():
        if is_given:
            raise UsageError(f"{option} needs --bitwise")
    if second is None:
        raise UsageError("diff needs two models", hint="or one with --bitwise --interpreter")


def _samples(path: Path, data: str | None, preprocessing: str | None, limit: int | None) -> Dataset | None:
    if data is None:
        return None
    from qcompiler.calibration import data as samples
    from qcompiler.ir import io

    return samples.load(data, samples.inputs_of(io.load(path)), preprocessing=preprocessing, limit=limit)


def _bitwise(
    first: Path, second: Path | None, dataset: Dataset | None, choices: dict[str, Any], as_json: bool
) -> None:
    from qcompiler.analysis.bitwise import bitwise
    from qcompiler.errors import GateError, UsageError

    if dataset is None:
        raise UsageError("--bitwise needs samples", hint="give --data DATA")
    with progress_bars(quiet=as_json) as progress:
        result = bitwise(first, second, dataset, progress=progress, **choices)
    if as_json:
        print_json(result)
    else:
        _show_bits(result)
    if not result.equal:
        raise GateError(f"{result.mismatches:,} elements differ between {result.first} and {result.second}")


def _show_bits(result: Bitwise) -> None:
    columns = ("tensor", "is", "type", "elements", "differ", "largest difference", "first difference")
    rows = [
        (
            row.name, row.kind if row.judged else f"{row.kind}, by float nodes: not judged", row.dtype,
            f"{row.elements:,}", f"{row.mismatches:,}", "" if not row.mismatches else _figure(row.largest, "", 9),
            _place(row),
        )
        for row in result.rows
    ]  # fmt: skip
    pairs([("first", result.first), ("second", result.second), ("samples", str(result.samples))])
    click.echo()
    table(columns, rows)


def _place(row: BitRow) -> str:
    if row.first is None or row.values is None:
        return ""
    return f"{list(row.first)}: {row.values[0]} and {row.values[1]}"


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
