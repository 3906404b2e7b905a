"""``qcompile`` from end to end: what it writes, what it says, and that it says the same twice."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from click.testing import Result
from onnx import TensorProto, helper

Run = Callable[..., Result]


def _report(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    return report


# -- the main job ----------------------------------------------------------------------------------------------


def test_a_sample_compiles_with_one_command(qcompile: Run, work: Path) -> None:
    result = qcompile("digits_cnn", "--target", "edge-npu")
    assert result.exit_code == 0, result.output
    onnx.checker.check_model(str(work / "digits_cnn.edge-npu.onnx"))
    assert [path.name for path in work.iterdir()] == ["digits_cnn.edge-npu.onnx"]
    assert "digits_evaluation.npz" in result.stdout


def test_the_installed_command_works(work: Path) -> None:
    command = [sys.executable, "-m", "qcompiler.cli", "digits_cnn", "-t", "edge-npu", "-o", "a.onnx", "-q"]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("", "")
    assert (work / "a.onnx").is_file()


def test_the_result_agrees_with_the_float_model(qcompile: Run) -> None:
    for target in ("cpu-x86", "edge-npu", "edge-npu-per-tensor"):
        report = _report(qcompile("digits_cnn", "-t", target, "--json", "--no-latency"))
        output = report["quality"]["outputs"][0]  # type: ignore[index]
        assert output["samples"] == 500
        assert output["agreement"] >= 99
        assert output["top1"] >= 99


def test_equal_inputs_give_equal_bytes(compile_small: Run, work: Path) -> None:
    assert compile_small("-o", "a.onnx", "--no-cache").exit_code == 0
    assert compile_small("-o", "b.onnx").exit_code == 0
    assert compile_small("-o", "c.onnx").exit_code == 0  # the second run reads the cache
    first = (work / "a.onnx").read_bytes()
    assert (work / "b.onnx").read_bytes() == first
    assert (work / "c.onnx").read_bytes() == first
    assert compile_small("-o", "a.onnx").exit_code == 0  # over itself
    assert (work / "a.onnx").read_bytes() == first


def test_reports_of_equal_compiles_differ_in_timing_only(compile_small: Run, work: Path) -> None:
    reports = []
    for name in ("one.json", "two.json"):
        assert compile_small("--no-cache", "--report", name).exit_code == 0
        content = json.loads((work / name).read_text(encoding="utf-8"))
        del content["timing"]
        reports.append(content)
    assert reports[0] == reports[1]


# -- what it says ----------------------------------------------------------------------------------------------


def test_the_configuration_in_force_is_echoed(compile_small: Run) -> None:
    result = compile_small("--format", "w8a8", "--observer", "mse", "--limit", 16, "--exclude", "fc")
    assert result.exit_code == 0, result.output
    for words in ("cpu-x86", "w8a8", "mse", "held out", "fc", "16"):
        assert words in result.stdout.split("\n\n")[0]


def test_the_default_format_is_echoed_as_default(compile_small: Run) -> None:
    assert "w8a8 (default of the profile)" in compile_small().stdout


def test_quiet_says_nothing(compile_small: Run) -> None:
    result = compile_small("--quiet")
    assert (result.stdout, result.stderr) == ("", "")


def test_json_keeps_standard_output_clean(compile_small: Run) -> None:
    result = compile_small("--json")
    assert _report(result)["schema"] == 1
    assert "cpu-x86" in result.stderr


def test_the_report_is_the_json(compile_small: Run, work: Path) -> None:
    result = compile_small("--json", "--report", "report.json")
    assert json.loads((work / "report.json").read_text(encoding="utf-8")) == _report(result)


def test_held_out_samples_are_told(compile_small: Run) -> None:
    report = _report(compile_small("--json"))
    assert report["calibration"]["samples"] == 21  # type: ignore[index]
    assert report["evaluation"]["samples"] == 3  # type: ignore[index]
    assert report["evaluation"]["held_out"] is True  # type: ignore[index]


def test_evaluation_samples_that_were_fitted_are_left_out(
    compile_small: Run, data: Path, tmp_path: Path
) -> None:
    fitted = np.load(data)["x"]
    fresh = np.random.default_rng(9).standard_normal((5, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "mixed.npz", x=np.concatenate([fitted[:4], fresh]))
    report = _report(compile_small("--json", "--evaluation", tmp_path / "mixed.npz"))
    assert report["evaluation"]["samples"] == 5  # type: ignore[index]
    assert "4 evaluation samples" in " ".join(report["evaluation"]["notes"])  # type: ignore[index]


def test_random_calibration_warns_loudly(qcompile: Run, small_cnn_path: Path) -> None:
    result = qcompile(small_cnn_path, "-t", "edge-npu", "--calibration", "random", "--quiet")
    assert result.exit_code == 0, result.output
    assert "warning" in result.stderr
    assert "random noise" in result.stderr


# -- options ---------------------------------------------------------------------------------------------------


def test_a_depfile_names_everything_read(compile_small: Run, work: Path, small_cnn_path: Path, data: Path) -> None:
    assert compile_small("-o", "out.onnx", "--depfile", "out.d").exit_code == 0
    text = (work / "out.d").read_text(encoding="utf-8")
    assert text.startswith("out.onnx:")
    assert str(small_cnn_path) in text
    assert str(data) in text


def test_excluded_nodes_stay_float_and_say_why(compile_small: Run) -> None:
    for selector in ("conv", "Conv", "re:^con"):
        report = _report(compile_small("--json", "--exclude", selector))
        fallbacks = {item["node"]: item["reason"] for item in report["coverage"]["fallbacks"]}  # type: ignore[index]
        assert selector in fallbacks["conv"]


def test_a_plan_gives_the_same_file_again(compile_small: Run, work: Path) -> None:
    assert compile_small("-o", "a.onnx", "--plan-out", "plan.json").exit_code == 0
    assert compile_small("-o", "b.onnx", "--plan", "plan.json").exit_code == 0
    assert (work / "a.onnx").read_bytes() == (work / "b.onnx").read_bytes()


def test_an_edited_plan_is_followed(compile_small: Run, work: Path) -> None:
    assert compile_small("--plan-out", "plan.json").exit_code == 0
    plan = json.loads((work / "plan.json").read_text(encoding="utf-8"))
    value = next(name for name, entry in plan["values"].items() if entry["format"] == "u8")
    plan["values"][value]["scale"] = 0.5
    (work / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    assert compile_small("-o", "b.onnx", "--plan", "plan.json").exit_code == 0
    scales = [item.const_value.numpy() for item in ir.load(work / "b.onnx").graph.initializers.values()]
    assert any(scale.shape == () and scale == 0.5 for scale in scales)


def test_dumps_are_numbered(compile_small: Run, work: Path) -> None:
    assert compile_small("--dump-dir", "dump").exit_code == 0
    names = sorted(path.name for path in (work / "dump").iterdir())
    assert names[0] == "000_input.txt"
    assert any(name.endswith("_place-qdq.txt") for name in names)


def test_a_pipeline_text_is_followed(compile_small: Run) -> None:
    text = "normalize,assign-formats,calibrate{method=percentile},calibrate-weights,place-qdq,finalize"
    report = _report(compile_small("--json", "--pipeline", text))
    names = [item["text"].partition("{")[0] for item in report["passes"]]
    assert "correct-bias" not in names
    assert names[-2:] == ["place-qdq", "finalize"]


def test_a_pipeline_without_lowering_says_so_on_an_integer_target(compile_small: Run) -> None:
    text = "normalize,assign-formats,calibrate,calibrate-weights,place-qdq,finalize"
    for extra, told in (((), True), (("--lowering", "qdq"), False)):
        result = compile_small("--target", "edge-npu", "--pipeline", text, "--json", *extra)
        report = _report(result)
        assert any("ends in Q/DQ form" in item for item in report["warnings"]) is told
        assert ("ends in Q/DQ form" in result.stderr) is told


def test_bias_correction_can_be_left_out(compile_small: Run) -> None:
    report = _report(compile_small("--json", "--no-bias-correction"))
    assert all(item["text"] != "correct-bias" for item in report["passes"])


@pytest.mark.parametrize("method", ["minmax", "moving-average", "percentile", "mse", "entropy"])
def test_every_observer_works(compile_small: Run, method: str) -> None:
    report = _report(compile_small("--json", "--observer", method))
    assert report["quality"]["outputs"][0]["cosine"] > 0.99  # type: ignore[index]


def test_numerics_can_be_verified(compile_small: Run) -> None:
    assert compile_small("--verify", "numerics").exit_code == 0


# -- gates -----------------------------------------------------------------------------------------------------

GATES = [("--min-sqnr", "150"), ("--max-fallback", "0")]


@pytest.mark.parametrize(("gate", "value"), GATES)
def test_a_missed_gate_is_exit_code_3_and_no_file(compile_small: Run, work: Path, gate: str, value: str) -> None:
    result = compile_small(gate, value, "--exclude", "conv", "--report", "report.json")
    assert result.exit_code == 3, result.output
    assert "gate" in result.stderr
    assert "--keep" in result.stderr
    assert [path.name for path in work.iterdir()] == ["report.json"]
    report = json.loads((work / "report.json").read_text(encoding="utf-8"))
    assert report["gates"]["misses"]
    assert report["kept"] is False


def test_a_missed_gate_leaves_an_old_output_alone(compile_small: Run, work: Path) -> None:
    (work / "out.onnx").write_bytes(b"old")
    assert compile_small("--min-sqnr", "150", "-o", "out.onnx").exit_code == 3
    assert (work / "out.onnx").read_bytes() == b"old"


def test_keep_keeps_it(compile_small: Run, work: Path) -> None:
    assert compile_small("--min-sqnr", "150", "--keep", "-o", "out.onnx").exit_code == 3
    onnx.checker.check_model(str(work / "out.onnx"))


def test_met_gates_pass(compile_small: Run) -> None:
    assert compile_small("--min-sqnr", "15", "--min-agreement", "50", "--max-fallback", "0").exit_code == 0


def test_a_worthless_result_is_never_a_success(compile_small: Run, work: Path) -> None:
    """With steps a thousand times too wide everything rounds to zero: the default gate must see it."""
    assert compile_small("-o", "good.onnx", "--plan-out", "plan.json").exit_code == 0
    plan = json.loads((work / "plan.json").read_text(encoding="utf-8"))
    for entry in plan["values"].values():
        if isinstance(entry.get("scale"), float):
            entry["scale"] *= 1000
    (work / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    result = compile_small("-o", "bad.onnx", "--plan", "plan.json")
    assert result.exit_code == 3, result.output
    assert "output y" in result.stderr
    assert not (work / "bad.onnx").exists()


# -- unusual models --------------------------------------------------------------------------------------------


def _model(path: Path, nodes: list[onnx.NodeProto], shape: list[object], weights: dict[str, np.ndarray]) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def _weight(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_an_operator_unknown_to_the_target_stays_float_and_is_told(qcompile: Run, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "conv"),
        helper.make_node("Celu", ["a"], ["b"], "celu"),
        helper.make_node("Conv", ["b", "v"], ["y"], "last"),
    ]
    path = _model(tmp_path / "m.onnx", nodes, ["N", 3, 8, 8], {"w": _weight(8, 3, 3, 3), "v": _weight(4, 8, 1, 1)})
    report = _report(qcompile(path, "-t", "cpu-x86", "-c", "random", "--json", "--no-latency"))
    fallbacks = {item["op_type"]: item["reason"] for item in report["coverage"]["fallbacks"]}  # type: ignore[index]
    assert "no integer Celu" in fallbacks["Celu"]


def test_dynamic_shapes_need_no_care(qcompile: Run, tmp_path: Path) -> None:
    path = _model(
        tmp_path / "m.onnx", [helper.make_node("Conv", ["x", "w"], ["y"], "conv")],
        ["N", 3, "H", "W"], {"w": _weight(8, 3, 3, 3)},
    )  # fmt: skip
    np.savez(tmp_path / "d.npz", x=_weight(8, 3, 12, 9))
    assert qcompile(path, "-t", "edge-npu", "-c", tmp_path / "d.npz").exit_code == 0


def test_zero_size_tensors_pass_through(qcompile: Run, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "conv"),
        helper.make_node("Concat", ["a", "nothing"], ["y"], "concat", axis=1),
    ]
    weights = {"w": _weight(8, 3, 3, 3), "nothing": np.zeros((1, 0, 6, 6), np.float32)}
    path = _model(tmp_path / "m.onnx", nodes, [1, 3, 8, 8], weights)
    result = qcompile(path, "-t", "edge-npu", "-c", "random", "--no-latency")
    assert result.exit_code == 0, result.output


def test_a_model_with_nothing_to_quantize_is_refused(qcompile: Run, tmp_path: Path, work: Path) -> None:
    path = _model(tmp_path / "m.onnx", [helper.make_node("Celu", ["x"], ["y"], "celu")], ["N", 4], {})
    result = qcompile(path, "-t", "cpu-x86", "-c", "random")
    assert result.exit_code == 1
    assert "no integer Celu" in result.stderr
    assert list(work.iterdir()) == []


def test_lowering(qcompile: Run, small_cnn_path: Path, data: Path, work: Path) -> None:
    def domains(*arguments: object) -> set[str]:
        base = (small_cnn_path, "-t", "edge-npu", "-c", data, "-o", work / "out.onnx", "-q")
        result = qcompile(*base, *arguments)
        assert result.exit_code == 0, result.output
        return {node.domain for node in onnx.load(work / "out.onnx").graph.node}

    assert "ai.qcompiler" in domains("--lowering", "integer")
    assert "ai.qcompiler" not in domains("--lowering", "qdq")
    (work / "c.toml").write_text('lowering = "integer"', encoding="utf-8")
    assert "ai.qcompiler" in domains("--config", work / "c.toml")
    assert "ai.qcompiler" not in domains("--config", work / "c.toml", "--lowering", "qdq")


def test_the_report_of_an_integer_graph_names_what_is_float(qcompile: Run, small_cnn_path: Path, data: Path) -> None:
    base = (small_cnn_path, "-t", "edge-npu", "-c", data, "--lowering", "integer")
    report = json.loads(qcompile(*base, "--exclude", "fc", "--json").stdout)
    assert report["integer"]["holds"]
    assert report["integer"]["after"] == [{"name": "fc", "op_type": "Gemm"}]
    assert report["configuration"]["lowering"] == "integer"
    report = json.loads(qcompile(*base, "--exclude", "pool", "--json").stdout)
    (island,) = report["integer"]["islands"]
    assert [node["name"] for node in island["nodes"]] == ["pool", "flatten"]
    assert island["reasons"][0] == "excluded by 'pool'"
    assert report["integer"]["float_tensors"] == island["tensors"] == 3
    assert not report["integer"]["holds"]
    text = qcompile(*base, "--exclude", "pool").stdout
    assert "not integer-only: 3 float tensors inside" in text
    assert "pool (MaxPool), flatten (Flatten): excluded by 'pool'" in text


def test_integer_operators_need_signed_codes(compile_small: Run) -> None:
    result = compile_small("--lowering", "integer")
    assert result.exit_code == 2
    assert "cpu-x86 takes u8" in result.stderr
    assert "--lowering qdq" in result.stderr


def test_samples_of_weight_0_are_as_if_they_were_not_there(
    qcompile: Run, small_cnn_path: Path, tmp_path: Path, work: Path
) -> None:
    x = np.random.default_rng(1).standard_normal((24, 3, 8, 8)).astype(np.float32)
    x[[2, 9, 23]] *= 40
    counted = np.delete(np.arange(24), [2, 9, 23])
    weights = np.zeros(24)
    weights[counted] = np.linspace(0.5, 2, 21)
    cases: dict[str, dict[str, Any]] = {
        "all": {"x": x, "qcompiler.weights": weights},
        "some": {"x": x[counted], "qcompiler.weights": weights[counted]},
        "alike": {"x": x[counted]},
    }
    for name, arrays in cases.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
        result = qcompile(
            small_cnn_path, "--target", "edge-npu", "--format", "w4a8", "-c", tmp_path / f"{name}.npz", "-o",
            f"{name}.onnx", "--report", f"{name}.json", "--no-latency", "--keep",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
    files = {name: (work / f"{name}.onnx").read_bytes() for name in cases}
    assert files["all"] == files["some"] != files["alike"]
    assert "3 samples of weight 0 are left out" in (work / "all.json").read_text(encoding="utf-8")
