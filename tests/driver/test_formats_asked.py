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


@pytest.mark.parametrize("form", [None, "w8a8"])
def test_a_plan_of_another_target_is_refused(tmp_path: Path, form: str | None) -> None:
    with pytest.raises(UsageError, match="written for lowbit-cpu, not for edge-npu") as caught:
        asked(tmp_path / "plan.json", "edge-npu", {"format": "w8a8", "target": "lowbit-cpu"}, form)
    assert "delete its 'target'" in str(caught.value)
