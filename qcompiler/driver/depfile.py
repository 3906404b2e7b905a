"""Dependencies of a compiled model in Make syntax, for builds that must rebuild when an input changes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

__all__ = ["depfile_text"]


def depfile_text(output: Path, inputs: Iterable[Path]) -> str:
    """One rule ``output: input …``, inputs sorted and unique, folders listed file by file.

    A folder's own time stamp does not change when a file in it does, so its files are named; they are empty
    targets as well, so that a deleted input does not stop ``make``.
    """
    files = sorted({str(file) for path in inputs for file in _files(path)})
    rule = f"{_target(str(output))}:" + "".join(f" \\\n  {_escape(file)}" for file in files)
    return rule + "\n" + "".join(f"\n{_target(file)}:\n" for file in files)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return [file for file in path.rglob("*") if file.is_file()]
    return [path]


def _target(name: str) -> str:
    """A name before the colon, where ``%`` would make a pattern rule."""
    return _escape(name).replace("%", "\\%")


def _escape(name: str) -> str:
    """Quote what Make reads otherwise: blanks, ``#``, ``$``, and backslashes before one of them."""
    escaped = ""
    backslashes = 0
    for letter in name:
        if letter in " \t#":
            escaped += "\\" * backslashes + "\\"
        backslashes = backslashes + 1 if letter == "\\" else 0
        escaped += "$$" if letter == "$" else letter
    return escaped
