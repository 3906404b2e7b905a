"""Nodes taken out of a model run by themselves, in every width of weights, and compute what the model computes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import qcompiler
from qcompiler.analysis.specimen_grid import grid
from qcompiler.analysis.specimens import Specimen, feed_of, isolated, other_widths, specimen
from qcompiler.analysis.workload import bind_dimensions, distinct, workloads
from qcompiler.ir import io


def _run(content: bytes, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"]).run(None, feed)


@pytest.fixture
def compiled(small_cnn_path: Path, tmp_path: Path) -> Path:
    """``small_cnn`` in integer operators."""
    path = tmp_path / "compiled.onnx"
    random = np.random.default_rng(0)
    samples = [{"x": random.standard_normal((1, 3, 8, 8)).astype(np.float32)} for _ in range(4)]
    qcompiler.compile(
        small_cnn_path, "edge-npu", calibration=samples, output=path, cache=False, latency=False, bias_correction=False
    )
    return path


@pytest.fixture
def specimens(compiled: Path) -> list[Specimen]:
    """Nodes of a compiled model, each in all widths."""
    model = io.load(compiled)
    bind_dimensions(model, {"x": (1, 3, 8, 8)})
    found = []
    for node, work in distinct(workloads(model)):
        one = specimen(node, work, model.opset_imports[""])
        found += [one, *other_widths(node, one, (8, 4, 2))]
    return found


def test_every_node_runs_alone(specimens: list[Specimen]) -> None:
    assert {one.work.format for one in specimens} >= {"w8a8", "w4a8", "w2a8"}
    for one in specimens:
        content = isolated(one, 2)
        onnx.checker.check_model(onnx.load_from_string(content))
        results = _run(content, feed_of(one, 2))
        assert len(results) == len(one.outputs)
        assert results[0].shape == one.outputs[0][2]


def test_one_copy_is_the_node_itself(compiled: Path, specimens: list[Specimen]) -> None:
    one = next(item for item in specimens if item.work.kind == "QConv/spatial" and item.work.format == "w8a8")
    feed = feed_of(one)
    model = onnx.load(compiled)
    node = next(item for item in model.graph.node if item.op_type == "QConv")
    name, dtype, shape = one.inputs[0]
    del model.graph.node[:]
    model.graph.node.append(node)
    del model.graph.input[:], model.graph.output[:]
    model.graph.input.append(onnx.helper.make_tensor_value_info(name, int(dtype), shape))
    model.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], 3, one.outputs[0][2]))
    expected = _run(model.SerializeToString(), feed)[0]
    np.testing.assert_array_equal(_run(isolated(one, 1), feed)[0], expected)


def test_a_runtime_that_does_not_optimize_runs_every_copy(specimens: list[Specimen], tmp_path: Path) -> None:
    one = specimens[1]
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    counts = []
    for copies in (1, 4):
        session = onnxruntime.InferenceSession(isolated(one, copies), options, providers=["CPUExecutionProvider"])
        session.run(None, feed_of(one, copies))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        counts.append(sum(event["name"].endswith("_kernel_time") for event in events))
    assert counts[1] >= 4 * counts[0] - 4 > 0


def test_copies_have_large_weights_of_their_own() -> None:
    model = grid()
    node, work = next((n, w) for n, w in workloads(model) if w.kind == "QGemm" and w.bytes > 100_000)
    graph = onnx.load_from_string(isolated(specimen(node, work, 21), 3)).graph
    large = [item for item in graph.initializer if len(item.raw_data) > 100_000]
    assert len(large) == 3
    assert len({item.raw_data for item in large}) == 3
    assert len({node.input[0] for node in graph.node}) == 1


def test_the_grid_runs() -> None:
    model = grid()
    seen: set[str] = set()
    for node, work in workloads(model):
        if work.kind in seen or work.bytes > 300_000:
            continue
        seen.add(work.kind)
        one = specimen(node, work, 21)
        assert all(result.shape == one.outputs[0][2] for result in _run(isolated(one, 2), feed_of(one, 2)))
    assert len(seen) >= 15


def test_weights_of_fewer_bits_have_greater_scales(specimens: list[Specimen]) -> None:
    found = {one.work.format: one for one in specimens if one.work.kind == "QConv/spatial"}
    shifts = {form: one.constants[one.node.input[-1]].numpy().astype(int) for form, one in found.items()}
    assert (shifts["w8a8"] - shifts["w4a8"] == 4).all()
    assert (shifts["w8a8"] - shifts["w2a8"] == 6).all()
