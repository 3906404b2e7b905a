"""Find, merge and read target profiles.

A profile is TOML. ``extends`` names a shipped profile or a file beside the extending one; tables merge key by
key, lists and values of the extending file replace inherited ones, and ``remove`` takes inherited operators away.
A profile is untrusted input: it is only parsed, its size and the length of the chain are bounded.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from qcompiler.errors import TargetError, nearest
from qcompiler.target.read import target_from_table
from qcompiler.target.schema import Target

__all__ = ["load", "names"]

MAXIMUM_BYTES = 1 << 20
MAXIMUM_DEPTH = 8


def names() -> list[str]:
    """Names of the shipped profiles, sorted."""
    folder = resources.files("qcompiler.targets")
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def load(name_or_path: str | Path) -> Target:
    """Load a profile: a shipped one by name, or a file (anything with a separator or ending in ``.toml``).

    Raises:
        TargetError: No such profile, or what it says is wrong; names file, table and key.
    """
    table, chain = _resolve(str(name_or_path), None, ())
    return target_from_table(table, chain[0][0], tuple(name for _, name in chain[1:]))


def _resolve(
    reference: str, folder: Path | None, above: tuple[str, ...]
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The merged table of ``reference`` and the chain of (source, name) it came from, nearest first."""
    source, data, beside = _open(reference, folder, above)
    if source in above:
        raise TargetError(f"extends itself: {' → '.join((*above, source))}", where=f"{above[-1]}: extends")
    if len(above) >= MAXIMUM_DEPTH:
        raise TargetError(f"more than {MAXIMUM_DEPTH} profiles extend one another", where=f"{source}: extends")
    table = _parse(data, source)
    name = str(table.get("name", reference))
    base = table.pop("extends", None)
    removed = _removed(table.pop("remove", []), source)
    if base is None:
        if removed:
            raise TargetError("nothing is inherited that could be removed", where=f"{source}: remove")
        return table, [(source, name)]
    if not isinstance(base, str) or not base:
        raise TargetError(f"{base!r} is not the name of a profile", where=f"{source}: extends")
    inherited, chain = _resolve(base, beside, (*above, source))
    _remove(inherited, removed, source)
    return _merge(inherited, table), [(source, name), *chain]


def _open(reference: str, folder: Path | None, above: tuple[str, ...]) -> tuple[str, bytes, Path | None]:
    """Source (for messages), content and folder of a reference."""
    where = f"{above[-1]}: extends" if above else None
    if "/" in reference or "\\" in reference or reference.endswith(".toml"):
        path = Path(reference) if folder is None else folder / reference
        if above and folder is None:
            raise TargetError(f"a shipped profile extends the file '{reference}'", where=where)
        return _read_file(path, where)
    if reference not in names():
        known = nearest(reference, names()) or f"shipped profiles: {', '.join(names())}"
        hint = f"{known} (a file: ./{reference}.toml)"
        raise TargetError(f"no target is called '{reference}'", where=where, hint=hint)
    resource = resources.files("qcompiler.targets") / f"{reference}.toml"
    return f"targets/{reference}.toml", resource.read_bytes(), None


def _read_file(path: Path, where: str | None) -> tuple[str, bytes, Path]:
    try:
        if not path.is_file():
            raise TargetError(f"'{path}' is not a file", where=where, hint="a shipped profile goes by its bare name")
        if path.stat().st_size > MAXIMUM_BYTES:
            raise TargetError(f"a profile has at most {MAXIMUM_BYTES} bytes", where=str(path))
        return str(path.resolve()), path.read_bytes(), path.resolve().parent
    except (OSError, ValueError) as error:
        raise TargetError(f"'{path}' cannot be read: {error}", where=where) from error


def _parse(data: bytes, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise TargetError("the profile is not UTF-8 text", where=source) from error
    except tomllib.TOMLDecodeError as error:
        raise TargetError(f"the profile is not TOML: {error}", where=source) from error
    except RecursionError as error:
        raise TargetError("the profile nests too deeply", where=source) from error


def _removed(value: Any, source: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TargetError(f"{value!r} is not a list of operators", where=f"{source}: remove")
    return value


def _remove(table: dict[str, Any], operators: list[str], source: str) -> None:
    rules = table.get("operators", {})
    for operator in operators:
        if not isinstance(rules, dict) or operator not in rules:
            known = rules if isinstance(rules, dict) else ()
            hint = nearest(operator, known)
            raise TargetError(f"'{operator}' is not inherited", where=f"{source}: remove", hint=hint)
        del rules[operator]


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with what ``over`` says: tables merge, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        inherited = merged.get(key)
        both = isinstance(inherited, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(inherited, value) if both else value  # type: ignore[arg-type]
    return merged
