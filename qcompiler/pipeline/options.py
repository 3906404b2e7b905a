"""Options of a pass: dataclass fields ↔ text, checked against their annotations.

Text of a value: ``true false``, numbers, bare words, ``"quoted strings"`` (JSON escapes) where a bare word would be
misread, ``none``, and tuples as ``a,b,c`` (``()`` when empty). Enums are written by value.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from qcompiler.errors import PipelineError, nearest
from qcompiler.pipeline.base import Pass

__all__ = ["Plain", "changed", "describe", "make", "plain_of_text", "text_of_plain"]

Scalar: TypeAlias = "bool | int | float | str | None"
Plain: TypeAlias = "Scalar | list[Scalar]"
"""What TOML and the text form can say: scalars, and lists of them."""

_BARE = re.compile(r"[A-Za-z_./*:+-][\w./*:+-]*|\d[\w./*:+-]*[A-Za-z_/*:][\w./*:+-]*")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|inf|nan)")
_WORDS: Mapping[str, bool | None] = {"true": True, "false": False, "none": None}


def make(cls: type[Pass], given: Mapping[str, Plain]) -> Pass:
    """An instance of ``cls`` with the given options.

    Raises:
        PipelineError: An option is unknown, or its value does not fit the annotation.
    """
    fields = {field.name for field in dataclasses.fields(cls) if field.init}
    hints = typing.get_type_hints(cls)
    options: dict[str, Any] = {}
    for key, value in given.items():
        name = key.replace("-", "_")
        if name not in fields:
            known = ", ".join(sorted(fields)) or "it has none"
            raise PipelineError(
                f"pass '{cls.name}' has no option '{key}'", where="pipeline",
                hint=nearest(name, fields) or f"its options: {known}",
            )
        try:
            options[name] = _convert(value, hints[name])
        except (ValueError, TypeError):
            raise PipelineError(
                f"option '{key}' of pass '{cls.name}' cannot be {text_of_plain(value)}", where="pipeline",
                hint=f"it takes {describe(hints[name])}",
            ) from None
    try:
        return cls(**options)
    except ValueError as error:  # checks of the pass itself
        raise PipelineError(f"pass '{cls.name}': {error}", where="pipeline") from error


def changed(pass_: Pass) -> dict[str, Plain]:
    """Options that differ from their defaults, in order of declaration."""
    found: dict[str, Plain] = {}
    for field in dataclasses.fields(pass_):
        default = field.default if field.default is not dataclasses.MISSING else None
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        value = getattr(pass_, field.name)
        if field.init and (value != default or type(value) is not type(default)):
            found[field.name] = _plain(value)
    return found


def describe(hint: Any) -> str:
    """An annotation in words for a user."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return " | ".join(str(item) for item in arguments)
    if origin in (typing.Union, types.UnionType):
        return " | ".join("none" if item is type(None) else describe(item) for item in arguments)
    if origin is tuple:
        return f"{describe(arguments[0])},…" if arguments[1:] == (...,) else ",".join(map(describe, arguments))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return " | ".join(str(item.value) for item in hint)
    names = {bool: "true | false", int: "an integer", float: "a number", str: "text", Path: "a path"}
    return names.get(hint, str(hint))


def text_of_plain(value: Plain) -> str:
    """The text form of one option value."""
    if isinstance(value, list):
        return ",".join(text_of_plain(item) for item in value) + ("," if len(value) == 1 else "") if value else "()"
    if value is None or isinstance(value, bool):
        return next(word for word, meaning in _WORDS.items() if meaning is value)
    if isinstance(value, str):
        ambiguous = value in _WORDS or _NUMBER.fullmatch(value) is not None
        return value if _BARE.fullmatch(value) and not ambiguous else json.dumps(value, ensure_ascii=False)
    return repr(value)


def plain_of_text(text: str) -> Scalar:
    """The meaning of one bare or quoted word.

    Raises:
        ValueError: A quoted string is malformed.
    """
    if text.startswith('"'):
        return str(json.loads(text, strict=False))
    if text in _WORDS:
        return _WORDS[text]
    if _NUMBER.fullmatch(text):
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)
    return text


def _plain(value: Any) -> Plain:
    if isinstance(value, tuple):
        return [typing.cast("Scalar", _plain(item)) for item in value]
    if isinstance(value, enum.Enum):
        return typing.cast("Scalar", value.value)
    return str(value) if isinstance(value, Path) else typing.cast("Scalar", value)


def _convert(value: Any, hint: Any) -> Any:
    """``value`` as what the annotation says.

    Raises:
        ValueError: It does not fit.
        TypeError: The annotation is not supported.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return next(item for item in [*arguments, _NOTHING] if _matches(item, value))
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, arguments)
    if origin is tuple:
        items = value if isinstance(value, list) else [value]
        kinds = [arguments[0]] * len(items) if arguments[1:] == (...,) else list(arguments)
        return tuple(_convert(item, kind) for item, kind in zip(items, kinds, strict=True))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return next(item for item in [*hint, _NOTHING] if _matches(getattr(item, "value", item), value))
    return _convert_scalar(value, hint)


_NOTHING: Any = object()


def _matches(candidate: Any, value: Any) -> bool:
    """Whether ``value`` names ``candidate``; the end of the list raises."""
    if candidate is _NOTHING:
        raise ValueError(value)
    return bool(candidate == value) and isinstance(candidate, bool) == isinstance(value, bool)


def _convert_union(value: Any, arguments: tuple[Any, ...]) -> Any:
    if value is None and type(None) in arguments:
        return None
    for argument in arguments:
        if argument is not type(None):
            try:
                return _convert(value, argument)
            except ValueError:
                continue
    raise ValueError(value)


def _convert_scalar(value: Any, hint: Any) -> Any:
    accepted: dict[Any, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (int, float), str: (str,), Path: (str,)}
    if hint not in accepted:
        raise TypeError(f"annotation {hint} is not supported")
    if not isinstance(value, accepted[hint]) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(value)
    return hint(value)
