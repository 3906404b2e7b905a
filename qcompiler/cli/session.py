"""One compile on the command line: echo, progress, summary."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

from qcompiler.cli.progress import progress_bars
from qcompiler.driver.options import CompileOptions
from qcompiler.errors import GateError

if TYPE_CHECKING:
    from qcompiler.driver.job import Job
    from qcompiler.report import Report

__all__ = ["compile_and_show"]

_FILE_WIDTH = 110
"""Columns of the summary where it goes to a file or a log."""


def compile_and_show(options: CompileOptions, *, quiet: bool, as_json: bool) -> None:
    """Compile and show the report.

    The configuration in force goes to standard output before the work starts (to standard error with ``--json``,
    which keeps standard output for the report).

    Raises:
        QCompilerError: The compile failed or missed a gate; the report of the latter has been shown.
    """
    from qcompiler.api import compile_with

    def announce(job: Job) -> None:
        if not quiet:
            _echo(job.effective(), to_stderr=as_json)

    if options.front_alone:
        _front_and_show(options, announce, quiet=quiet, as_json=as_json)
        return
    try:
        with progress_bars(quiet=quiet) as progress:
            report = compile_with(options, progress=progress, announce=announce).report
    except GateError as error:
        if error.report is not None:
            _show(error.report, quiet=quiet, as_json=as_json)
        raise
    _show(report, quiet=quiet, as_json=as_json)


def _front_and_show(
    options: CompileOptions, announce: Callable[[Job], None], *, quiet: bool, as_json: bool
) -> None:
    """Plans for all sizes, and no model."""
    from qcompiler.api import front_with
    from qcompiler.cli.front_table import show_front

    with progress_bars(quiet=quiet) as progress:
        found = front_with(options, progress=progress, announce=announce)
    if as_json:
        click.echo(found.text, nl=False)
    elif not quiet:
        show_front(found)
    _warn(found.warnings)


def _warn(texts: Iterable[str]) -> None:
    for text in texts:
        click.secho("warning: ", fg="yellow", bold=True, err=True, nl=False)
        click.echo(text, err=True)


def _echo(configuration: dict[str, str], *, to_stderr: bool) -> None:
    width = max(len(name) for name in configuration)
    for name, text in configuration.items():
        click.secho(f"{name:<{width}}  ", dim=True, nl=False, err=to_stderr)
        click.echo(text, err=to_stderr)
    click.echo(err=to_stderr)


def _show(report: Report, *, quiet: bool, as_json: bool) -> None:
    if as_json:
        click.echo(report.to_json(), nl=False)
    if quiet or as_json:
        _warn(report.all_warnings)
        return
    from rich.console import Console

    from qcompiler.report.terminal import terminal

    console = Console()
    terminal(report, console if console.is_terminal else Console(width=_FILE_WIDTH))
