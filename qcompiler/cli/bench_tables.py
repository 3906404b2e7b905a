"""A benchmark as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qcompiler.cli.show import bytes_text, table

if TYPE_CHECKING:
    from qcompiler.analysis.bench import BenchRow
    from qcompiler.analysis.node_profile import NodeTime

__all__ = ["show"]

_LONGEST = 15
_COLUMNS = (
    "model", "provider", "median", "minimum", "speedup (95 %)", "file", "integer nodes", "float nodes",
    "conversions left",
)  # fmt: skip


def show(rows: Sequence[BenchRow]) -> None:
    """Write a table per number of threads and, where nodes were profiled, two per model."""
    names = _names({row.path for row in rows})
    counts = list(dict.fromkeys(row.threads for row in rows))
    for count in counts:
        title = f"{count} thread{'s' if count > 1 else ''}" if len(counts) > 1 else None
        table(_COLUMNS, (_cells(row, names) for row in rows if row.threads == count), title=title)
    for text in dict.fromkeys(_stock_after_all(row, names) for row in rows if row.provider != "stock"):
        if text:
            click.echo(text)
    for row in rows:
        if row.nodes is not None:
            _show_nodes(row, row.nodes)


def _stock_after_all(row: BenchRow, names: Mapping[Path, str]) -> str:
    """What a reader must know of a model that our kernels were asked to run and did not."""
    if row.native_nodes:
        return ""
    way_out = "compile it for a target of our kernels: qcompile --target lowbit-cpu"
    return f"note: none of the nodes of {names[row.path]} ran in our kernels, all in ONNX Runtime's; {way_out}"


def _names(paths: set[Path]) -> dict[Path, str]:
    """File names where they are enough to tell the models apart, whole paths where not."""
    short = {path: path.name for path in paths}
    return short if len(set(short.values())) == len(paths) else {path: str(path) for path in paths}


def _cells(row: BenchRow, names: Mapping[Path, str]) -> tuple[str, ...]:
    where = f"{row.provider} ({row.isa})" if row.isa is not None else row.provider
    return (
        names[row.path],
        where,
        _time(1000 * row.timing.median),
        _time(1000 * row.timing.minimum),
        f"{row.speedup.value:.2f} × ({row.speedup.low:.2f} to {row.speedup.high:.2f})",
        bytes_text(row.bytes),
        str(row.integer_nodes),
        str(row.float_nodes),
        str(row.conversions),
    )


def _show_nodes(row: BenchRow, nodes: Sequence[NodeTime]) -> None:
    from qcompiler.analysis.node_profile import by_operator

    threads = f"{row.threads} thread{'s' if row.threads > 1 else ''}"
    click.echo()
    operators = (
        (item.op_type, item.provider, str(item.nodes), *_figures(item.microseconds, item.share))
        for item in by_operator(nodes)
    )
    title = f"{row.path} on {row.provider}, {threads}: {len(nodes)} nodes"
    table(("operator", "ran on", "nodes", "time", "share"), operators, title=title)
    longest = sorted(nodes, key=lambda node: -node.microseconds)[:_LONGEST]
    table(("longest nodes", "operator", "ran on", "time", "share"), _rows(longest))
    if len(nodes) > len(longest):
        click.echo(f"… and {len(nodes) - len(longest)} more nodes (--json has all)")


def _rows(nodes: Iterable[NodeTime]) -> Iterable[tuple[str, ...]]:
    return ((node.name, node.op_type, node.provider, *_figures(node.microseconds, node.share)) for node in nodes)


def _figures(microseconds: float, share: float) -> tuple[str, str]:
    return _time(microseconds), f"{100 * share:.1f} %"


def _time(microseconds: float) -> str:
    return f"{microseconds:.3g} µs" if microseconds < 100 else f"{microseconds / 1000:.3g} ms"
