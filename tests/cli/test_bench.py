"""``qcompiler bench``: tables, JSON and refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from qcompiler import runtime

Run = Callable[..., Result]
QUICK = ("--budget", "0.02")


def test_threads_and_nodes_in_words(toolbox: Run, small_cnn_path: Path) -> None:
    result = toolbox("bench", small_cnn_path, "--threads", 1, "--threads", 2, "--nodes", *QUICK)
    assert result.exit_code == 0, result.output
    for word in ("longest nodes", "CPUExecutionProvider", "minimum"):
        assert word in result.stdout
    assert [line for line in map(str.strip, result.stdout.splitlines()) if line.endswith(("thread", "threads"))] == [
        "1 thread", "2 threads",
    ]  # fmt: skip
    assert result.stdout.count("longest nodes") == 2


def test_nodes_as_json(toolbox: Run, small_cnn_path: Path) -> None:
    result = toolbox("bench", small_cnn_path, small_cnn_path, "--nodes", "--json", *QUICK)
    rows = json.loads(result.stdout)
    assert [row["provider"] for row in rows] == ["stock", "stock"]
    for row in rows:
        assert row["threads"] == 1
        assert {node["provider"] for node in row["nodes"]} == {"CPUExecutionProvider"}
        assert sum(node["share"] for node in row["nodes"]) == pytest.approx(1)


def test_without_nodes_there_are_none(toolbox: Run, small_cnn_path: Path) -> None:
    assert json.loads(toolbox("bench", small_cnn_path, "--json", *QUICK).stdout)[0]["nodes"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--provider", "stok"), "did you mean 'stock'"),
        (("--provider", "stock", "--provider", "stock"), "one provider for all models"),
        (("--isa", "avx2"), "add --provider qcompiler"),
    ],
)
def test_wrong_usage(toolbox: Run, small_cnn_path: Path, arguments: tuple[str, ...], words: str) -> None:
    result = toolbox("bench", small_cnn_path, *arguments, *QUICK)
    assert result.exit_code == 2
    assert words in result.stderr


def test_an_absent_library_fails(toolbox: Run, small_cnn_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "library_path", lambda: None)
    result = toolbox("bench", small_cnn_path, "--provider", "qcompiler", *QUICK)
    assert result.exit_code == 1
    assert "the native library" in result.stderr
    assert "hint" in result.stderr


def test_a_number_of_threads_that_no_machine_has_is_refused(toolbox: Run, small_cnn_path: Path) -> None:
    result = toolbox("bench", small_cnn_path, "--threads", 1_000_000, *QUICK)
    assert result.exit_code == 2
    assert "1000000 is not in the range" in result.output


@pytest.mark.skipif(runtime.library_path() is None, reason="needs the native library")
def test_a_model_that_our_kernels_do_not_run_is_named(toolbox: Run, small_cnn_path: Path) -> None:
    result = toolbox("bench", small_cnn_path, "--provider", "qcompiler", *QUICK)
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    assert f"none of the nodes of {small_cnn_path.name} ran in our kernels" in text
    assert "qcompile --target lowbit-cpu" in text
    assert "ran in our kernels" not in toolbox("bench", small_cnn_path, *QUICK).stdout
