"""What --format and --plan together ask for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qcompiler.driver.formats_asked import requested
from qcompiler.driver.options import CompileOptions
from qcompiler.errors import UsageError
from qcompiler.target.load import load


def asked(path: Path, target: str, content: dict[str, object], form: str | None = None) -> str:
    path.write_text(json.dumps({"schema": 1, **content}))
    return requested(CompileOptions("m.onnx", target, plan=path, format=form), load(target)).text


def test_a_plan_brings_its_format(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    assert asked(path, "edge-npu", {"format": "w4a8", "target": "edge-npu"}) == "w4a8"
    assert asked(path, "edge-npu", {"format": "w4a8"}, "w8a8") == "w8a8"
    assert asked(path, "edge-npu", {}) == load("edge-npu").default_format


def test_a_format_beside_a_plan_is_for_what_the_plan_leaves_open(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    named = {"format": "w8a8", "formats": {"conv": "w2a8"}}
    assert asked(path, "edge-npu", named, "w4a8") == "w4a8"
    decided = {**named, "nodes": {}, "values": {}}
    assert asked(path, "edge-npu", decided, "w8a8") == "w8a8"
    assert asked(path, "edge-npu", decided, "w8a8/log4=Softmax") == "w8a8/log4=Softmax"  # log formats may be open
    with pytest.raises(UsageError, match="decides on every tensor") as no:
        asked(path, "edge-npu", decided, "w4a8")
    assert "(by w8a8), so --format w4a8 would change nothing" in str(no.value)
    assert "with its 'nodes' and 'values' deleted, nodes that its 'formats' do not name follow" in str(no.value)
    del decided["formats"]
    with pytest.raises(UsageError, match="leave --format out, or the plan"):
        asked(path, "edge-npu", decided, "w4a8")


@pytest.mark.parametrize(
    ("own", "form"),
    [("w8a8", "w8a8/tensor"), ("w8a8", "w8a8/sym"), ("w4", "w4/block=64"), ("w4/block=32", "w4/block=64")],
)
def test_scales_that_a_plan_has_decided_cannot_be_asked_for(tmp_path: Path, own: str, form: str) -> None:
    decided = {"format": own, "nodes": {}, "values": {}}
    with pytest.raises(UsageError, match=rf"\(by {own}\), so --format {form} would change nothing"):
        asked(tmp_path / "plan.json", "lowbit-cpu", decided, form)
    assert asked(tmp_path / "plan.json", "lowbit-cpu", decided, own) == own


@pytest.mark.parametrize("form", [None, "w8a8"])
def test_a_plan_of_another_target_is_refused(tmp_path: Path, form: str | None) -> None:
    with pytest.raises(UsageError, match="written for lowbit-cpu, not for edge-npu") as caught:
        asked(tmp_path / "plan.json", "edge-npu", {"format": "w8a8", "target": "lowbit-cpu"}, form)
    assert "delete its 'target'" in str(caught.value)
