"""Whether speed measured on this machine says something about a target.

A profile lists ``requires`` expressions such as ``avx512-vnni or avx-vnni``: names of CPU features joined by
``and`` / ``or`` (``and`` binds tighter) and parentheses. Names are compared with the kernel's list of CPU flags,
``-``, ``_`` and ``.`` counting as equal.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path

from qcompiler.errors import TargetError
from qcompiler.runtime.library import library_path
from qcompiler.target.schema import Provider, Target

__all__ = ["cpu_flags", "missing", "parse_requirement", "runs_here"]

_TOKEN = re.compile(r"\s*([()]|[A-Za-z0-9_.\-]+)")
_CPUINFO = Path("/proc/cpuinfo")
_MAXIMUM_LENGTH = 1000

Requirement = Callable[[frozenset[str]], bool]


def runs_here(target: Target, flags: frozenset[str] | None = None) -> tuple[bool, str]:
    """Whether this machine has what the target requires, and a sentence that says why (not).

    Args:
        target: The profile.
        flags: CPU flags; by default those of this machine.
    """
    if target.provider is Provider.QCOMPILER:
        lacking = missing(target, cpu_flags() if flags is None else flags)
        if lacking:
            return False, f"this machine lacks {'; '.join(lacking)}"
        if library_path() is None:
            return False, "the native kernels are not installed: install qcompiler where a C++ compiler is at hand"
        return True, "our kernels are installed on this machine"
    if not target.requires:
        return False, f"{target.name} names no CPU feature: its speed cannot be measured on this machine"
    lacking = missing(target, cpu_flags() if flags is None else flags)
    if lacking:
        return False, f"this machine lacks {'; '.join(lacking)}"
    return True, f"this machine has {'; '.join(target.requires)}"


def missing(target: Target, flags: frozenset[str]) -> list[str]:
    """The requirements that ``flags`` do not meet."""
    known = frozenset(_plain(flag) for flag in flags)
    return [text for text in target.requires if not parse_requirement(text)(known)]


@functools.cache
def cpu_flags() -> frozenset[str]:
    """CPU flags as the kernel lists them; empty where it does not."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("flags", "features"):
            return frozenset(value.split())
    return frozenset()


def parse_requirement(text: str) -> Requirement:
    """Parse an expression into a function of a set of plain flags (lower case, ``-`` and ``.`` as ``_``).

    Raises:
        TargetError: The text is no expression.
    """
    tokens = _tokens(text)
    result = _either(tokens, text)
    if tokens:
        raise _malformed(text, f"'{tokens[0]}' is left over")
    return result


def _either(tokens: list[str], text: str) -> Requirement:
    parts = [_both(tokens, text)]
    while tokens and tokens[0] == "or":
        tokens.pop(0)
        parts.append(_both(tokens, text))
    return lambda flags: any(part(flags) for part in parts)


def _both(tokens: list[str], text: str) -> Requirement:
    parts = [_single(tokens, text)]
    while tokens and tokens[0] == "and":
        tokens.pop(0)
        parts.append(_single(tokens, text))
    return lambda flags: all(part(flags) for part in parts)


def _single(tokens: list[str], text: str) -> Requirement:
    if not tokens:
        raise _malformed(text, "a CPU feature is missing at the end")
    word = tokens.pop(0)
    if word == "(":
        inner = _either(tokens, text)
        if not tokens or tokens.pop(0) != ")":
            raise _malformed(text, "a parenthesis is not closed")
        return inner
    if word in (")", "and", "or"):
        raise _malformed(text, f"a CPU feature is missing before '{word}'")
    plain = _plain(word)
    return lambda flags: plain in flags


def _tokens(text: str) -> list[str]:
    tokens, position = [], 0
    if len(text) > _MAXIMUM_LENGTH or text.count("(") > 20:
        raise _malformed(text[:40] + "…", "it is too long")
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None:
            raise _malformed(text, f"'{text[position:].strip()[0]}' is not understood")
        tokens.append(match[1])
        position = match.end()
    return tokens


def _malformed(text: str, why: str) -> TargetError:
    hint = "write e.g. 'avx512-vnni or avx-vnni'"
    return TargetError(f"'{text}' is not a requirement: {why}", where="requires", hint=hint)


def _plain(flag: str) -> str:
    return re.sub(r"[-.]", "_", flag.lower())
