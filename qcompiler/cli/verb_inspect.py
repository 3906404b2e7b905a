"""``qcompiler inspect MODEL``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from qcompiler.cli.guard import GuardedCommand, traceback_option
from qcompiler.cli.show import as_json_option, bytes_text, pairs, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qcompiler.analysis.integer_only import FloatNode, IntegerOnly
    from qcompiler.analysis.summary import ModelSummary, Port, QuantizedPart

__all__ = ["command"]


@click.command("inspect", cls=GuardedCommand, short_help="Show what a model is.")
@click.argument("model")
@as_json_option
@traceback_option
def command(model: str, as_json: bool, traceback: bool) -> None:
    """Show what MODEL is: interface, operators, size, what is quantized."""
    del traceback
    from qcompiler.analysis.summary import summarize
    from qcompiler.driver.source import find

    summary = summarize(Path(find(model).path))
    if as_json:
        print_json(summary)
    else:
        pairs(_lines(summary))


def _lines(summary: ModelSummary) -> list[tuple[str, str]]:
    lines = [("model", summary.path)]
    lines += [("producer", summary.producer)] if summary.producer else []
    opsets = ", ".join(f"{domain} {version}" for domain, version in summary.opsets.items())
    lines.append(("version", f"IR {summary.ir_version}, opset {opsets}"))
    lines += [("input", _port_text(port)) for port in summary.inputs]
    lines += [("output", _port_text(port)) for port in summary.outputs]
    lines.append(("operators", ", ".join(f"{name} {count}" for name, count in summary.operators.items())))
    types = ", ".join(f"{name} {bytes_text(size)}" for name, size in summary.weight_types.items())
    lines.append(("weights", f"{summary.parameters:,} elements, {bytes_text(summary.weight_bytes)} ({types})"))
    lines.append(("file", bytes_text(summary.file_bytes)))
    if summary.batch_norms:
        lines.append(("batch norms", f"{summary.batch_norms} (the compiler folds them)"))
    lines += [("functions", str(summary.functions))] if summary.functions else []
    lines.append(("quantized", _quantized_text(summary.quantized)))
    lines += [] if summary.integer_only is None else _integer_lines(summary.integer_only)
    return lines


def _integer_lines(found: IntegerOnly) -> list[tuple[str, str]]:
    from qcompiler.report.words import count_text

    inside = count_text(len(found.tensors), "float tensor")
    lines = [("integer-only", f"{'yes' if found.holds else 'no'}: {inside} inside")]
    lines += [("float inside", _names(island.nodes)) for island in found.islands]
    wrong = (*found.divisions, *found.attributes, *found.functions)
    lines += [("not integer", ", ".join(wrong))] if wrong else []
    around = (("float before", _names(found.head)), ("float after", _names(found.tail)))
    return [*lines, *((head, text) for head, text in around if text)]


def _names(nodes: Sequence[FloatNode]) -> str:
    return ", ".join(f"{node.name} ({node.op_type})" for node in nodes)


def _port_text(port: Port) -> str:
    shape = "unknown shape" if port.shape is None else f"[{', '.join(map(str, port.shape))}]"
    return f"{port.name}: {port.dtype} {shape}"


def _quantized_text(part: QuantizedPart | None) -> str:
    if part is None:
        return "no"
    found = [f"{count} {name} weights" for name, count in part.weights.items()]
    found += [f"{count} {name} activations" for name, count in part.activations.items()]
    found += [f"{count} {name}" for name, count in part.integer_operators.items()]
    return f"{', '.join(found)}; {part.quantize} QuantizeLinear, {part.dequantize} DequantizeLinear"
