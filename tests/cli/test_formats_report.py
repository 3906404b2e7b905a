"""``qcompile --candidates --budget``: what the report says of the plan, end to end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from qcompiler.report.codec import SCHEMA_FILE, from_json, to_json
from qcompiler.report.formats import FormatsPart
from tests.report.schema import violations

Run = Callable[..., Result]
OPTIONS = (
    "-t", "edge-npu", "--candidates", "w8a8,w4a8,w2a8", "--no-latency", "--effort", "quick", "--no-cache",
    "--limit", 64,
)  # fmt: skip


def _formats(text: str) -> FormatsPart:
    found = from_json(text).formats
    assert found is not None
    return found


def _valid(text: str) -> dict[str, Any]:
    """The values of a report that its schema admits and that is read and written as it is."""
    values: dict[str, Any] = json.loads(text)
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    assert violations(values, schema, schema) == []
    assert to_json(from_json(text)) == text
    return values


def test_a_point_of_the_front_is_a_plan(qcompile: Run, work: Path) -> None:
    result = qcompile("digits_cnn", *OPTIONS, "--budget", "size=46000", "--pareto", "plans.json", "-o", "m.onnx")
    assert result.exit_code == 0, result.output
    points = json.loads((work / "plans.json").read_text(encoding="utf-8"))["points"]
    assert [point["point"] for point in points] == list(range(1, len(points) + 1))
    plain = ("-t", "edge-npu", "--no-latency", "--effort", "quick", "--limit", 64)
    result = qcompile("digits_cnn", *plain, "--plan", "plans.json:2", "-o", "m.onnx", "--depfile", "m.d")
    assert result.exit_code == 0, result.output
    assert (work / "m.onnx").stat().st_size == pytest.approx(points[1]["costs"]["size"], rel=0.01)
    assert "plans.json" in (work / "m.d").read_text(encoding="utf-8")
    assert "plans.json:2" not in (work / "m.d").read_text(encoding="utf-8")
    result = qcompile("digits_cnn", *plain, "--plan", "plans.json", "-o", "m.onnx")
    assert result.exit_code == 2
    assert "plans.json:1" in result.output
    result = qcompile("digits_cnn", *plain, "--plan", "plans.json:2", "-o", "m.onnx", "--report", "plans.json")
    assert result.exit_code == 2
    assert "would replace --plan" in " ".join(result.output.split())


def test_the_budget_is_met_by_the_file_and_the_report_says_so(qcompile: Run, work: Path) -> None:
    asked = ("digits_cnn", *OPTIONS, "--budget", "size=46000", "--exempt", "first-last", "-o", "m.onnx")
    result = qcompile(*asked, "--report", "one.json")
    assert result.exit_code == 0, result.output
    text = (work / "one.json").read_text(encoding="utf-8")
    values = _valid(text)
    part = _formats(text)
    size = next(item for item in part.resources if item.resource == "size")
    assert size.budget == 46_000
    assert size.actual == (work / "m.onnx").stat().st_size <= 46_000
    assert size.predicted == pytest.approx(size.actual, rel=0.02)
    assert sum(item.groups for item in part.candidates) == len(part.groups)
    assert len({group.choice for group in part.groups}) > 1
    assert part.loss == pytest.approx(sum(group.loss for group in part.groups), rel=1e-5)
    assert part.bound <= part.loss
    assert [group.choice for group in part.groups if group.exempt.startswith("first-last")] == ["w8a8", "w8a8"]
    assert part.unexempted is not None
    assert part.unexempted < part.loss
    report = from_json(text)
    assert report.quality is not None
    assert part.measured is not None
    assert part.measured == report.quality.outputs[0].softened_kl
    assert 0.1 < part.measured / part.loss < 10

    shown = " ".join(result.stdout.split())
    assert size.asked == "46000"
    assert f"size: {size.actual:,.0f} bytes of 46,000 bytes after packing" in shown
    assert " bytes more, and " in shown
    assert f"not exempt: predicted loss {part.unexempted:.3g} instead of {part.loss:.3g}" in shown
    assert f"w8a8, w4a8, w2a8 for {len(part.groups)} groups" in shown
    assert sum("█" in line for line in result.stdout.splitlines()) == min(len(part.groups), 20)

    assert qcompile(*asked, "--report", "two.json", "-q").exit_code == 0
    again = json.loads((work / "two.json").read_text(encoding="utf-8"))
    for found in (values, again):
        del found["timing"]
    assert again == values


def _header(text: str) -> str:
    return next(line for line in text.splitlines() if line.startswith("format ")).partition(" ")[2].strip()


def test_a_compile_that_mixes_formats_says_so_whoever_decided(qcompile: Run, work: Path) -> None:
    files = ("-o", "m.onnx", "--report", "r.json", "--plan-out", "p.json")

    def compiled(*options: object) -> tuple[str, str, dict[str, int], dict[str, str]]:
        """What the echo says of the format, the line below the headline, layers by format, formats of the plan."""
        result = qcompile("digits_cnn", *options, *files)
        assert result.exit_code == 0, result.output
        counts = json.loads((work / "r.json").read_text(encoding="utf-8"))["coverage"]["formats"]
        plan = json.loads((work / "p.json").read_text(encoding="utf-8"))
        lines = result.stdout.splitlines()
        below = lines[next(index for index, line in enumerate(lines) if line.startswith("✓")) + 1]
        return _header(result.stdout), below.rstrip(), counts, plan.get("formats", {})

    header, below, counts, formats = compiled(*OPTIONS, "--budget", "size=46000")
    assert header == "chosen among w8a8, w4a8, w2a8"
    assert below == f"  mixed: {', '.join(f'{text} {count}' for text, count in counts.items())} layers"
    assert sum(counts.values()) == 13  # layers with weights
    assert len(counts) > 1

    plain = ("-t", "edge-npu", "--no-latency", "--effort", "quick", "--limit", 64)
    (work / "p.json").rename(work / "given.json")
    header, below, again, kept = compiled(*plain, "--plan", "given.json")  # with 'nodes' and 'values'
    assert (again, kept) == (counts, formats)
    nodes = [f"{text} {list(formats.values()).count(text)}" for text in ("w8a8", "w4a8", "w2a8")]
    assert header == f"mixed by the plan: {', '.join(nodes)} nodes; others w8a8"
    assert "mixed: " in below

    named = {"/stem/conv/Conv": "w8a8", "/stem/activation/Relu": "w8a8", "/classifier/Gemm": "w2a8"}
    (work / "named.json").write_text(json.dumps({"schema": 1, "format": "w8a8", "formats": named}), encoding="utf-8")
    header, below, counts, _ = compiled(*plain, "--plan", "named.json", "--format", "w4a8")
    assert header == "mixed by the plan: w8a8 2, w2a8 1 nodes; others w4a8"
    assert counts == {"w8a8": 1, "w4a8": 11, "w2a8": 1}

    header, below, counts, _ = compiled(*plain, "--format", "w4a8")
    assert (header, counts) == ("w4a8", {"w4a8": 13})
    assert below == ""


def test_a_bound_on_the_loss_is_reported_with_its_measurements(
    qcompile: Run, small_cnn_path: Path, tmp_path: Path
) -> None:
    samples = np.random.default_rng(1).standard_normal((64, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "more.npz", x=samples)
    asked = (small_cnn_path, "-c", tmp_path / "more.npz", *OPTIONS, "--budget", "loss=0.5")
    part = _formats(qcompile(*asked, "--json").stdout)
    assert part.loss_bound is not None
    assert part.loss_bound.upper <= part.loss_bound.bound == 0.5
    assert 1 <= part.loss_bound.evaluations <= part.loss_bound.most_evaluations
    assert part.measured is not None


def test_a_missed_gate_leaves_what_says_why_and_no_model(compile_small: Run, work: Path) -> None:
    asked = ("--candidates", "w8a8,w7a8", "--budget", "size=1x", "--effort", "quick", "--min-sqnr", "150")
    files = ("-o", "m.onnx", "--report", "r.json", "--plan-out", "p.json", "--pareto", "f.json", "--depfile", "d")
    result = compile_small(*asked, *files)
    assert result.exit_code == 3, result.output
    assert sorted(path.name for path in work.iterdir()) == ["f.json", "p.json", "r.json"]


def test_weights_alone_are_chosen_on_samples_too(
    qcompile: Run, small_cnn_path: Path, data: Path
) -> None:
    asked = ("-t", "lowbit-cpu", "--candidates", "w8,w4", "--budget", "size=2x", "--no-latency", "--effort", "quick")
    result = qcompile(small_cnn_path, "-c", data, *asked, "--json")
    assert result.exit_code == 0, result.output
    assert {item.activation_bits for item in _formats(result.stdout).candidates} == {None}


def test_without_a_choice_there_is_no_such_part(compile_small: Run) -> None:
    report = json.loads(compile_small("--json").stdout)
    assert report["formats"] is None
    assert report["quality"]["outputs"][0]["softened_kl"] is None
