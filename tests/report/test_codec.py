"""JSON round trip, the schema, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from qcompiler.errors import UsageError
from qcompiler.report.codec import SCHEMA_FILE, from_json, json_schema, to_json
from qcompiler.report.measured import BisectPart
from qcompiler.report.model import Report
from tests.report.schema import violations


@pytest.mark.parametrize("name", ["full_report", "mixed_report", "bare_report"])
def test_round_trip(name: str, request: pytest.FixtureRequest) -> None:
    report: Report = request.getfixturevalue(name)
    text = to_json(report)
    assert from_json(text) == report
    assert to_json(from_json(text)) == text


def test_reports_from_before_mixed_precision_are_still_read(full_report: Report) -> None:
    values = json.loads(to_json(full_report))
    del values["formats"]
    assert from_json(json.dumps(values)) == full_report


def test_the_report_follows_the_shipped_schema(
    full_report: Report, mixed_report: Report, bare_report: Report
) -> None:
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    for report in (full_report, mixed_report, bare_report):
        assert violations(json.loads(to_json(report)), schema, schema) == []


def test_the_checker_above_finds_faults(full_report: Report) -> None:
    schema = json_schema()
    values = json.loads(to_json(full_report))
    values["passes"][0]["edits"] = "three"
    values["size"].pop("ratio")
    values["schema"] = 2
    assert len(violations(values, schema, schema)) == 3


def test_the_shipped_schema_is_the_current_one() -> None:
    assert json.loads(SCHEMA_FILE.read_text(encoding="utf-8")) == json_schema()


def test_every_field_is_described() -> None:
    small = ("Skip", "Note", "FloatNode", "Operator", "Size", "Bisect", "Unmeasured", "Times", "Interval")
    for name, part in json_schema()["$defs"].items():
        assert part["description"]
        if name.removesuffix("Part") not in small:
            assert [key for key, item in part["properties"].items() if "description" not in item] == [], name


def test_schema_comes_first_and_json_is_strict(full_report: Report) -> None:
    odd = replace(full_report, bisect=(BisectPart("input", float("nan")), BisectPart("x", 1 / 3)))
    text = to_json(odd)
    assert text.startswith('{\n  "schema": 1,\n  "compiler"')
    assert "NaN" not in text
    assert [item.figure for item in from_json(text).bisect] == [None, 0.3333333]


def _renamed(values: dict[str, Any]) -> None:
    values["sizes"] = values.pop("size")


def _shorter(values: dict[str, Any]) -> None:
    del values["model"]["files"]


def _retyped(values: dict[str, Any]) -> None:
    values["quality"]["outputs"][0]["rows"] = 1.5


def _newer(values: dict[str, Any]) -> None:
    values["schema"] = 7


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_renamed, "unknown keys sizes"),
        (_shorter, "report.model: missing keys files"),
        (_retyped, r"report.quality.outputs\[0\].rows: 1.5"),
        (_newer, "schema is 7"),
    ],
)
def test_what_is_no_report_is_refused(
    full_report: Report, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    values = json.loads(to_json(full_report))
    change(values)
    with pytest.raises(UsageError, match=words):
        from_json(json.dumps(values))


def test_broken_json_is_refused() -> None:
    with pytest.raises(UsageError, match="not a report"):
        from_json("{")
