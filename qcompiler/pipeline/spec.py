"""Pipelines as text, as TOML and as passes: three forms of one value.

Text::

    normalize,calibrate{method=mse bins=2048},place-qdq

TOML::

    [[pass]]
    name = "calibrate"
    method = "mse"
    bins = 2048

A name may also be that of a pipeline in ``passes/pipelines``; it stands for the passes in it.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcompiler.errors import PipelineError, nearest
from qcompiler.pipeline.base import Pass
from qcompiler.pipeline.grammar import item_text, parse_items
from qcompiler.pipeline.options import Plain, changed, make
from qcompiler.pipeline.registry import find, known

__all__ = ["NamedPipeline", "from_toml", "named", "parse", "resolve", "to_text", "to_toml"]


@dataclass(frozen=True, slots=True)
class NamedPipeline:
    """A pipeline that ships with the compiler.

    Attributes:
        name: Its name, for use in pipeline text.
        title: What it is for, in one line.
        text: Its passes as they are written in its file, names of other pipelines not expanded.
        path: Its file.
    """

    name: str
    title: str
    text: str
    path: Path


def parse(text: str) -> tuple[Pass, ...]:
    """Passes of a pipeline text.

    Raises:
        PipelineError: The text is malformed, or names unknown passes (all of them are listed) or options.
    """
    return _build(parse_items(text))


def to_text(passes: Iterable[Pass]) -> str:
    """Text of a pipeline; options appear where they differ from their defaults. The inverse of ``parse``."""
    return ",".join(item_text(pass_.name, changed(pass_)) for pass_ in passes)


def from_toml(source: str | Path) -> tuple[Pass, ...]:
    """Passes of a pipeline in TOML.

    Args:
        source: The TOML text, or the ``Path`` of a file.

    Raises:
        PipelineError: The file is missing or malformed, or names unknown passes or options.
    """
    return _build(_toml_items(source)[1])


def to_toml(passes: Iterable[Pass]) -> str:
    """TOML of a pipeline; the inverse of ``from_toml``."""
    blocks = []
    for pass_ in passes:
        lines = ["[[pass]]", f"name = {_toml_value(pass_.name)}"]
        lines += [f"{key} = {_toml_value(_spell(value))}" for key, value in changed(pass_).items()]
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def resolve(request: str) -> tuple[Pass, ...]:
    """What ``--pipeline`` means: a TOML file by its name, else pipeline text (which may name shipped pipelines)."""
    return from_toml(Path(request)) if request.endswith(".toml") else parse(request)


def named() -> dict[str, NamedPipeline]:
    """Pipelines that ship with the compiler, by name."""
    from qcompiler import passes

    folder = Path(str(passes.__file__)).parent / "pipelines"
    found = {}
    for path in sorted(folder.glob("*.toml")):
        title, items = _toml_items(path)
        found[path.stem] = NamedPipeline(path.stem, title, ",".join(item_text(*item) for item in items), path)
    return found


def _build(items: list[tuple[str, dict[str, Plain]]], inside: tuple[str, ...] = ()) -> tuple[Pass, ...]:
    """Passes from names and options, named pipelines expanded."""
    classes = {name: find(name) for name, _ in items}
    shipped = named() if None in classes.values() else {}
    unknown = [name for name, cls in classes.items() if cls is None and name not in shipped]
    if unknown:
        hints = [hint for name in unknown if (hint := nearest(name, {*known(), *shipped}))]
        raise PipelineError(
            f"there is no pass named {', '.join(repr(name) for name in unknown)}", where="pipeline",
            hint=" ".join(hints) or "'qcompiler passes' lists them",
        )
    passes: list[Pass] = []
    for name, options in items:
        if (cls := classes[name]) is not None:
            passes.append(make(cls, options))
        elif options:
            raise PipelineError(f"'{name}' is a pipeline and takes no options", where="pipeline")
        elif name in inside:
            raise PipelineError(f"pipeline '{name}' contains itself", where="pipeline")
        else:
            passes += _build(_toml_items(shipped[name].path)[1], (*inside, name))
    return tuple(passes)


def _toml_items(source: str | Path) -> tuple[str, list[tuple[str, dict[str, Plain]]]]:
    """Title, names and options of a pipeline in TOML."""
    where = str(source) if isinstance(source, Path) else "pipeline"
    try:
        data = tomllib.loads(source.read_text(encoding="utf-8") if isinstance(source, Path) else source)
    except OSError as error:
        raise PipelineError(f"the pipeline file cannot be read: {error.strerror}", where=where) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PipelineError(f"not TOML: {error}", where=where) from error
    extra = set(data) - {"pass", "title"}
    if extra:
        raise PipelineError(f"unknown key '{min(extra)}'", where=where, hint="a pipeline has 'title' and [[pass]]")
    items = []
    for table in data.get("pass", ()):
        if not isinstance(table, dict) or not isinstance(table.get("name"), str):
            raise PipelineError("a [[pass]] has no name", where=where)
        options = {key: _unspell(value) for key, value in table.items() if key != "name"}
        items.append((table["name"], options))
    if not items:
        raise PipelineError("the pipeline is empty", where=where, hint="add [[pass]] tables")
    return str(data.get("title", "")), items


def _spell(value: Plain) -> Plain:
    """TOML has no null: ``none`` is written as that word, and a text that could be taken for it is quoted twice."""
    if isinstance(value, list):
        return [item for item in map(_spell, value) if not isinstance(item, list)]
    if value is None:
        return "none"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) and _needs_quotes(value) else value


def _unspell(value: Any) -> Plain:
    if isinstance(value, list):
        return [item for item in map(_unspell, value) if not isinstance(item, list)]
    if value == "none":
        return None
    return str(json.loads(value, strict=False)) if isinstance(value, str) and _needs_quotes(value) else value


def _needs_quotes(value: str) -> bool:
    return value == "none" or (len(value) > 1 and value[0] == value[-1] == '"')


def _toml_value(value: Plain) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    # JSON strings are TOML strings, but for the one control character that JSON does not escape.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f") if isinstance(value, str) else repr(value)
