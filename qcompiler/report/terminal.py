"""The report on a terminal: the result in one line, then tables, at most a screenful for an ordinary model."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath
from typing import TYPE_CHECKING

from qcompiler.report.accumulators import summary
from qcompiler.report.cost import cost_text, widths_text
from qcompiler.report.layout import named, paragraphs, styled, table_of
from qcompiler.report.model import Report
from qcompiler.report.terminal_formats import formats_section
from qcompiler.report.words import bytes_text, count_text, figure_text, milliseconds, percent, speed_text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from qcompiler.report.measured import CoveragePart, FloatNodePart, IntegerPart, OutputPart, QualityPart

__all__ = ["terminal"]

_OUTPUTS, _OPERATORS, _REASONS, _LAYERS = 6, 8, 4, 5
_ISLANDS, _NAMES = 3, 6
_LEVELS = ((30.0, "green"), (15.0, "yellow"), (float("-inf"), "red"))


def terminal(report: Report, console: Console) -> None:
    """Print a summary. ``rich`` leaves out colours where ``console`` is no terminal, and folds to its width."""
    _headline(report, console)
    _data(report, console)
    if report.quality is not None:
        _quality(report, report.quality, console)
    if report.coverage is not None:
        _coverage(report.coverage, console)
    if report.integer is not None:
        _integer(report.integer, console)
    if report.accumulators is not None and (line := summary(report.accumulators)):
        console.print(paragraphs([("  accumulators: ", "green", line)]))
    if report.formats is not None:
        formats_section(report.formats, console)
    _recipe(report, console)
    _cost(report, console)
    _notices(report, console)


def _headline(report: Report, console: Console) -> None:
    mark, style = ("✓", "bold green") if report.passed else ("✗", "bold red")
    facts = [_result(report.quality)] if report.quality is not None else []
    facts.append(f"{report.size.ratio:.2f} × smaller" if report.size.ratio >= 1 else "larger than before")
    if report.timing.latency is not None:
        facts.append(speed_text(report.timing.latency.speedup.value))
    verdict = "" if report.passed else " (gates missed)"
    console.print(styled(
        (f"{mark} {PurePath(report.compiled.name).name}", style),
        (f" for {report.target.name}{verdict}: ", ""),
        (", ".join(fact for fact in facts if fact), "bold"),
    ))
    if report.coverage is not None and (mixed := report.coverage.mixed):
        console.print(paragraphs([("  mixed: ", "dim", f"{mixed} layers")]))
    if not report.kept:
        console.print(styled(("  nothing was written: the result misses a gate", "red")))


def _data(report: Report, console: Console) -> None:
    """What became of the calibration data, such as how many samples a selection left; silent where all were taken."""
    data = report.calibration
    if data is None or not data.notes:
        return
    fitted = f"fitted on {count_text(data.samples, 'sample')}: {PurePath(data.source).name or data.source}"
    console.print()
    console.print(styled(("Data", "bold"), (f"     {fitted}", "dim")))
    console.print(paragraphs([("  ", "", note) for note in data.notes]))


def _result(quality: QualityPart) -> str:
    if quality.value is None:
        return ""
    unit = f" {quality.unit}" if quality.unit else ""
    return f"{quality.metric} {figure_text(quality.value, quality.metric)}{unit}"


# -- quality -----------------------------------------------------------------------------------------------


def _quality(report: Report, quality: QualityPart, console: Console) -> None:
    console.print()
    console.print(styled(("Quality", "bold"), (f"  against the float model, on {_samples(report, quality)}", "dim")))
    table = table_of("output", "SQNR dB", "cosine", "worst", "KL", "agree %", "max error")
    labelled = any(output.top1 is not None for output in quality.outputs)
    custom = any(output.custom is not None for output in quality.outputs)
    for name, shown in (("top-1 % (float)", labelled), (quality.metric, custom)):
        if shown:
            table.add_column(name, justify="right", no_wrap=True)
    for output in quality.outputs[:_OUTPUTS]:
        cells: list[RenderableType] = [named(output.name), *_figures(output)]
        cells += [_top1(output)] if labelled else []
        cells += [figure_text(output.custom)] if custom else []
        table.add_row(*cells)
    console.print(table)
    if len(quality.outputs) > _OUTPUTS:
        console.print(styled((f"  … and {len(quality.outputs) - _OUTPUTS} more outputs", "dim")))
    _layers(quality, console)


def _samples(report: Report, quality: QualityPart) -> str:
    words = count_text(quality.samples, "sample")
    data = report.evaluation
    if data is None:
        return words
    source = PurePath(data.source).name or data.source
    return f"{words} held out from {source}" if data.held_out else f"{words} of {source}"


def _figures(output: OutputPart) -> list[RenderableType]:
    if output.exact is not None:
        return [f"{percent(output.exact)} equal", "", "", "", "", ""]
    likeness = [figure_text(output.cosine, "cosine"), figure_text(output.cosine_min, "worst")]
    # Decisions of an output that is no classifier's mean little: they step back.
    style = "" if output.kind == "classes" else "dim"
    decisions = [styled((figure_text(value, name), style)) for name, value in _decisions(output)]
    return [_decibels(output.sqnr), *likeness, *decisions, figure_text(output.max_abs_error)]


def _decisions(output: OutputPart) -> tuple[tuple[str, float | None], ...]:
    return (("kl", output.kl), ("agreement", output.agreement))


def _top1(output: OutputPart) -> str:
    if output.top1 is None or output.top1_float is None:
        return "–"
    return f"{output.top1:.2f} ({output.top1_float:.2f})"


def _layers(quality: QualityPart, console: Console) -> None:
    """The worst layers; silent where the worst of them is as good as the float model."""
    layers = {layer.value: layer for layer in quality.layers}
    worst = [layers[name] for name in quality.worst_layers if name in layers][:_LAYERS]
    if not worst:
        return
    on = count_text(quality.layer_samples, "sample")
    console.print(styled(("  worst of ", "dim"), (f"{len(layers)} layers", "dim"), (f", on {on}", "dim")))
    table = table_of("layer", "operator", "SQNR dB", indent=4, header=False)
    for layer in worst:
        table.add_row(named(layer.node, 4), named(layer.op_type, 0), _decibels(layer.sqnr))
    console.print(table)


# -- coverage ----------------------------------------------------------------------------------------------


def _coverage(coverage: CoveragePart, console: Console) -> None:
    total = coverage.integer_nodes + coverage.float_nodes
    work = f"{percent(coverage.share_macs)} of the multiply-accumulates, " if coverage.share_macs is not None else ""
    console.print()
    what, column = ("Weights", "few bits") if coverage.weights_only else ("Integer", "integer")
    real = "; activations stay real" if coverage.weights_only else ""
    console.print(styled((what, "bold"), (f"  {work}{coverage.integer_nodes} of {total} nodes{real}", "dim")))
    table = table_of("operator", column, "float", "work %")
    everything = sum(item.integer_macs + item.float_macs for item in coverage.by_operator)
    # Where the list is cut, operators with work and operators that stayed float are what the reader looks for.
    rows = sorted(coverage.by_operator, key=lambda item: (item.integer_macs + item.float_macs == 0, item.float == 0))
    for item in rows[:_OPERATORS]:
        share = (item.integer_macs + item.float_macs) / everything if everything else 0.0
        left = styled((str(item.float), "yellow" if item.float else "dim"))
        table.add_row(named(item.op_type), str(item.integer), left, _share(share))
    console.print(table)
    if more := len(rows[_OPERATORS:]):
        console.print(styled((f"  … and {more} more operator{'s' if more > 1 else ''}", "dim")))
    _reasons(coverage, console)


def _integer(integer: IntegerPart, console: Console) -> None:
    """One line where everything inside is integer; where not, what is not and why."""
    inside = count_text(integer.float_tensors, "float tensor")
    verdict = ("  integer-only: ", "green") if integer.holds else ("  not integer-only: ", "yellow")
    lines = [(*verdict, f"{inside} inside")]
    for island in integer.islands[:_ISLANDS]:
        why = f": {'; '.join(island.reasons[:2])}" if island.reasons else ""
        lines.append(("  float inside: ", "yellow", f"{_nodes(island.nodes)}{why}"))
    if more := len(integer.islands[_ISLANDS:]):
        lines.append(("", "", f"… and {more} more island{'s' if more > 1 else ''} (--report has all)"))
    named = (("divides inside: ", integer.divisions), ("float attributes: ", integer.float_attributes),
             ("not integer: ", integer.functions))  # fmt: skip
    lines += [(f"  {head}", "yellow", ", ".join(items[:_NAMES])) for head, items in named if items]
    around = (("float before: ", integer.before), ("float after: ", integer.after))
    lines += [(f"  {head}", "dim", _nodes(nodes)) for head, nodes in around if nodes]
    console.print(paragraphs(lines))


def _nodes(nodes: tuple[FloatNodePart, ...]) -> str:
    more = f", … {len(nodes) - _NAMES} more" if len(nodes) > _NAMES else ""
    return ", ".join(f"{node.name} ({node.op_type})" for node in nodes[:_NAMES]) + more


def _share(share: float) -> str:
    return percent(100 * share).removesuffix(" %") if share else ""


def _reasons(coverage: CoveragePart, console: Console) -> None:
    groups = Counter((item.op_type, item.reason) for item in coverage.fallbacks).most_common()
    lines = [("  float: ", "yellow", f"{count} × {op_type}: {reason}") for (op_type, reason), count in groups]
    console.print(paragraphs(lines[:_REASONS]))
    if more := len(lines[_REASONS:]):
        console.print(styled((f"  … and {more} more reason{'s' if more > 1 else ''} (--report has all)", "dim")))


# -- what was tried ----------------------------------------------------------------------------------------


def _recipe(report: Report, console: Console) -> None:
    """What was tried and measured, and what became of it; what had nothing to do is only counted."""
    trials = [trial for item in report.passes for trial in item.trials]
    measured = [(trial, seconds) for trial, seconds in zip(trials, report.timing.trials, strict=False)
                if trial.after is not None]  # fmt: skip
    if not measured:
        _untried(report, console)
        return
    others = (("had nothing to do", "nothing to do"), ("would add nodes", "adds"))
    counts = [(sum(trial.reason.startswith(start) for trial in trials), words) for words, start in others]
    more = "".join(f"; {count} {words}" for count, words in counts if count)
    console.print()
    console.print(styled(
        ("Recipe", "bold"), (f"  relative squared output error on samples left out{more}", "dim"),
    ))
    table = table_of("passes", "before", "after", "seconds", "")
    for trial, seconds in measured:
        verdict = styled(("kept", "green")) if trial.kept else styled(("rejected", "dim"))
        table.add_row(named(trial.text), f"{trial.before:.3g}", f"{trial.after:.3g}", f"{seconds:.1f}", verdict)
    console.print(table)


def _untried(report: Report, console: Console) -> None:
    """Why nothing was tried, where a pass says so: a user who asked for effort would believe it was made."""
    notes = [note.text for item in report.passes for note in item.notes if note.text.startswith("nothing was tried")]
    if notes:
        console.print()
        console.print(styled(("Recipe", "bold"), (f"  {notes[0]}", "yellow")))


# -- size, speed, notices ----------------------------------------------------------------------------------


def _cost(report: Report, console: Console) -> None:
    console.print()
    size = report.size
    console.print(styled(
        ("Size", "bold"), (f"     {bytes_text(size.float_bytes)} → {bytes_text(size.compiled_bytes)}", ""),
    ))
    latency = report.timing.latency
    if latency is not None:
        threads = count_text(latency.threads, "thread")
        between = f"{latency.speedup.low:.2f} to {latency.speedup.high:.2f}"
        console.print(styled(
            ("Latency", "bold"),
            (f"  {milliseconds(latency.float.median)} → {milliseconds(latency.quantized.median)}", ""),
            (f"  {latency.speedup.value:.2f} × the speed ({between}), here, {threads}", "dim"),
        ))
    if report.cost is not None:
        least = "at least " if report.cost.unknown else ""
        console.print(styled(
            ("Cost", "bold"), (f"     {least}{milliseconds(report.cost.milliseconds)} predicted", ""),
            (f"  {cost_text(report.cost)}", "dim"),
        ))
        if text := widths_text(report.cost):
            console.print(styled((f"  {text}", "")))
    if report.timing.seconds:
        console.print(styled(("Time", "bold"), (f"     {report.timing.seconds:.1f} s", "")))


def _notices(report: Report, console: Console) -> None:
    groups = (
        ("not measured: ", "dim", [f"{item.what}: {item.why}" for item in report.unmeasured]),
        ("warning: ", "bold yellow", list(report.all_warnings)),
        ("gate missed: ", "bold red", list(report.gates.misses)),
    )
    if any(texts for _, _, texts in groups):
        console.print()
    for head, style, texts in groups:
        if texts:
            console.print(paragraphs([(head, style, text) for text in texts]))


def _decibels(value: float | None) -> RenderableType:
    if value is None:
        return "–"
    style = next(style for level, style in _LEVELS if value >= level)
    return styled((figure_text(value, "sqnr"), style))
