"""``--pareto`` without ``--budget``: plans, no model; with one that no plan keeps: a refusal that tells of plans."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import qcompiler
from qcompiler.errors import UsageError

Run = Callable[..., Result]
OPTIONS = ("-t", "edge-npu", "--candidates", "w8a8,w4a8,w2a8", "--no-latency", "--effort", "quick", "--limit", 64)


@pytest.fixture
def ask(qcompile: Run) -> Run:
    """Asks for plans of ``digits_cnn``; further arguments are added."""
    return lambda *arguments: qcompile("digits_cnn", *OPTIONS, *arguments)


def points(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["points"]
    return found


def test_plans_are_written_and_no_model(ask: Run, work: Path) -> None:
    result = ask("--pareto", "plans.json")
    assert result.exit_code == 0, result.output
    assert [path.name for path in work.iterdir()] == ["plans.json"]
    found = points(work / "plans.json")
    sizes, losses = [each["costs"]["size"] for each in found], [each["loss"] for each in found]
    assert len(found) > 5
    assert sizes == sorted(sizes)
    assert losses == sorted(losses, reverse=True)
    rows = [line.split() for line in result.stdout.splitlines() if line[:1].isdigit()]
    assert [row[0] for row in rows] == [str(each["point"]) for each in found]
    assert rows[0][1:3] == [f"{sizes[0] / 1e3:.1f}", "kB"]
    assert "none: plans alone" in result.stdout
    assert "--plan plans.json:1" in result.stdout

    share = rows[1][3]  # what the table calls a plan's share is a budget that has it
    result = ask("--budget", f"size={share}", "--pareto", "beside.json", "-o", "m.onnx", "-q")
    assert result.exit_code == 0, result.output
    assert points(work / "beside.json") == found
    assert (work / "m.onnx").stat().st_size >= sizes[0]

    result = ask("--pareto", "again.json", "--json")
    assert result.stdout == (work / "again.json").read_text(encoding="utf-8")
    assert points(work / "again.json") == found


def test_a_budget_that_no_plan_keeps_is_refused_with_where_plans_are(ask: Run, work: Path) -> None:
    result = ask("--exempt", "first-last", "--pareto", "plans.json", "-q")
    assert result.exit_code == 0, result.output
    first, *_, last = points(work / "plans.json")
    ends = [f"size={each['costs']['size'] / 1e3:g}KB at predicted loss {each['loss']:.4g}" for each in (first, last)]
    (work / "plans.json").unlink()

    result = ask("--exempt", "first-last", "--budget", "size=20KB", "--pareto", "plans.json", "-o", "m.onnx", "-q")
    assert result.exit_code == 2
    assert list(work.iterdir()) == []
    least = first["costs"]["size"] / 1e3
    assert f"no plan keeps size=20KB\n  hint: the smallest feasible: size={least:g}KB; " in result.stderr
    assert "; without --exempt first-last: size=" in result.stderr
    assert f"; plans reach from {ends[0]} to {ends[1]}: --pareto FILE without --budget writes them" in result.stderr

    result = ask("--exempt", "first-last", "--budget", "size=0.01x", "--pareto", "plans.json", "-o", "m.onnx", "-q")
    assert result.exit_code == 2
    share = r"(0\.\d+)x \((\d+) bytes\)"
    found = re.search(rf"; plans reach from size={share} at .* to size={share} at", result.stderr)
    assert found is not None
    low, lowest, high, highest = map(float, found.groups())
    assert (lowest, highest) == (first["costs"]["size"], last["costs"]["size"])
    assert high / low == pytest.approx(highest / lowest, rel=0.01)

    result = ask("--exempt", "first-last", "--budget", "size=20KB", "-o", "m.onnx", "-q")  # nobody asked for plans
    assert result.exit_code == 2
    assert "plans reach" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-o", "m.onnx"), "--output is about a model"),
        (("--report", "r.json"), "--report is about a model"),
        (("--min-sqnr", "20"), "--min-sqnr is about a model"),
        (("--min-sqnr", "0"), "--min-sqnr is about a model"),
        (("--max-fallback", "0"), "--max-fallback is about a model"),
        (("--keep",), "--keep is about a model"),
        (("--pareto", "nowhere/p.json"), "the folder of --pareto"),
    ],
)
def test_what_needs_a_model_is_refused(ask: Run, work: Path, arguments: tuple[str, ...], words: str) -> None:
    result = ask("--pareto", "p.json", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert list(work.iterdir()) == []


def test_the_same_from_python(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    asked: dict[str, Any] = {"candidates": ["w8a8", "w2a8"], "pareto": "plans.json", "effort": "quick", "limit": 32}
    found = qcompiler.front("digits_cnn", "edge-npu", **asked, cache=False)
    assert found == json.loads((work / "plans.json").read_text(encoding="utf-8"))
    assert found["target"] == "edge-npu"
    with pytest.raises(UsageError, match=r"no model to compile[\s\S]*call qcompiler.front"):
        qcompiler.compile("digits_cnn", "edge-npu", **asked)
    with pytest.raises(UsageError, match="chosen among candidates, without a budget"):
        qcompiler.front("digits_cnn", "edge-npu", **asked, budget="size=1x")
