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

KINDS: dict[str, type | tuple[type, ...]] = {
    "string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None), "array": list,
    "object": dict,
}  # fmt: skip


def violations(value: Any, schema: dict[str, Any], root: dict[str, Any], where: str = "$") -> list[str]:
    """The part of JSON Schema that ours uses."""
    if "$ref" in schema:
        return violations(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root, where)
    if "anyOf" in schema:
        tries = [violations(value, item, root, where) for item in schema["anyOf"]]
        return [] if any(not found for found in tries) else tries[0]
    kind = schema["type"]
    if not isinstance(value, KINDS[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return [f"{where}: {value!r} is no {kind}"]
    if "const" in schema and value != schema["const"]:
        return [f"{where}: {value!r} is not {schema['const']!r}"]
    if kind == "array":
        return [v for i, item in enumerate(value) for v in violations(item, schema["items"], root, f"{where}[{i}]")]
    if kind != "object":
        return []
    if "properties" not in schema:
        extra = schema["additionalProperties"]
        return [v for key, item in value.items() for v in violations(item, extra, root, f"{where}.{key}")]
    wrong = [f"{where}: keys {set(value) ^ set(schema['required'])}"] if set(value) != set(schema["required"]) else []
    known = {key: item for key, item in schema["properties"].items() if key in value}
    return wrong + [v for key, item in known.items() for v in violations(value[key], item, root, f"{where}.{key}")]


def test_round_trip(full_report: Report) -> None:
    text = to_json(full_report)
    assert from_json(text) == full_report
    assert to_json(from_json(text)) == text


def test_the_report_follows_the_shipped_schema(full_report: Report, bare_report: Report) -> None:
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    for report in (full_report, bare_report):
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
