"""Profiles in words."""

from __future__ import annotations

import pytest

from qcompiler.target.load import load, names
from qcompiler.target.words import describe


@pytest.mark.parametrize("name", names())
def test_every_operator_has_words(name: str) -> None:
    target = load(name)
    words = describe(target)
    assert [row.operator for row in words.operators] == list(target.operators)
    assert all(row.kind and row.place and row.activations for row in words.operators)
    assert all(bool(row.weights) == bool(target.operators[row.operator].weights) for row in words.operators)
    assert all(value for _, value in words.facts)


def test_placement_rules_are_said() -> None:
    rows = {row.operator: row for row in describe(load("cpu-x86")).operators}
    assert rows["Add"].place == "only between integer operators"
    assert "it absorbs a following Relu or Clip" in rows["Add"].rules
    assert "it may also write real numbers" in rows["MatMul"].rules
    assert "only with attribute mode nearest" in rows["Resize"].rules
    assert "share scale and zero point" in rows["MaxPool"].rules[0]
    assert rows["Conv"].weights.endswith("one scale per channel or tensor")
    assert dict(describe(load("edge-npu-per-tensor")).facts)["extends"] == "edge-npu"
    assert dict(describe(load("edge-npu")).facts)["images of integer operators"].startswith("channels-first")
    gather = {row.operator: row for row in describe(load("edge-npu")).operators}["Gather"]
    tables = "a constant table of 4096 numbers and more are i8/sym/narrow or i4/sym or i2/sym"
    assert gather.rules[1] == f"rows of {tables}, one scale each, and are rescaled"
    assert any("16 bits by preference" in rule for rule in describe(load("edge-npu")).operators[4].rules)
