"""The toolbox: every verb for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from qcompiler.runtime import library_path

Run = Callable[..., Result]


def _json(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def compiled(compile_small: Run, work: Path) -> Path:
    """``small_cnn`` compiled for ``cpu-x86``."""
    assert compile_small("-o", "small.onnx").exit_code == 0
    return work / "small.onnx"


def test_help_lists_every_verb(toolbox: Run) -> None:
    result = toolbox("--help")
    for verb in ("bench", "diff", "inspect", "passes", "profile", "replay", "targets"):
        assert verb in result.stdout
    assert "..." not in result.stdout.partition("Commands:")[2]


def test_a_misspelt_verb_gets_the_nearest(toolbox: Run) -> None:
    result = toolbox("inspct")
    assert result.exit_code == 2
    assert "did you mean 'inspect'" in result.stderr


# -- inspect ---------------------------------------------------------------------------------------------------


def test_inspect_a_float_model(toolbox: Run, small_cnn_path: Path) -> None:
    summary = _json(toolbox("inspect", small_cnn_path, "--json"))
    assert summary["inputs"] == [{"name": "x", "dtype": "float", "shape": ["N", 3, 8, 8]}]
    assert summary["operators"] == {"Conv": 1, "Relu": 1, "MaxPool": 1, "Flatten": 1, "Gemm": 1}
    assert summary["parameters"] == 8 * 27 + 8 + 1280 + 10
    assert summary["weight_bytes"] == 4 * summary["parameters"]
    assert summary["quantized"] is None
    assert "quantized" in toolbox("inspect", small_cnn_path).stdout


def test_inspect_counts_batch_norms(toolbox: Run) -> None:
    assert _json(toolbox("inspect", "digits_cnn", "--json"))["batch_norms"] == 12


def test_inspect_a_quantized_model(toolbox: Run, compiled: Path) -> None:
    part = _json(toolbox("inspect", compiled, "--json"))["quantized"]
    assert part["weights"] == {"int8": 2, "int32": 2}
    assert part["activations"]["uint8"] == part["quantize"]


# -- passes, targets -------------------------------------------------------------------------------------------


def test_passes_are_listed(toolbox: Run) -> None:
    found = _json(toolbox("passes", "--json"))
    names = {item["name"] for item in found["passes"]}
    assert {"import-model", "fold-batch-norm", "assign-formats", "apply-plan", "place-qdq", "finalize"} <= names
    assert "default" in {item["name"] for item in found["pipelines"]}
    assert all(item["summary"] for item in found["passes"])


def test_a_pass_is_described(toolbox: Run) -> None:
    found = _json(toolbox("passes", "calibrate", "--json"))
    assert found["requires"] == ["formats"]
    method = next(item for item in found["options"] if item["name"] == "method")
    assert method["default"] == "auto"
    assert "percentile" in method["takes"]
    assert "percentile" in toolbox("passes", "calibrate").stdout


def test_an_unknown_pass_gets_the_nearest(toolbox: Run) -> None:
    result = toolbox("passes", "calibrat")
    assert result.exit_code == 2
    assert "did you mean 'calibrate'" in result.stderr


def test_targets_are_listed(toolbox: Run) -> None:
    rows = {row["name"]: row for row in _json(toolbox("targets", "--json"))}
    assert {"cpu-x86", "cpu-x86-avx2", "edge-npu", "edge-npu-per-tensor"} <= set(rows)
    assert rows["edge-npu"]["runs_here"] is False
    assert "cpu-x86" in toolbox("targets").stdout


def test_a_target_is_put_into_words(toolbox: Run) -> None:
    assert "it absorbs a following Relu or Clip" in json.dumps(_json(toolbox("targets", "edge-npu", "--json")))
    assert "Conv" in toolbox("targets", "edge-npu").stdout


def test_a_profile_of_ones_own_works(toolbox: Run, compile_small: Run, work: Path) -> None:
    profile = 'schema = 1\nname = "my-npu"\ntitle = "Mine"\nextends = "edge-npu"\nremove = ["MaxPool"]\n'
    (work / "my-npu.toml").write_text(profile, encoding="utf-8")
    words = _json(toolbox("targets", "./my-npu.toml", "--json"))
    assert "MaxPool" not in {item["operator"] for item in words["operators"]}
    report = _json(compile_small("--target", "./my-npu.toml", "--json"))
    assert "MaxPool" in {item["op_type"] for item in report["coverage"]["fallbacks"]}
    assert (work / "small_cnn.my-npu.onnx").is_file()


@pytest.fixture
def lowered(qcompile: Run, small_cnn_path: Path, data: Path, work: Path) -> Path:
    """``small_cnn`` in integer operators."""
    path = work / "lowered.onnx"
    result = qcompile(
        small_cnn_path, "--target", "edge-npu", "--lowering", "integer", "--calibration", data, "-o", path, "-q"
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return path


# -- diff, bench -----------------------------------------------------------------------------------------------


def test_diff_of_structure(toolbox: Run, small_cnn_path: Path, compiled: Path) -> None:
    found = _json(toolbox("diff", small_cnn_path, compiled, "--json"))
    assert found["quality"] is None
    assert "QuantizeLinear" in {item["name"] for item in found["operators"]}


def test_diff_layer_by_layer(toolbox: Run, small_cnn_path: Path, compiled: Path, data: Path) -> None:
    found = _json(toolbox("diff", small_cnn_path, compiled, "--data", data, "--limit", 4, "--json"))
    layers = {item["value"]: item["sqnr"] for item in found["quality"]["layers"]}
    assert layers["relu"] > 20
    assert found["quality"]["outputs"][0]["sqnr"] > 15
    text = toolbox("diff", small_cnn_path, compiled, "--data", data, "--limit", 4, "--all").stdout
    assert "every layer" in text
    assert "relu" in text


def test_diff_of_a_model_with_itself(toolbox: Run, small_cnn_path: Path, data: Path) -> None:
    found = _json(toolbox("diff", small_cnn_path, small_cnn_path, "--data", data, "--limit", 2, "--json"))
    assert found["operators"] == []
    assert found["quality"]["outputs"][0]["sqnr"] == 200


def test_diff_refuses_wrong_data(toolbox: Run, small_cnn_path: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", z=np.zeros((2, 3, 8, 8), np.float32))
    result = toolbox("diff", small_cnn_path, small_cnn_path, "--data", tmp_path / "bad.npz")
    assert result.exit_code == 1
    assert "bad.npz" in result.stderr


def test_an_integer_graph_is_inspected(toolbox: Run, lowered: Path) -> None:
    found = _json(toolbox("inspect", lowered, "--json"))
    assert found["integer_only"] == {
        "tensors": [], "islands": [], "head": [], "tail": [], "divisions": [], "attributes": [], "functions": []
    }  # fmt: skip
    assert found["quantized"]["integer_operators"] == {"ai.qcompiler:QConv": 1, "ai.qcompiler:QGemm": 1}
    assert sum(found["quantized"]["activations"].values()) >= 3
    assert "integer-only  yes: 0 float tensors inside" in toolbox("inspect", lowered).stdout


def test_diff_bit_for_bit(toolbox: Run, small_cnn_path: Path, lowered: Path, data: Path) -> None:
    result = toolbox("diff", "--bitwise", "--interpreter", "--codes", lowered, "--data", data, "--batch", 8, "--json")
    assert result.exit_code == 0
    found = _json(result)
    assert found["samples"] == 24
    assert {row["kind"] for row in found["rows"]} == {"output", "codes"}
    assert [row["mismatches"] for row in found["rows"] if row["judged"]] == [0, 0]
    assert toolbox("diff", "--bitwise", lowered, lowered, "--data", data, "--limit", 2).exit_code == 0
    if library_path() is not None:
        native = toolbox("diff", "--bitwise", "--provider", "qcompiler", lowered, "--data", data, "--limit", 2)
        assert native.exit_code == 0, native.output
        assert "with native kernels" in native.stdout
    different = toolbox("diff", "--bitwise", small_cnn_path, lowered, "--data", data, "--limit", 2)
    assert different.exit_code == 3
    assert "first difference" in different.stdout
    assert "20 elements differ" in different.stderr


def test_options_of_bitwise_belong_to_it(toolbox: Run, small_cnn_path: Path, data: Path) -> None:
    def refused(*arguments: object) -> str:
        result = toolbox("diff", small_cnn_path, *arguments)
        assert result.exit_code == 2
        return result.stderr

    assert "--codes needs --bitwise" in refused(small_cnn_path, "--codes")
    assert "--interpreter needs --bitwise" in refused(small_cnn_path, "--interpreter")
    assert "--batch needs --bitwise" in refused(small_cnn_path, "--batch", 2)
    assert "--provider needs --bitwise" in refused(small_cnn_path, "--provider", "qcompiler")
    assert "--isa needs --bitwise" in refused(small_cnn_path, "--isa", "avx2")
    assert "diff needs two models" in refused()
    assert "--bitwise needs samples" in refused(small_cnn_path, "--bitwise")
    assert "nothing to be compared with" in refused("--bitwise", "--data", data)


def test_bench(toolbox: Run, small_cnn_path: Path, compiled: Path) -> None:
    rows = _json(toolbox("bench", small_cnn_path, compiled, "--budget", "0.05", "--json"))
    assert [Path(row["path"]).name for row in rows] == ["small_cnn.onnx", "small.onnx"]
    assert rows[0]["speedup"]["value"] == 1
    assert all(row["timing"]["median"] > 0 for row in rows)
    assert "small.onnx" in toolbox("bench", compiled, "--budget", "0.05").stdout


# -- trouble ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [("inspect",), ("bench",), ("diff", "digits_cnn")])
def test_a_missing_model_is_usage(toolbox: Run, verb: tuple[str, ...]) -> None:
    result = toolbox(*verb, "nowhere.onnx")
    assert result.exit_code == 2
    assert "nowhere.onnx" in result.stderr


def test_what_is_no_model_fails(toolbox: Run, tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_text("hello", encoding="utf-8")
    result = toolbox("inspect", tmp_path / "no.onnx")
    assert result.exit_code == 1
    assert "no.onnx" in result.stderr


def test_replay_of_what_is_no_reproducer(toolbox: Run, tmp_path: Path) -> None:
    result = toolbox("replay", tmp_path)
    assert result.exit_code == 2


def test_bench_of_models_with_other_inputs(toolbox: Run, small_cnn_path: Path) -> None:
    result = toolbox("bench", small_cnn_path, "digits_cnn")
    assert result.exit_code == 2
    assert "the sample lacks input 'image'" in result.stderr


def test_a_pipeline_is_no_pass(toolbox: Run) -> None:
    result = toolbox("passes", "default")
    assert result.exit_code == 2
    assert "'default' is a pipeline" in result.stderr


def test_pipelines_break_between_passes(toolbox: Run) -> None:
    words = set(toolbox("passes").stdout.replace(",", " ").split())
    listed = json.loads(toolbox("passes", "--json").stdout)["pipelines"]
    assert {name for item in listed for name in item["text"].split(",")} <= words
