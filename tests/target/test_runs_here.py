"""Expressions over CPU features."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from qcompiler.errors import TargetError
from qcompiler.target.load import load, names
from qcompiler.target.runs_here import cpu_flags, missing, parse_requirement, runs_here
from qcompiler.target.schema import Provider

CPU = load("cpu-x86")


@pytest.mark.parametrize(
    ("flags", "here"),
    [({"avx512_vnni"}, True), ({"avx_vnni"}, True), ({"avx2", "avx512f"}, False), (set(), False)],
)
def test_cpu_x86(flags: set[str], here: bool) -> None:
    found, reason = runs_here(CPU, frozenset(flags))
    assert found is here
    assert "avx512-vnni or avx-vnni" in reason


@pytest.mark.parametrize(
    ("text", "flags", "expected"),
    [
        ("a and b or c", "c", True),
        ("a and (b or c)", "c", False),
        ("a and (b or c)", "a c", True),
        ("SSE4.2", "sse4_2", True),
        ("((a))", "a", True),
    ],
)
def test_expressions(text: str, flags: str, expected: bool) -> None:
    assert parse_requirement(text)(frozenset(flags.split())) is expected


@pytest.mark.parametrize("text", ["", "and a", "a and", "a b", "(a", "a)", "a | b", "not", "(" * 50, "a or " * 500])
def test_malformed(text: str) -> None:
    if text == "not":
        assert parse_requirement(text)(frozenset()) is False
        return
    with pytest.raises(TargetError, match="is not a requirement"):
        parse_requirement(text)


def test_no_requirement_means_no_claim_about_speed() -> None:
    assert runs_here(replace(CPU, requires=()), cpu_flags())[0] is False


def test_our_kernels_run_where_they_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = replace(CPU, requires=(), provider=Provider.QCOMPILER)
    monkeypatch.setattr("qcompiler.target.runs_here.library_path", lambda: Path("library.so"))
    assert runs_here(ours) == (True, "our kernels are installed on this machine")
    assert runs_here(replace(ours, requires=("abacus",)))[1] == "this machine lacks abacus"
    monkeypatch.setattr("qcompiler.target.runs_here.library_path", lambda: None)
    assert "are not installed" in runs_here(ours)[1]


@pytest.mark.parametrize("name", names())
def test_shipped_requirements_parse(name: str) -> None:
    """Without any CPU feature a profile that names some lacks all of them; what it names is enough for it."""
    target = load(name)
    assert missing(target, frozenset()) == list(target.requires)
    named = {word for text in target.requires for word in re.findall(r"[\w.-]+", text)}
    assert missing(target, frozenset(named)) == []
    if target.requires:
        assert runs_here(target, frozenset()) == (False, f"this machine lacks {'; '.join(target.requires)}")
