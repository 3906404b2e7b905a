"""``qcompiler passes [NAME]``."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qcompiler.cli.guard import GuardedCommand, traceback_option
from qcompiler.cli.show import as_json_option, pairs, print_json, table

if TYPE_CHECKING:
    from qcompiler.pipeline.base import Pass

__all__ = ["command"]

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("passes", cls=GuardedCommand, short_help="List or describe passes and pipelines.")
@click.argument("name", required=False)
@click.option("--plugin", "plugins", multiple=True, type=_FILE, help="Python file with passes (repeatable).")
@as_json_option
@traceback_option
def command(name: str | None, plugins: tuple[Path, ...], as_json: bool, traceback: bool) -> None:
    """List passes and named pipelines, or describe the pass NAME and its options."""
    del traceback
    from qcompiler.driver.plugins import load_plugins

    load_plugins(plugins)
    if name is None:
        _list(as_json)
    else:
        _describe(name, as_json)


def _list(as_json: bool) -> None:
    from qcompiler.pipeline import registry, spec

    passes = [_facts(cls) for cls in registry.known().values()]
    pipelines = [{"name": item.name, "title": item.title, "text": item.text} for item in spec.named().values()]
    if as_json:
        print_json({"passes": passes, "pipelines": pipelines})
        return
    passes.sort(key=lambda item: (item["family"], item["name"]))
    table(("pass", "family", "what it does"), [(item["name"], item["family"], item["summary"]) for item in passes])
    click.echo()
    rows = [(item["name"], item["text"].replace(",", ", "), item["title"]) for item in pipelines]
    table(("pipeline", "passes", "what it is for"), rows)


def _describe(name: str, as_json: bool) -> None:
    facts = _facts(_find(name))
    if as_json:
        print_json(facts)
        return
    click.echo(f"{facts['name']}: {facts['summary']}\n")
    if facts["description"]:
        click.echo(f"{facts['description']}\n")
    lines = [(key, ", ".join(facts[key])) for key in ("requires", "before", "provides", "invalidates") if facts[key]]
    pairs([("family", facts["family"]), *lines, ("preserves", facts["preserves"])])
    if facts["options"]:
        click.echo()
        columns = ("option", "default", "takes")
        table(columns, [(item["name"], item["default"], item["takes"]) for item in facts["options"]])


def _find(name: str) -> type[Pass]:
    from qcompiler.errors import UsageError, nearest
    from qcompiler.pipeline import registry, spec

    found = registry.find(name)
    if found is None and name in spec.named():
        raise UsageError(f"'{name}' is a pipeline, not a pass", hint="'qcompiler passes' says which passes it runs")
    if found is None:
        hint = nearest(name, registry.known()) or "'qcompiler passes' lists them"
        raise UsageError(f"there is no pass '{name}'", hint=hint)
    return found


def _facts(cls: type[Pass]) -> dict[str, Any]:
    """Everything a user may want to know about a pass, JSON-ready."""
    from qcompiler.pipeline import registry
    from qcompiler.pipeline.options import describe

    summary, _, description = inspect.cleandoc(cls.__doc__ or "").replace("``", "'").partition("\n\n")
    hints = typing.get_type_hints(cls)
    return {
        "name": cls.name,
        "family": registry.family(cls),
        "summary": " ".join(summary.split()),
        "description": description,
        "requires": sorted(cls.requires),
        "before": sorted(cls.before),
        "provides": sorted(cls.provides),
        "invalidates": sorted(cls.invalidates),
        "preserves": cls.preserves.value,
        "options": [
            {"name": field.name, "default": _default_text(field), "takes": describe(hints[field.name])}
            for field in dataclasses.fields(cls)
            if field.init
        ],
    }


def _default_text(field: dataclasses.Field[Any]) -> str:
    value = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    return str(getattr(value, "value", value))
