"""``qcompile --cost-table``: a predicted latency in the report, from a table that is data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from qcompiler.analysis.cost_table import CostPoint, CostTable, table_text
from qcompiler.analysis.machine import this_machine
from qcompiler.report.codec import from_json

Run = Callable[..., Result]


def _table(**changes: str) -> str:
    machine = dataclasses.replace(this_machine(), **changes)
    rows = [("QConv/spatial", "w8a8", 50), ("QConv/spatial", "w4a8", 40), ("QConv/spatial", "w2a8", 60),
            ("QGemm", "w8a8", 9), ("QGemm", "w4a8", 7), ("QGemm", "w2a8", 5), ("QuantizeLinear", "codes", 1),
            ("DequantizeLinear", "codes", 1)]  # fmt: skip
    points = [CostPoint(kind, form, "", "avx2", 1, 1000, 1000, cost, cost) for kind, form, cost in rows]
    return table_text(CostTable("here", "2026-01-01T00:00:00+00:00", machine, 10.0, 8.0, tuple(points)))


@pytest.fixture
def compile_integer(qcompile: Run, small_cnn_path: Path, data: Path) -> Run:
    """Compiles ``small_cnn`` into integers."""

    def run(*arguments: object) -> Result:
        return qcompile(small_cnn_path, "-t", "edge-npu", "-c", data, "--no-latency", *arguments)

    return run


def test_latency_is_predicted_and_the_fastest_width_named(compile_integer: Run, work: Path) -> None:
    (work / "costs.json").write_text(_table(), encoding="utf-8")
    result = compile_integer("--cost-table", "costs.json", "--report", "report.json")
    assert result.exit_code == 0, result.output
    report = from_json((work / "report.json").read_text(encoding="utf-8"))
    cost = report.cost
    assert cost is not None
    assert (cost.isa, cost.threads, cost.date[:10]) == ("avx2", 1, "2026-01-01")
    assert cost.milliseconds > 0.01
    assert set(cost.widths) == {"8", "4", "2"}
    assert cost.fastest == min(cost.widths, key=lambda bits: cost.widths[bits])
    assert cost.widths["8"] == pytest.approx(cost.milliseconds)
    assert {row.operator for row in cost.operators} >= {"QConv/spatial", "QGemm"}
    text = " ".join(result.stdout.split())
    assert "predicted" in text
    assert f"{cost.fastest} bits are the fastest" in text
    assert not any("elsewhere" in item for item in report.warnings)


def test_another_machine_is_a_warning(compile_integer: Run, work: Path) -> None:
    (work / "costs.json").write_text(_table(cpu="an abacus"), encoding="utf-8")
    result = compile_integer("--cost-table", "costs.json", "--json")
    assert result.exit_code == 0
    assert any("measured elsewhere (cpu: an abacus" in text for text in json.loads(result.stdout)["warnings"])


def test_pairs_have_no_predicted_latency(compile_integer: Run, work: Path) -> None:
    (work / "costs.json").write_text(_table(), encoding="utf-8")
    report = json.loads(compile_integer("--cost-table", "costs.json", "--lowering", "qdq", "--json").stdout)
    assert report["cost"] is None
    assert "predicted latency" in {item["what"] for item in report["unmeasured"]}


def test_a_bad_table_is_refused_before_any_work(compile_integer: Run, work: Path) -> None:
    (work / "costs.json").write_text(_table().replace('"schema": 1', '"schema": 7'), encoding="utf-8")
    result = compile_integer("--cost-table", "costs.json")
    assert result.exit_code == 2
    assert "has version 7, this compiler reads 1" in result.stderr
    assert [path.name for path in work.iterdir()] == ["costs.json"]


def test_the_table_is_a_dependency(compile_integer: Run, work: Path) -> None:
    (work / "costs.json").write_text(_table(), encoding="utf-8")
    assert compile_integer("--cost-table", "costs.json", "--depfile", "d", "-q").exit_code == 0
    assert "costs.json" in (work / "d").read_text(encoding="utf-8")


def test_what_the_table_does_not_know_makes_the_figure_a_lower_bound(compile_integer: Run, work: Path) -> None:
    known = [line for line in _table().splitlines() if '"QConv/spatial"' not in line]
    (work / "costs.json").write_text("\n".join(known), encoding="utf-8")
    result = compile_integer("--cost-table", "costs.json", "--report", "report.json")
    report = from_json((work / "report.json").read_text(encoding="utf-8"))
    assert report.cost is not None
    assert "QConv/spatial w8a8" in report.cost.unknown
    text = " ".join(result.stdout.split())
    assert "at least" in text
    assert "nothing known of" in text
    assert any("the predicted latency is a lower bound" in item for item in report.warnings)


def test_a_table_of_another_target_is_a_warning(compile_integer: Run, work: Path) -> None:
    (work / "costs.json").write_text(_table(), encoding="utf-8")
    report = json.loads(compile_integer("--cost-table", "costs.json", "--json").stdout)
    assert "the cost table was measured for here, this model is for edge-npu" in report["warnings"]
