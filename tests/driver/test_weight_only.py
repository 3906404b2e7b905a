"""Weight-only formats need no samples: what is measured without them, what is said, what --plan gives back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import qcompiler
from qcompiler.errors import DataError, PassError, UsageError

TEXT = """
<ir_version: 10, opset_import: ["" : 21]>
g (float[N, 96] x) => (float[N, 5] y) { h = MatMul (x, w) r = Relu (h) y = Gemm (r, v, b) }
"""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> onnx.ModelProto:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    proto = onnx.parser.parse_model(TEXT)
    for name, shape in {"w": (96, 64), "v": (64, 5), "b": (5,)}.items():
        array = random.normal(0, 0.2, shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return proto


def test_nothing_is_asked_for_and_the_report_says_what_that_is_worth(model: onnx.ModelProto) -> None:
    result = qcompiler.compile(model, "lowbit-cpu", format="w4", latency=False)
    report = result.report
    assert report.configuration["calibration"] == "not needed"
    assert report.configuration["evaluation"] == "random"
    assert any("random inputs" in warning for warning in report.warnings)
    assert report.calibration is None
    assert report.integer is None
    assert report.accumulators is None
    assert report.coverage is not None
    assert report.coverage.share_macs == 100
    operators = [node.op_type for node in onnx.load(result.path).graph.node]
    assert operators == ["QMatMulWeightOnly", "Relu", "QMatMulWeightOnly", "Add"]


def test_a_choice_of_weights_is_made_on_samples(model: onnx.ModelProto) -> None:
    chosen: dict[str, Any] = {"candidates": "w8,w4", "budget": {"size": "0.5x"}, "effort": "quick", "latency": False}
    with pytest.raises(DataError, match="what layers lose in each of the candidates cannot be guessed"):
        qcompiler.compile(model, "lowbit-cpu", **chosen)
    report = qcompiler.compile(model, "lowbit-cpu", calibration="none", **chosen).report
    assert report.configuration["calibration"] == "none: samples made from the model"
    assert report.calibration is not None
    assert report.formats is not None
    assert report.formats.samples > 0


FEEDS = [{"x": np.random.default_rng(seed).normal(0, 1, (1, 96)).astype(np.float32)} for seed in range(16)]


def _alike(count: int) -> list[dict[str, np.ndarray]]:
    """Feeds of 20 rows whose 96 values follow from 12, so that errors of some weights can make up for others'."""
    random = np.random.default_rng(1)
    mixed = random.normal(0, 1, (12, 96))
    return [{"x": (random.normal(0, 1, (20, 12)) @ mixed).astype(np.float32)} for _ in range(count)]


def test_samples_serve_to_round_where_there_are_some(model: onnx.ModelProto) -> None:
    report = qcompiler.compile(model, "lowbit-cpu", format="w3", latency=False, calibration=_alike(16)).report
    assert report.calibration is not None
    assert report.calibration.samples == 16 * 18  # of 20 rows each, 2 are held out to judge by
    assert report.evaluation.held_out
    tried = [trial for item in report.passes for trial in item.trials if trial.text == "round-gptq"]
    assert len(tried) == 1
    assert tried[0].kept
    assert tried[0].after < 0.8 * tried[0].before


@pytest.mark.parametrize("option", ["calibration", "evaluation"])
def test_all_samples_judge_where_nothing_is_fitted(model: onnx.ModelProto, option: str) -> None:
    options = {option: FEEDS, "effort": "quick"}
    report = qcompiler.compile(model, "lowbit-cpu", format="w8", latency=False, **options).report
    assert report.evaluation.samples == 16
    assert not report.evaluation.held_out
    assert not any("random" in warning for warning in report.warnings)
    assert report.quality.outputs[0].sqnr > 30


def test_a_plan_gives_the_same_file(model: onnx.ModelProto, tmp_path: Path) -> None:
    first = qcompiler.compile(model, "lowbit-cpu", format="w3", latency=False, output="a.onnx", plan_out="plan.json")
    entry = first.plan["nodes"][next(iter(first.plan["nodes"]))]
    assert entry["edges"]["1"]["format"] == "i3/axis=0/block=32"
    qcompiler.compile(model, "lowbit-cpu", format="w3", latency=False, output="b.onnx", plan="plan.json")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_a_plan_mixes_widths(model: onnx.ModelProto, tmp_path: Path) -> None:
    """The head in 8 bits: a format without a scale is calibrated."""
    plan = qcompiler.compile(model, "lowbit-cpu", format="w3", latency=False, output="a.onnx").plan
    head = list(plan["nodes"])[-1]
    form = plan["nodes"][head]["edges"]["1"]["format"]
    plan["nodes"][head]["edges"] = {"1": {"format": form.replace("i3", "i8")}}
    (tmp_path / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    result = qcompiler.compile(model, "lowbit-cpu", format="w3", latency=False, output="b.onnx", plan="plan.json")
    nodes = [node for node in onnx.load(result.path).graph.node if node.op_type == "QMatMulWeightOnly"]
    assert [item.i for node in nodes for item in node.attribute if item.name == "bits"] == [3, 8]
    wrong = form.replace("axis=0", "axis=9").replace("axis=1", "axis=0").replace("axis=9", "axis=1")
    plan["nodes"][head]["edges"] = {"1": {"format": wrong}}
    (tmp_path / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    with pytest.raises(PassError, match="blocks lie along the axis that is summed over"):
        qcompiler.compile(model, "lowbit-cpu", format="w3", latency=False, output="c.onnx", plan="plan.json")


def test_as_pairs_it_is_what_stock_runtimes_know(model: onnx.ModelProto) -> None:
    result = qcompiler.compile(model, "lowbit-cpu", format="w4", lowering="qdq", latency=False)
    nodes = onnx.load(result.path).graph.node
    assert [node.op_type for node in nodes].count("DequantizeLinear") == 2
    blocks = [item.i for node in nodes for item in node.attribute if item.name == "block_size"]
    assert blocks == [32, 32]


def test_calibration_methods_have_nothing_to_do(model: onnx.ModelProto) -> None:
    with pytest.raises(UsageError, match="needs the pass 'calibrate'"):
        qcompiler.compile(model, "lowbit-cpu", format="w4", calibration_method="mse")
