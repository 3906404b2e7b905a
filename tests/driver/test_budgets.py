"""Budgets of size are kept by what is written, biases that a correction adds included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import qcompiler

TEXT = """
<ir_version: 10, opset_import: ["" : 21]>
g (float[N, 32] x) => (float[N, 64] y) { h = Gemm (x, w) r = Relu (h) k = Gemm (r, v) s = Relu (k) y = Gemm (s, u) }
"""


@pytest.mark.parametrize("lowering", ["qdq", "integer"])
def test_plans_have_room_for_biases_that_a_correction_adds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lowering: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    proto = onnx.parser.parse_model(TEXT)
    for name, shape in {"w": (32, 64), "v": (64, 64), "u": (64, 64)}.items():
        array = random.normal(0.02, 0.2, shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    samples = {"x": random.normal(0.5, 1, (48, 32)).astype(np.float32)}
    points = qcompiler.front(
        proto, "edge-npu", "w8a8,w4a8", "plans.json", calibration=samples, lowering=lowering
    )["points"]
    assert len(points) > 2
    biases = set()
    for point in points:
        made = qcompiler.compile(
            proto, "edge-npu", candidates="w8a8,w4a8", budget=f"size={point['costs']['size']:.0f}",
            calibration=samples, lowering=lowering, latency=False,
        )  # fmt: skip
        assert made.path.stat().st_size <= point["costs"]["size"]
        biases.update(str(value.name) for value in made.model.graph.initializers.values() if "bias" in str(value.name))
    assert biases, "nothing was added that takes room"
