"""``qcompiler targets [NAME]``."""

from __future__ import annotations

import click

from qcompiler.cli.guard import GuardedCommand, traceback_option
from qcompiler.cli.show import as_json_option, pairs, print_json, table

__all__ = ["command"]


@click.command("targets", cls=GuardedCommand, short_help="List or describe targets.")
@click.argument("name", required=False)
@as_json_option
@traceback_option
def command(name: str | None, as_json: bool, traceback: bool) -> None:
    """List the targets, or say what one takes: NAME is a shipped profile or a profile file."""
    del traceback
    if name is None:
        _list(as_json)
    else:
        _describe(name, as_json)


def _list(as_json: bool) -> None:
    from qcompiler.target.load import load, names
    from qcompiler.target.runs_here import runs_here

    targets = [load(name) for name in names()]
    rows = [
        {
            "name": target.name,
            "title": target.title,
            "default_format": target.default_format,
            "formats": list(target.formats),
            "runs_here": runs_here(target)[0],
        }
        for target in targets
    ]
    if as_json:
        print_json(rows)
        return
    table(
        ("target", "formats (default first)", "speed here", "what it is"),
        [
            (
                target.name,
                " ".join(sorted(target.formats, key=lambda item: item != target.default_format)),
                "yes" if runs_here(target)[0] else "no",
                target.title,
            )
            for target in targets
        ],
    )


def _describe(name: str, as_json: bool) -> None:
    from qcompiler.target.load import load
    from qcompiler.target.words import describe

    words = describe(load(name))
    if as_json:
        print_json(words)
        return
    click.echo(f"{words.name}: {words.title}\n")
    if words.description:
        click.echo(f"{words.description}\n")
    pairs(words.facts)
    click.echo()
    columns = ("operator", "runs on integers", "scale", "activations", "weights", "rules")
    rows = words.operators
    table(columns, [(r.operator, r.place, r.kind, r.activations, r.weights, "; ".join(r.rules)) for r in rows])
