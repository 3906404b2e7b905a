"""How a summary is laid out: styled lines, paragraphs with a head, tables without borders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

__all__ = ["named", "paragraphs", "styled", "table_of"]

_LEFT: Final = ("operator", "bits")
"""Columns of words and of bars; all others hold figures."""


def styled(*parts: tuple[str, str]) -> Text:
    """A line of parts, each a text and its style."""
    from rich.text import Text

    return Text.assemble(*parts)


def paragraphs(lines: list[tuple[str, str, str]]) -> Table:
    """Paragraphs with a styled head; what does not fit a line goes on below its own text."""
    from rich.table import Table

    grid = Table.grid()
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for head, style, text in lines:
        grid.add_row(styled((head, style)), styled((text, "")))
    return grid


def named(name: str, indent: int = 2) -> Text:
    """A name from the model: never taken for markup, whatever is in it."""
    return styled((" " * indent + name, ""))


def table_of(first: str, *others: str, indent: int = 2, header: bool = True) -> Table:
    """A borderless table: names on the left, which may be cut, figures on the right, which may not."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=header, header_style="dim", pad_edge=False)
    # The indentation is part of the first column, so that nothing is lost where the terminal is narrow.
    table.add_column(" " * indent + first, overflow="ellipsis", no_wrap=True, max_width=44)
    for name in others:
        table.add_column(name, justify="left" if name in _LEFT else "right", no_wrap=True)
    return table
