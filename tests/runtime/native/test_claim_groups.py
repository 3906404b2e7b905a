"""Quantized groups of other compilers, claimed where the option asks for it."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

import qcompiler
import qcompiler.runtime
from qcompiler.errors import UsageError
from qcompiler.models import loaders
from qcompiler.quant.integer import dyadic
from qcompiler.runtime import sessions
from qcompiler.runtime.library import library_path
from tests.runtime.native.foreign_groups import LEFT_ALONE, random_group

pytestmark = pytest.mark.skipif(library_path() is None, reason="the installation has no native library")

NIGHTLY = bool(os.environ.get("QCOMPILER_NIGHTLY"))


def claiming(
    model: onnx.ModelProto | Path, isa: str | None = None, *, optimized: bool = True
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return qcompiler.runtime.session(model, threads=1, isa=isa, claim=["qdq"], options=options)


def literal(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Float arithmetic, node by node as the file says."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def claimed(session: onnxruntime.InferenceSession) -> list[list[str]]:
    groups = session.get_provider_graph_assignment_info()
    ours = [group for group in groups if group.ep_name == sessions.PROVIDER]
    return [sorted({node.op_type for node in group.get_nodes()} & {"Conv", "Gemm", "MatMul"}) for group in ours]


def differences(found: NDArray[Any], expected: NDArray[Any]) -> NDArray[np.int64]:
    return np.abs(found.astype(np.int64) - expected.astype(np.int64))


@pytest.mark.parametrize("isa", ["auto", "reference"])
def test_random_groups_give_the_codes_of_float_arithmetic(isa: str) -> None:
    wrong = total = 0
    for seed in range(2000 if NIGHTLY else 60):
        group = random_group(np.random.default_rng(seed))
        model = group.model()
        session = claiming(model, isa)
        assert len(claimed(session)) == 1, f"seed {seed}"
        found, expected = session.run(["y"], {"x": group.x})[0], literal(model).run(["y"], {"x": group.x})[0]
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        distance = differences(found, expected)
        assert distance.max(initial=0) <= 1, f"seed {seed}"
        wrong += int((distance != 0).sum())
        total += distance.size
    assert wrong <= total // 1000


@pytest.mark.parametrize("reason", LEFT_ALONE)
def test_what_has_no_exact_form_stays_with_onnx_runtime(reason: str) -> None:
    group = LEFT_ALONE[reason]()
    model, feed = group.model(), {"x": group.x}
    assert claimed(claiming(model)) == []
    session = claiming(model, optimized=False)  # ONNX Runtime's own fusions refuse some of these groups
    assert claimed(session) == []
    np.testing.assert_array_equal(session.run(["y"], feed)[0], literal(model).run(["y"], feed)[0])


def test_nothing_is_claimed_unasked() -> None:
    model = random_group(np.random.default_rng(1)).model()
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    options.log_severity_level = 4
    assert claimed(qcompiler.runtime.session(model, options=options)) == []


def test_an_unknown_kind_is_refused_with_those_that_exist() -> None:
    model = random_group(np.random.default_rng(1)).model()
    with pytest.raises(UsageError, match="'qqd' is nothing that can be claimed") as caught:
        qcompiler.runtime.session(model, claim=["qdq", "qqd"])
    assert caught.value.hint == "choose qdq or matmulnbits"


REASONS = {
    "inner_output": "no QuantizeLinear is its only reader",
    "second_reader": "no QuantizeLinear is its only reader",
    "same_padding": "the padding follows from the shape",
    "asymmetric": "without its zero point the weight leaves 8 bits",
    "blocks": "there are scales per block",
    "computed_scale": "a scale is no constant of float",
    "wide_result": "activations have no 8-bit zero point",
}


@pytest.mark.parametrize("reason", REASONS)
def test_the_log_says_what_was_left_and_why(reason: str, capfd: pytest.CaptureFixture[str]) -> None:
    written = logged(LEFT_ALONE[reason]().model(), capfd)
    kind = "MatMul" if reason == "blocks" else "Conv"
    assert f"'product' ({kind}) is left to ONNX Runtime: {REASONS[reason]}" in written
    assert "taken of other compilers' products: 0 of 1" in written


def test_the_log_says_how_many_were_taken(capfd: pytest.CaptureFixture[str]) -> None:
    written = logged(random_group(np.random.default_rng(1)).model(), capfd)
    assert "taken of other compilers' products: 1 of 1" in written
    assert "is left to ONNX Runtime" not in written


def logged(model: onnx.ModelProto, capfd: pytest.CaptureFixture[str]) -> str:
    """What ONNX Runtime writes, where information is asked for."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 1
    qcompiler.runtime.session(model, threads=1, claim=["qdq"], options=options)
    return capfd.readouterr().err


@pytest.mark.parametrize(("activations", "per_channel"), [("QUInt8", True), ("QInt8", False)])
def test_a_network_of_the_runtimes_own_quantizer(tmp_path: Path, activations: str, per_channel: bool) -> None:
    pytest.importorskip("onnxruntime.quantization")
    from onnxruntime import quantization

    class Samples(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter([{"x": sample(seed)} for seed in range(4)])

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            return next(self.left, None)

    onnx.save(network(), tmp_path / "float.onnx")
    quantization.quantize_static(
        str(tmp_path / "float.onnx"),
        str(tmp_path / "quantized.onnx"),
        Samples(),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType[activations],
        per_channel=per_channel,
    )
    session = claiming(tmp_path / "quantized.onnx")
    assert sorted(claimed(session)) == [["Conv"]] * 3 + [["Gemm"], ["MatMul"]]
    feed = {"x": sample(9)}
    found = session.run(None, feed)[0]
    expected = literal(onnx.load(tmp_path / "quantized.onnx")).run(None, feed)[0]
    step = np.abs(expected).max() / 100
    assert np.abs(found - expected).max() <= step


def test_our_own_quantized_files_for_other_providers(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    qcompiler.compile("digits_cnn", "cpu-x86", output=path)
    with np.load(Path(loaders.__file__).parent / "digits_evaluation.npz") as data:
        feed = {"image": data[next(name for name in data.files if name != "labels")][:64]}
    session = claiming(path)
    assert len(claimed(session)) >= 8
    found, expected = session.run(None, feed)[0], literal(onnx.load(path)).run(None, feed)[0]
    agreement = (found.argmax(axis=-1) == expected.argmax(axis=-1)).mean()
    assert agreement == 1
    assert np.abs(found - expected).max() <= 0.05 * np.abs(expected).max()


def sample(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(2, 3, 16, 16)).astype(np.float32)


def network() -> onnx.ModelProto:
    """Three convolutions, one of them depthwise, and two matrix products."""
    random = np.random.default_rng(0)
    shapes = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 1, 3, 3), "w3": (16, 8, 1, 1), "w4": (1024, 10), "b4": (10,)}
    arrays = {name: random.normal(0, 0.3, shape) for name, shape in {**shapes, "w5": (10, 7)}.items()}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], group=8, pads=[1] * 4),
        helper.make_node("Clip", ["c", "low", "high"], ["d"]),
        helper.make_node("Conv", ["d", "w3"], ["e"], strides=[2, 2]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "w4", "b4"], ["g"]),
        helper.make_node("MatMul", ["g", "w5"], ["y"]),
    ]
    held = {**arrays, "low": np.zeros(()), "high": np.full((), 6)}
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, 16, 16])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 7])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in held.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def test_dyadic_numbers_are_those_of_the_specification() -> None:
    library = ctypes.CDLL(str(library_path()))
    multiplier, shift = ctypes.c_int32(), ctypes.c_uint8()
    random = np.random.default_rng(4)
    borders = [0.5, 1.0, np.nextafter(1.0, 0), np.nextafter(0.25, 0), 0.0, np.inf]
    factors = [*np.exp2(random.uniform(-70, 32, 3000)), *borders]
    for factor in factors:
        bits, bound = int(random.choice([8, 16, 31])), int(2 ** random.uniform(0, 60))
        given = ctypes.c_double(factor), ctypes.c_int32(bits), ctypes.c_int64(bound)
        failed = library.qcompiler_choose_dyadic(*given, ctypes.byref(multiplier), ctypes.byref(shift))
        try:
            chosen = dyadic.choose(float(factor), bits, bound)
        except ValueError:
            assert failed, factor
            continue
        assert not failed, factor
        assert chosen.multiplier is not None
        assert (multiplier.value, shift.value) == (int(chosen.multiplier), int(chosen.shift)), factor


@pytest.mark.parametrize("own_constants", [False, True])
def test_groups_inside_subgraphs(own_constants: bool) -> None:
    """Claimed or not, a branch computes what it did."""
    group = random_group(np.random.default_rng(2))
    model = group.model()
    inner = helper.make_graph(
        list(model.graph.node),
        "inside",
        [],
        [helper.make_tensor_value_info("y", group.y_type, None)],
        list(model.graph.initializer) if own_constants else [],
    )
    other = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["other"], to=group.y_type)],
        "outside",
        [],
        [helper.make_tensor_value_info("other", group.y_type, None)],
    )
    del model.graph.node[:]
    if own_constants:
        del model.graph.initializer[:]
    model.graph.node.append(helper.make_node("If", ["flag"], ["y"], then_branch=inner, else_branch=other))
    model.graph.input.append(helper.make_tensor_value_info("flag", onnx.TensorProto.BOOL, []))
    feed = {"x": group.x, "flag": np.asarray(True)}
    found, expected = claiming(model).run(["y"], feed)[0], literal(model).run(["y"], feed)[0]
    assert differences(found, expected).max(initial=0) <= 1
