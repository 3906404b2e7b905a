"""Report ↔ JSON, and the JSON Schema, all derived from the dataclasses.

JSON is strict: no NaN or infinity, floats with at most 7 significant digits (more would be noise of the last bit),
keys in the order of the fields.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import math
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from qcompiler.errors import UsageError
from qcompiler.report.model import SCHEMA, Report

__all__ = ["SCHEMA_FILE", "decode", "encode", "from_json", "json_schema", "to_json"]

SCHEMA_FILE = Path(__file__).with_name("schema.json")
"""The JSON Schema of the report."""

_DIGITS = 7
_T = TypeVar("_T")


def to_json(report: Report) -> str:
    """The report as JSON text, two spaces of indentation, with a final newline."""
    values = encode(report)
    ordered = {"schema": values.pop("schema"), **values}
    return json.dumps(ordered, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str) -> Report:
    """Read a report.

    Raises:
        UsageError: The text is no report of this schema; says where.
    """
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"not a report: {error}") from error
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        found = values.get("schema") if isinstance(values, dict) else None
        raise UsageError(f"not a report of schema {SCHEMA}: schema is {found}")
    return decode(Report, values, "report")


def encode(value: Any) -> Any:
    """Dataclasses, tuples and mappings as what ``json`` writes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: encode(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    return value


def decode(kind: type[_T], value: Any, where: str) -> _T:
    """A value of ``kind`` from what ``json`` read.

    Raises:
        UsageError: It does not fit.
    """
    result: _T = _decode(kind, value, where)
    return result


def _decode(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _decode(next(item for item in arguments if item is not type(None)), value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_decode(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {key: _decode(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and type(value) is kind:
        return value
    raise UsageError(f"{where}: {value!r:.60} does not fit")


def _decode_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise UsageError(f"{where}: {value!r:.60} is not a table")
    hints = _hints(kind)
    if unknown := sorted(set(value) - set(hints)):
        raise UsageError(f"{where}: unknown keys {', '.join(unknown)}")
    if missing := [name for name in _required(kind) if name not in value]:
        raise UsageError(f"{where}: missing keys {', '.join(missing)}")
    return kind(**{name: _decode(hints[name], item, f"{where}.{name}") for name, item in value.items()})


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _required(kind: Any) -> list[str]:
    empty = dataclasses.MISSING
    return [
        item.name for item in dataclasses.fields(kind) if item.default is empty and item.default_factory is empty
    ]


# -- schema ------------------------------------------------------------------------------------------------


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the report; ``schema.json`` holds it."""
    definitions: dict[str, Any] = {}
    root = _schema(Report, definitions)
    definitions["Report"]["properties"]["schema"]["const"] = SCHEMA
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "qcompiler report"}
    return {**head, **root, "$defs": dict(sorted(definitions.items()))}


def _schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if dataclasses.is_dataclass(kind):
        return _schema_of_dataclass(kind, definitions)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [_schema(item, definitions) for item in arguments]}
    if origin is tuple:
        return {"type": "array", "items": _schema(arguments[0], definitions)}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions)}
    names = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
    return {"type": names[kind]}


def _schema_of_dataclass(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    name = kind.__name__
    if name not in definitions:
        definitions[name] = {}  # a placeholder: a dataclass may hold itself
        summary, texts = _documentation(kind)
        properties = {
            field: _schema(hint, definitions) | ({"description": texts[field]} if field in texts else {})
            for field, hint in _hints(kind).items()
        }
        definitions[name] = {
            "description": summary,
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }
    return {"$ref": f"#/$defs/{name}"}


def _documentation(kind: Any) -> tuple[str, dict[str, str]]:
    """The summary of a docstring and its ``Attributes`` section."""
    text = inspect.getdoc(kind) or ""
    head, _, tail = text.partition("Attributes:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", tail, re.MULTILINE)
    return " ".join(head.split()), {name: " ".join(body.split()) for name, body in entries}
