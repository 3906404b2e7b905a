"""Tables and JSON for the toolbox: the same data, for people or for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import click

__all__ = ["ISAS", "as_json_option", "bytes_text", "pairs", "print_json", "table"]

ISAS: Final = "auto, reference, avx2, avx512vnni, neon, dotprod"
"""What ``--isa`` takes, as far as the processor has it."""


def as_json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Write JSON.")(function)


def print_json(data: Any) -> None:
    """Write data, dataclasses included, as JSON to standard output."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False, default=_plain))


def _plain(item: Any) -> Any:
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        return dataclasses.asdict(item)
    return str(item)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None) -> None:
    """Write a table to standard output, as wide as the terminal or as the text where there is none."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    console = Console()
    if not console.is_terminal:
        console.width = 160
    console.print(grid)


def pairs(items: Iterable[tuple[str, str]]) -> None:
    """Write aligned name and value lines."""
    listed = list(items)
    width = max((len(name) for name, _ in listed), default=0)
    for name, value in listed:
        click.echo(f"{name:<{width}}  {value}")


def bytes_text(count: int) -> str:
    """A size for people: ``156 kB``, ``25.6 MB``."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
