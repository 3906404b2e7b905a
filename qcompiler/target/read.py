"""From plain tables (what TOML gives) to the dataclasses of the schema, with messages that name the key.

The keys of a table are the fields of its dataclass; how a field is read follows from its annotation, so a new
field of the schema needs no code here.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from qcompiler.errors import TargetError, UsageError, nearest
from qcompiler.quant.format import QFormat
from qcompiler.target.cost import CostFacts
from qcompiler.target.integer import IntegerArithmetic
from qcompiler.target.schema import SCHEMA, Constraints, OperatorRule, Target

__all__ = ["target_from_table"]

Table = Mapping[str, Any]
Record = TypeVar("Record")

_OUTSIDE = frozenset({"schema", "defaults"})
_DERIVED = frozenset({"source", "lineage"})


def target_from_table(table: Table, source: str, lineage: tuple[str, ...] = ()) -> Target:
    """Build the target that a resolved table (no ``extends`` left) describes.

    Args:
        table: The top-level table.
        source: The file, for messages.
        lineage: Names of the profiles that were merged in.

    Raises:
        TargetError: A key or value is wrong; ``where`` is ``file: table.key``.
    """
    try:
        _check_schema(table)
        defaults = _table(table.get("defaults", {}), "defaults")
        _check_keys(defaults, _fields(OperatorRule) - {"operator", "note", "tables"}, "defaults")
        operators = {
            name: _operator(name, _table(rule, f"operators.{name}"), defaults)
            for name, rule in _table(table.get("operators", {}), "operators").items()
        }
        own = {key: value for key, value in table.items() if key not in _OUTSIDE}
        own["operators"] = operators
        _check_keys(own, _fields(Target) - _DERIVED, "")
        return _build(Target, own, "", source=source, lineage=lineage)
    except TargetError as error:
        where = f"{source}: {error.where}" if error.where else source
        raise TargetError(error.message, where=where, hint=error.hint) from error


def _check_schema(table: Table) -> None:
    found = table.get("schema")
    if found is None:
        raise TargetError("the schema version is missing", where="schema", hint=f"write schema = {SCHEMA} first")
    if type(found) is not int or found != SCHEMA:
        raise TargetError(f"schema {found!r} is not known", where="schema", hint=f"this version reads schema {SCHEMA}")


def _operator(name: str, table: Table, defaults: Table) -> OperatorRule:
    where = f"operators.{name}"
    _check_operator_name(name, where)
    _check_keys(table, _fields(OperatorRule) - {"operator"}, where)
    merged = {key: value for key, value in defaults.items() if _applies(key, table, defaults)} | dict(table)
    if "channel" not in defaults.get("granularity", ["channel"]):
        merged.pop("tables", None)  # a scale per row is one per channel
    for index, fused in enumerate(merged.get("fuse", ()) if isinstance(merged.get("fuse"), list) else ()):
        if isinstance(fused, str):
            _check_operator_name(fused, f"{where}.fuse[{index}]")
    return _build(OperatorRule, merged, where, operator=name)


def _applies(key: str, table: Table, defaults: Table) -> bool:
    """Defaults about weights and biases concern only operators that read some."""
    roles = table.get("inputs", defaults.get("inputs", ()))
    if key in ("weights", "granularity", "block_sizes", "weight_only", "weight_only_blocks"):
        return "weight" in roles
    return key != "bias" or "bias" in roles


@functools.cache
def _operator_names() -> frozenset[str]:
    import onnx.defs

    return frozenset(schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == "")


def _check_operator_name(name: str, where: str) -> None:
    if ":" not in name and name not in _operator_names():
        hint = nearest(name, _operator_names()) or "write domain:Type for a custom operator"
        raise TargetError(f"'{name}' is not an ONNX operator", where=where, hint=hint)


def _check_keys(table: Table, known: frozenset[str], where: str) -> None:
    for key in table:
        if key not in known:
            place = f"{where}.{key}" if where else key
            hint = nearest(key, known) or f"known keys: {', '.join(sorted(known))}"
            raise TargetError(f"unknown key '{key}'", where=place, hint=hint)


def _fields(record: type[Any]) -> frozenset[str]:
    return frozenset(item.name for item in dataclasses.fields(record))


def _table(value: Any, where: str) -> Table:
    if not isinstance(value, Mapping):
        raise TargetError(f"{value!r} is not a table", where=where)
    return value


def _build(record: type[Record], table: Table, where: str, **given: object) -> Record:
    """Read every key of ``table`` by the annotation of its field, then construct."""
    annotations = typing.get_type_hints(record)
    required = [
        item.name
        for item in dataclasses.fields(record)  # type: ignore[arg-type]
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    ]
    for name in required:
        if name not in table and name not in given:
            raise TargetError("a required key is missing", where=f"{where}.{name}" if where else name)
    values = {key: _read(value, annotations[key], f"{where}.{key}" if where else key) for key, value in table.items()}
    try:
        return record(**values, **given)
    except TargetError as error:
        place = ".".join(part for part in (where, error.where) if part)
        raise TargetError(error.message, where=place, hint=error.hint) from error


def _read(value: Any, annotation: Any, where: str) -> Any:
    """``value`` as what ``annotation`` asks for."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        options = [item for item in arguments if item is not types.NoneType]
        return _read(value, options[0], where) if len(options) == 1 else _plain(value, where)
    if origin is tuple:
        return _tuple(value, arguments, where)
    if origin is not None and issubclass(origin, Mapping):
        return types.MappingProxyType(
            {key: _read(item, arguments[1], f"{where}.{key}") for key, item in _table(value, where).items()}
        )
    return _single(value, annotation, where)


def _single(value: Any, annotation: Any, where: str) -> Any:
    if annotation in (Constraints, CostFacts, IntegerArithmetic):
        _check_keys(_table(value, where), _fields(annotation), where)
        return _build(annotation, value, where)
    if annotation is OperatorRule:
        return value
    if annotation is QFormat:
        return _format(value, where)
    if isinstance(annotation, type) and issubclass(annotation, enum.StrEnum):
        return _member(value, annotation, where)
    return _SIMPLE[annotation](value, where)


def _tuple(value: Any, arguments: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise TargetError(f"{value!r} is not a list", where=where, hint=f"write [{value!r}]")
    if arguments[-1] is not Ellipsis and len(value) != len(arguments):
        raise TargetError(f"{len(value)} entries where {len(arguments)} belong", where=where)
    items = tuple(_read(item, arguments[0], f"{where}[{index}]") for index, item in enumerate(value))
    if arguments[-1] is Ellipsis and len(set(items)) != len(items) and arguments[0] in (QFormat, str, int):
        raise TargetError("an entry is listed twice", where=where)
    return items


def _format(value: Any, where: str) -> QFormat:
    if not isinstance(value, str):
        raise TargetError(f"{value!r} is not a format", where=where, hint='write e.g. "u8" or "i8/sym"')
    try:
        return QFormat.parse(value)
    except UsageError as error:
        raise TargetError(error.message, where=where, hint=error.hint) from error


def _member(value: Any, annotation: type[enum.StrEnum], where: str) -> enum.StrEnum:
    known = [str(item) for item in annotation]
    if value not in known:
        hint = nearest(value, known) if isinstance(value, str) else None
        raise TargetError(f"{value!r} is none of {', '.join(known)}", where=where, hint=hint)
    return annotation(value)


def _plain(value: Any, where: str) -> bool | int | float | str:
    if not isinstance(value, bool | int | float | str):
        raise TargetError(f"{value!r} is not a number or a text", where=where)
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise TargetError(f"{value!r} is not a text", where=where)
    return value


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise TargetError(f"{value!r} is not true or false", where=where)
    return value


def _integer(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TargetError(f"{value!r} is not a whole number", where=where)
    return value


def _number(value: Any, where: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TargetError(f"{value!r} is not a number", where=where)
    try:
        return float(value)
    except OverflowError as error:
        raise TargetError("a number of that many digits is none of a machine", where=where) from error


_SIMPLE: dict[Any, Callable[[Any, str], Any]] = {str: _text, bool: _flag, int: _integer, float: _number}
