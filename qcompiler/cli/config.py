"""``--config FILE``: options in TOML under their command-line names; the command line wins.

Paths in the file are relative to the folder of the file, so that it works from anywhere.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click

from qcompiler.errors import nearest

__all__ = ["read_config"]

_OUTPUTS = frozenset({"output", "report", "plan_out", "depfile", "dump_dir", "repro_dir", "cache_dir", "pareto"})
_INPUTS = frozenset(
    {"model", "target", "calibration", "evaluation", "pipeline", "plan", "plugins", "preprocessing", "cost_table"}
)
_LISTS = frozenset({"exclude", "plugins", "select"})
_UNWANTED = frozenset({"config", "help", "version", "traceback"})


def read_config(ctx: click.Context, _param: click.Parameter, path: Path | None) -> Path | None:
    """Click callback: make the values of the file the defaults of the command.

    Raises:
        click.UsageError: The file cannot be read or names what is no option.
    """
    if path is None:
        return None
    known = _known(ctx.command)
    values: dict[str, Any] = {}
    for key, value in _read(path).items():
        name = known.get(key.replace("_", "-"))
        if name is None:
            hint = nearest(key, known) or f"known: {', '.join(sorted(known))}"
            raise click.UsageError(f"{path}: '{key}' is not an option; {hint}")
        values[name] = _value(name, key, value, path)
    ctx.default_map = values
    return path


def _known(command: click.Command) -> dict[str, str]:
    """Parameter name by every word that may stand in the file."""
    known: dict[str, str] = {}
    for parameter in command.params:
        name = str(parameter.name)
        if name in _UNWANTED:
            continue
        known[name.replace("_", "-")] = name
        known |= {word[2:]: name for word in parameter.opts if word.startswith("--")}
    return known


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise click.UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise click.UsageError(f"{path}: not TOML: {error}") from error


def _value(name: str, key: str, value: Any, path: Path) -> Any:
    if name in _LISTS:
        items = value if isinstance(value, list) else [value]
        return [_path(name, item, path) for item in items]
    if isinstance(value, list | dict):
        raise click.UsageError(f"{path}: '{key}' takes one value")
    return _path(name, value, path)


def _path(name: str, value: Any, path: Path) -> Any:
    """``value`` as seen from the folder of the file, where it names a file."""
    if not isinstance(value, str):
        return value
    beside = path.parent / value
    if name in _OUTPUTS:
        return str(beside)
    # A target, a pipeline or a sample may be a bare name; it is a path where there is such a file.
    return str(beside) if name in _INPUTS and beside.exists() else value
