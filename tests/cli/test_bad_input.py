"""The bad input table: right exit code, clear words, no partial output, never a traceback."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import Result
from onnx import TensorProto, helper, numpy_helper

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _nothing_left(work: Path) -> Any:
    """No test of this file may leave a file behind."""
    yield
    assert [path.name for path in work.iterdir()] == []


def _expect(result: Result, code: int, *words: str) -> None:
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    for word in words:
        assert word in result.stderr


def _save(path: Path, nodes: list[onnx.NodeProto], *, shape: list[Any] | None = None, **options: Any) -> Path:
    """A model with input ``x`` and output ``y``."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape or ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        options.pop("weights", []),
    )
    opsets = [helper.make_opsetid("", options.pop("opset", 17)), *options.pop("opsets", [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def _weight(*shape: int, value: float | None = None) -> onnx.TensorProto:
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return numpy_helper.from_array(array if value is None else np.full_like(array, value), "w")


@pytest.fixture
def attempt(qcompile: Run, data: Path) -> Run:
    """Compiles a model file with the data of ``small_cnn``."""
    return lambda path, *more: qcompile(path, "--target", "edge-npu", "--calibration", data, *more)


# -- the model file --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_file(attempt: Run, small_cnn_path: Path, share: float) -> None:
    content = small_cnn_path.read_bytes()
    small_cnn_path.write_bytes(content[: int(len(content) * share)])
    _expect(attempt(small_cnn_path), 1, "small_cnn.onnx")


@pytest.mark.parametrize("content", [b"", b"hello world\n", b"\x00" * 100, b"\x89PNG\r\n\x1a\n" + bytes(range(256))])
def test_not_a_model(attempt: Run, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "no.onnx"
    path.write_bytes(content)
    _expect(attempt(path), 1, "no.onnx")


def test_missing_file(attempt: Run, tmp_path: Path) -> None:
    _expect(attempt(tmp_path / "nowhere.onnx"), 2, "there is no model file")


def test_cyclic_graph(attempt: Run, tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"], "first"), helper.make_node("Relu", ["a"], ["b"], "second")]
    nodes.append(helper.make_node("Relu", ["b"], ["y"]))
    _expect(attempt(_save(tmp_path / "cycle.onnx", nodes)), 1, "cycl", "first")


def _external(path: Path, location: str) -> Path:
    weight = _weight(8, 3, 3, 3)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(8 * 27 * 4))):
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    return _save(path, [helper.make_node("Conv", ["x", "w"], ["y"], "conv")], weights=[weight])


def test_missing_external_data(attempt: Run, tmp_path: Path) -> None:
    _expect(attempt(_external(tmp_path / "m.onnx", "weights.bin")), 1, "weights.bin", "missing")


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "sub/../../secret.bin"])
def test_external_path_outside_the_folder(attempt: Run, tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(8 * 27 * 4))
    (tmp_path / "inner").mkdir()
    _expect(attempt(_external(tmp_path / "inner" / "m.onnx", location)), 1, "outside the folder")


def test_external_data_too_short(attempt: Run, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(10))
    _expect(attempt(_external(tmp_path / "m.onnx", "weights.bin")), 1, "weights.bin")


@pytest.mark.parametrize("opset", [5, 99])
def test_unsupported_opset(attempt: Run, tmp_path: Path, opset: int) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    _expect(attempt(_save(tmp_path / "m.onnx", nodes, opset=opset)), 1, str(opset), "opset")


def test_nan_weights(attempt: Run, tmp_path: Path) -> None:
    weight = _weight(8, 3, 3, 3, value=float("nan"))
    path = _save(tmp_path / "m.onnx", [helper.make_node("Conv", ["x", "w"], ["y"], "conv")], weights=[weight])
    _expect(attempt(path), 1, "the weight 'w' of conv holds NaN")


def test_an_unknown_operator_nobody_can_run_is_named(attempt: Run, tmp_path: Path) -> None:
    nodes = [helper.make_node("Frobnicate", ["x"], ["y"], "frob", domain="com.example")]
    path = _save(tmp_path / "m.onnx", nodes, opsets=[helper.make_opsetid("com.example", 1)])
    _expect(attempt(path), 1, "Frobnicate")


# -- the data --------------------------------------------------------------------------------------------------


def test_empty_calibration(qcompile: Run, small_cnn_path: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "empty.npz", x=np.zeros((0, 3, 8, 8), np.float32))
    result = qcompile(small_cnn_path, "--target", "edge-npu", "--calibration", tmp_path / "empty.npz")
    _expect(result, 1, "no samples", "empty.npz")


def test_missing_calibration(qcompile: Run, small_cnn_path: Path) -> None:
    _expect(qcompile(small_cnn_path, "--target", "edge-npu", "--calibration", "nowhere.npz"), 1, "nowhere.npz")


def test_wrong_input_names(qcompile: Run, small_cnn_path: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "names.npz", image=np.zeros((4, 3, 8, 8), np.float32))
    result = qcompile(small_cnn_path, "--target", "edge-npu", "--calibration", tmp_path / "names.npz")
    _expect(result, 1, "image", "x", "names.npz")


def test_wrong_shape(qcompile: Run, small_cnn_path: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "shape.npz", x=np.zeros((4, 8, 8, 3), np.float32))
    result = qcompile(small_cnn_path, "--target", "edge-npu", "--calibration", tmp_path / "shape.npz")
    _expect(result, 1, "'x'", "transpose")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_samples_that_are_not_finite(qcompile: Run, small_cnn_path: Path, tmp_path: Path, value: float) -> None:
    samples = np.zeros((4, 3, 8, 8), np.float32)
    samples[2, 0, 0, 0] = value
    np.savez(tmp_path / "nan.npz", x=samples)
    result = qcompile(small_cnn_path, "--target", "edge-npu", "--calibration", tmp_path / "nan.npz")
    _expect(result, 1, "'x'", "2", "nan.npz")


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (np.array([1.0] * 23 + [-0.5]), ("sample 23", "negative")),
        (np.array([np.nan] + [1.0] * 23), ("sample 0", "not finite")),
        (np.ones(7), ("(7,)", "24 samples")),
        (np.ones((24, 2)), ("2 positions", "3 positions")),
        (np.zeros(24), ("every sample weighs 0",)),
    ],
)
def test_weights_that_cannot_be(
    qcompile: Run, small_cnn_path: Path, tmp_path: Path, weights: np.ndarray, words: tuple[str, ...]
) -> None:
    arrays: dict[str, Any] = {"x": np.ones((24, 3, 8, 8), np.float32), "qcompiler.weights": weights}
    np.savez(tmp_path / "weighted.npz", **arrays)
    result = qcompile(small_cnn_path, "--target", "edge-npu", "--calibration", tmp_path / "weighted.npz")
    _expect(result, 1, "weighted.npz, qcompiler.weights", *words)


def test_one_sample_cannot_be_fitted_and_judged(qcompile: Run, small_cnn_path: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", x=np.zeros((1, 3, 8, 8), np.float32))
    result = qcompile(small_cnn_path, "--target", "edge-npu", "--calibration", tmp_path / "one.npz")
    _expect(result, 1, "--evaluation")


# -- the output ------------------------------------------------------------------------------------------------


def test_the_output_folder_is_a_file(attempt: Run, small_cnn_path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    _expect(attempt(small_cnn_path, "-o", tmp_path / "file" / "out.onnx"), 1, "out")


def test_the_output_folder_does_not_exist(attempt: Run, small_cnn_path: Path, tmp_path: Path) -> None:
    _expect(attempt(small_cnn_path, "-o", tmp_path / "nowhere" / "out.onnx"), 1, "nowhere", "does not exist")


def _failing(number: int) -> Callable[..., None]:
    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_read_only_output_folder(attempt: Run, small_cnn_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.mkdtemp", _failing(errno.EACCES))
    _expect(attempt(small_cnn_path), 1, "Permission denied", "edge-npu.onnx")


def test_disk_full_while_the_model_is_written(
    attempt: Run, small_cnn_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fsync", _failing(errno.ENOSPC))
    result = attempt(small_cnn_path)
    _expect(result, 1, "error: small_cnn.edge-npu.onnx: the disk is full")


def test_disk_full_at_the_last_moment(attempt: Run, small_cnn_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qcompiler.driver.files.os", SimpleNamespace(replace=_failing(errno.ENOSPC)))
    _expect(attempt(small_cnn_path), 1, "No space left")


# -- the user, and ourselves -----------------------------------------------------------------------------------


def _plant(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let the pass ``place-qdq`` raise."""
    from qcompiler.passes.place.place_qdq import PlaceQdq

    def run(*_: object) -> None:
        raise error

    monkeypatch.setattr(PlaceQdq, "run", run)


def test_interrupt(attempt: Run, small_cnn_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _plant(monkeypatch, KeyboardInterrupt())
    _expect(attempt(small_cnn_path), 130, "interrupted")


def test_out_of_memory(attempt: Run, small_cnn_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qcompiler.ir.io.load", lambda _: (_ for _ in ()).throw(MemoryError))
    _expect(attempt(small_cnn_path), 1, "out of memory")


def test_a_bug_outside_the_passes_is_called_one(
    attempt: Run, small_cnn_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise KeyError("fq_weights_1")

    monkeypatch.setattr("qcompiler.ir.io.load", broken)
    _expect(attempt(small_cnn_path), 1, "KeyError", "fq_weights_1", "this is a bug in qcompiler")


def test_a_bug_in_a_pass_leaves_what_reproduces_it(
    attempt: Run, small_cnn_path: Path, tmp_path: Path, toolbox: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    _plant(monkeypatch, ZeroDivisionError("planted"))
    output = tmp_path / "out" / "m.onnx"
    output.parent.mkdir()
    _expect(attempt(small_cnn_path, "-o", output), 1, "place-qdq", "planted", "qcompiler replay", "m.onnx.repro")
    assert [path.name for path in output.parent.iterdir()] == ["m.onnx.repro"]
    _expect(toolbox("replay", tmp_path / "out" / "m.onnx.repro"), 1, "place-qdq", "planted")
    monkeypatch.undo()
    _expect(toolbox("replay", tmp_path / "out" / "m.onnx.repro"), 0)


def test_a_refusal_leaves_a_reproducer_only_on_request(
    attempt: Run, small_cnn_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qcompiler.errors import PassError

    _plant(monkeypatch, PassError("cannot place this"))
    _expect(attempt(small_cnn_path), 1, "cannot place this")
    _expect(attempt(small_cnn_path, "--repro-dir", tmp_path / "repro"), 1, "cannot place this", "replay")
    assert (tmp_path / "repro" / "reproduce.json").is_file()


def test_traceback_on_request(attempt: Run, small_cnn_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _plant(monkeypatch, ZeroDivisionError("planted"))
    result = attempt(small_cnn_path, "--traceback", "--repro-dir", small_cnn_path.parent / "repro")
    assert result.exit_code == 1
    assert "ZeroDivisionError: planted" in result.stderr
    assert "Traceback" in result.stderr
