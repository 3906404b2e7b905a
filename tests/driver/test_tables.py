"""An embedding, from the command to the file: its bits are decided, stored, looked up and reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import qcompiler

TEXT = """
<ir_version: 10, opset_import: ["" : 21]>
g (int64[N, 6] ids) => (float[N, 6, 8] y) {
  e = Gather (t, ids) n = LayerNormalization (e, s, o) h = MatMul (n, w) r = Relu (h) y = MatMul (r, v)
}
"""
SHAPES = {"t": (512, 32), "w": (32, 64), "v": (64, 8)}
"""Three quarters of all weights are in the table."""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> onnx.ModelProto:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    proto = onnx.parser.parse_model(TEXT)
    arrays = {name: random.normal(0, 0.2, shape) for name, shape in SHAPES.items()}
    arrays |= {"s": np.ones(32), "o": np.zeros(32)}
    for name, array in arrays.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    return proto


def samples(count: int = 32) -> dict[str, np.ndarray]:
    return {"ids": np.random.default_rng(1).integers(0, 512, (count, 6))}


def bits_of_table(result: qcompiler.CompileResult, operator: str) -> int:
    node = next(node for node in result.model.graph if node.op_type == operator)
    return node.attributes["bits"].as_int()


@pytest.mark.parametrize(
    ("target", "formats", "operator"),
    [
        ("edge-npu", ("w8a8", "w4a8", "w2a8"), "QGather"),
        ("lowbit-cpu", ("w8a8", "w4a8", "w3a8"), "QGather"),
        ("lowbit-cpu", ("w8", "w4", "w3"), "QGatherWeightOnly"),
    ],
)
def test_a_table_gets_the_bits_that_the_plan_says(
    model: onnx.ModelProto, target: str, formats: tuple[str, ...], operator: str
) -> None:
    plain = qcompiler.compile(model, target, format=formats[0], calibration=samples(), latency=False)
    budget = plain.path.stat().st_size - 7000
    chosen = qcompiler.compile(
        model, target, candidates=formats, budget=f"size={budget}", calibration=samples(), latency=False
    )
    assert chosen.path.stat().st_size <= budget
    assert chosen.report.formats is not None
    group = next(group for group in chosen.report.formats.groups if group.weights == 512 * 32)
    assert group.choice != formats[0], "only the table holds so many bytes"
    assert bits_of_table(chosen, operator) == int(group.choice[1])


@pytest.mark.parametrize(
    ("target", "form", "operator", "factors"),
    [("edge-npu", "w8a8", "QGather", (512,)), ("lowbit-cpu", "w8", "Gather", (512, 1))],
)
def test_rows_may_be_counted_from_the_end(
    model: onnx.ModelProto, target: str, form: str, operator: str, factors: tuple[int, ...]
) -> None:
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("axis", -2))
    found = qcompiler.compile(model, target, format=form, calibration=samples(), latency=False).model.graph
    held = [node for node in found if node.op_type == operator]
    assert factors in [value.shape for node in held for value in node.inputs if value is not None], "one per row"
