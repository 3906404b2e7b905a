"""``qcompiler profile``: a table of this machine, and refusals of what is another machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from qcompiler import runtime
from qcompiler.analysis.cost_table import load_table

Run = Callable[..., Result]
native = pytest.mark.skipif(runtime.library_path() is None, reason="needs the native library")


@pytest.fixture
def here(work: Path) -> Path:
    """A profile of integer operators that runs on any machine."""
    path = work / "here.toml"
    path.write_text(
        'schema = 1\nname = "here"\ntitle = "Here"\nextends = "edge-npu"\nprovider = "qcompiler"\n',
        encoding="utf-8",
    )
    return path


@native
def test_a_model_is_measured_and_predicted(
    toolbox: Run, qcompile: Run, here: Path, small_cnn_path: Path, data: Path, work: Path
) -> None:
    compiled = work / "small.onnx"
    assert qcompile(small_cnn_path, "-t", here, "-c", data, "-o", compiled, "--no-latency", "-q").exit_code == 0
    result = toolbox("profile", "-t", here, "--model", compiled, "--no-grid", "--budget", 3, "-o", "costs.json")
    assert result.exit_code == 0, result.output
    for word in ("others predict it within", "predicted", "QGemm", "costs.json"):
        assert word in result.stdout
    table = load_table(work / "costs.json")
    assert {point.format for point in table.points if point.kind == "QGemm"} == {"w8a8", "w4a8", "w2a8"}
    assert {point.threads for point in table.points} == {1}
    assert all(point.microseconds >= 0 for point in table.points)
    result = toolbox("profile", "-t", here, "--model", compiled, "--no-grid", "--budget", 1, "--json")
    (checked,) = json.loads(result.stdout)["checked_models"]
    assert checked["path"] == str(compiled)
    assert checked["predicted"] > 0
    assert checked["measured"] > 0


@native
def test_a_budget_that_is_spent_is_said(toolbox: Run, here: Path) -> None:
    found = json.loads(toolbox("profile", "-t", here, "--budget", 0.3, "--json").stdout)
    assert found["points"]
    assert any("the budget of 0.3 s was spent" in text for text in found["skipped"])


def test_another_machine_is_refused(toolbox: Run) -> None:
    result = toolbox("profile", "-t", "edge-npu")
    assert result.exit_code == 2
    assert "our kernels do not run its models" in result.stderr


def test_without_the_library_there_is_nothing_to_measure(
    toolbox: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qcompiler.target.runs_here.library_path", lambda: None)
    result = toolbox("profile", "-t", here, "--budget", 0.3)
    assert result.exit_code == 1
    assert "the native kernels are not installed" in result.stderr


@native
def test_an_output_that_cannot_be_written_is_refused_before_anything_is_measured(
    toolbox: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qcompiler.analysis.profile_plan.plan", lambda *_, **__: pytest.fail("it was measured"))
    result = toolbox("profile", "-t", here, "-o", "nowhere/costs.json")
    assert result.exit_code == 1
    assert "the output folder 'nowhere' does not exist" in result.stderr


@native
@pytest.mark.parametrize("verb", ["bench", "diff", "profile"])
def test_help_names_the_instruction_sets(toolbox: Run, verb: str) -> None:
    from qcompiler.runtime.native_operator import instruction_sets

    text = toolbox(verb, "--help").stdout
    for name in ("auto", *instruction_sets()):
        assert name in text
