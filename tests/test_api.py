"""The Python interface does what the command does, with the same options."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import qcompiler
from qcompiler.driver.options import CompileOptions


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def _feeds(count: int = 16) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(1)
    return [{"x": random.standard_normal((1, 3, 8, 8)).astype(np.float32)} for _ in range(count)]


# -- the surface -----------------------------------------------------------------------------------------------


def test_public_names_are_sorted_and_exist() -> None:
    assert sorted(qcompiler.__all__) == qcompiler.__all__
    for name in qcompiler.__all__:
        assert getattr(qcompiler, name).__name__ == name


def test_unknown_names_are_no_attributes() -> None:
    with pytest.raises(AttributeError, match="no attribute 'banana'"):
        qcompiler.banana  # noqa: B018


def test_every_option_is_an_argument() -> None:
    arguments = inspect.signature(qcompiler.compile).parameters
    assert set(arguments) - {"progress"} == set(CompileOptions.names())
    for field in dataclasses.fields(CompileOptions):
        if field.default is not dataclasses.MISSING:
            assert arguments[field.name].default == field.default
            assert arguments[field.name].kind is inspect.Parameter.KEYWORD_ONLY


def test_every_option_is_on_the_command_line_with_the_same_default() -> None:
    from qcompiler.cli.compile import main

    parameters = {parameter.name: parameter for parameter in main.params}
    for field in dataclasses.fields(CompileOptions):
        parameter = parameters[field.name]
        if field.default is not dataclasses.MISSING and not parameter.multiple:  # type: ignore[attr-defined]
            assert parameter.to_info_dict()["default"] in (field.default, None), field.name


# -- compiling -------------------------------------------------------------------------------------------------


def test_compile_gives_model_path_report_and_plan() -> None:
    result = qcompiler.compile("digits_cnn", "edge-npu", output="digits.onnx")
    assert result.path == Path("digits.onnx")
    onnx.checker.check_model("digits.onnx")
    assert any(node.op_type == "QuantizeLinear" for node in result.model.graph)
    assert result.report.quality is not None
    assert result.report.quality.outputs[0].agreement >= 99
    assert result.plan["schema"] == 1
    assert result.plan["target"] == "edge-npu"


@pytest.mark.parametrize("kind", ["path", "proto", "ir"])
def test_a_model_may_be_in_memory(small_cnn: ir.Model, small_cnn_path: Path, kind: str) -> None:
    model = {"path": small_cnn_path, "proto": ir.to_proto(small_cnn), "ir": small_cnn}[kind]
    before = ir.to_proto(small_cnn).SerializeToString()
    result = qcompiler.compile(model, "cpu-x86", calibration=_feeds(), latency=False)
    assert result.path.name == "small_cnn.cpu-x86.onnx"
    assert ir.to_proto(small_cnn).SerializeToString() == before


def test_feeds_in_memory_equal_a_file(small_cnn_path: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.concatenate([feed["x"] for feed in _feeds()]))
    for name, data in (("a.onnx", _feeds()), ("b.onnx", tmp_path / "data.npz"), ("c.onnx", iter(_feeds()))):
        qcompiler.compile(small_cnn_path, "edge-npu", calibration=data, output=name, cache=False)
    assert Path("a.onnx").read_bytes() == Path("b.onnx").read_bytes() == Path("c.onnx").read_bytes()


def test_passes_may_be_given_as_values(small_cnn_path: Path) -> None:
    from qcompiler.pipeline import spec

    passes = spec.parse("normalize,assign-formats,calibrate,calibrate-weights,place-qdq,finalize")
    result = qcompiler.compile(small_cnn_path, "edge-npu", calibration=_feeds(), pipeline=passes)
    assert len(result.report.passes) == len(passes)


def test_progress_is_reported(small_cnn_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    qcompiler.compile(
        small_cnn_path, "edge-npu", calibration=_feeds(), cache=False,
        progress=lambda stage, done, total: seen.append((stage, done, total)),
    )  # fmt: skip
    stages = {stage for stage, _, _ in seen}
    assert {"passes", "calibrate", "float", "quantized"} <= stages
    assert all(0 <= done <= total for _, done, total in seen)


def test_a_missed_gate_is_an_error_with_a_report(small_cnn_path: Path) -> None:
    with pytest.raises(qcompiler.GateError, match="SQNR") as caught:
        qcompiler.compile(small_cnn_path, "edge-npu", calibration=_feeds(), min_sqnr=150)
    assert caught.value.report is not None
    assert caught.value.report.gates.misses
    assert list(Path.cwd().iterdir()) == []


def test_errors_are_caught_at_the_level_one_cares_about(small_cnn_path: Path) -> None:
    with pytest.raises(qcompiler.TargetError, match="did you mean 'edge-npu'"):
        qcompiler.compile(small_cnn_path, "edge-npv", calibration=_feeds())
    with pytest.raises(qcompiler.UsageError):
        qcompiler.compile(small_cnn_path, "edge-npu", calibration=_feeds(), verify="maybe")
    with pytest.raises(qcompiler.QCompilerError):
        qcompiler.compile(small_cnn_path, "edge-npu")


def test_an_array_by_itself_is_no_data(small_cnn_path: Path) -> None:
    with pytest.raises(qcompiler.DataError, match="not a mapping"):
        qcompiler.compile(small_cnn_path, "cpu-x86", calibration=np.zeros((4, 3, 8, 8), np.float32))  # type: ignore[arg-type]


def test_a_result_prints_as_one_line(small_cnn_path: Path) -> None:
    result = qcompiler.compile(small_cnn_path, "edge-npu", calibration=_feeds())
    assert len(repr(result)) < 200


def test_the_api_and_the_command_give_equal_bytes(small_cnn_path: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from qcompiler.cli.compile import main

    data = tmp_path / "data.npz"
    np.savez(data, x=np.concatenate([feed["x"] for feed in _feeds()]))
    arguments = [str(small_cnn_path), "-t", "edge-npu", "-c", str(data), "-o", "cli.onnx", "-q"]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    qcompiler.compile(small_cnn_path, "edge-npu", calibration=data, output="api.onnx", report="report.json")
    assert Path("cli.onnx").read_bytes() == Path("api.onnx").read_bytes()
    assert json.loads(Path("report.json").read_text(encoding="utf-8"))["schema"] == 1
