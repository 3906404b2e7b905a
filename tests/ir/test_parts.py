"""A model run piece by piece gives what it gives as a whole."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcompiler.ir import execute
from qcompiler.ir.execute import Runner, light_proto
from qcompiler.ir.parts import SegmentedRun, cut, weight_cuts

TEXT = """<ir_version: 10, opset_import: ["" : 21]> g (float[N,20] x, bool flag) => (float[N,20] y, float[N,20] r) {
   a = MatMul(x, w1)
   r = Relu(a)
   b = MatMul(r, w2)
   s = Add(b, a)
   c = If (flag) <
      then_branch = t () => (float[N,20] u) { u = Mul(s, x) },
      else_branch = e () => (float[N,20] v) { v = Identity(r) }
   >
   y = MatMul(c, w3) }"""


@pytest.fixture
def model() -> ir.Model:
    proto = onnx.parser.parse_model(TEXT)
    rng = np.random.default_rng(0)
    for name in ("w1", "w2", "w3"):
        proto.graph.initializer.append(
            onnx.numpy_helper.from_array((0.3 * rng.normal(size=(20, 20))).astype(np.float32), name)
        )
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((20, 20), np.float32), "unused"))
    return ir.from_proto(proto)


def feeds(count: int = 5) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [
        {"x": rng.normal(size=(1 + i % 3, 20)).astype(np.float32), "flag": np.array(i % 2 == 0)} for i in range(count)
    ]


@pytest.mark.parametrize("outputs", [None, ["s"], ["r", "y"]])
def test_pieces_equal_the_whole(model, monkeypatch, outputs):
    whole = Runner(model, outputs, optimize=False)
    monkeypatch.setattr(execute, "PART_BYTES", 2000)
    pieces = Runner(model, outputs, optimize=False)
    assert pieces.inputs.keys() == whole.inputs.keys()
    assert pieces.outputs == whole.outputs
    for feed, (_, streamed) in zip(feeds(), pieces.stream(feeds()), strict=True):
        for name, expected in whole.run(feed).items():
            # Unpacked weights are summed in another order: equal within float rounding.
            np.testing.assert_allclose(pieces.run(feed)[name], expected, rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(streamed[name], pieces.run(feed)[name])


def test_parts_hold_no_more_weights_than_allowed(model):
    proto, weights = light_proto(model)
    ends = weight_cuts(proto.graph, weights, 2000)
    assert len(ends) == 3
    parts = cut(proto.graph, ends, {"y"})
    assert [position for part in parts for position in part.nodes] == list(range(len(proto.graph.node)))
    for part in parts:
        read = {name for position in part.nodes for name in proto.graph.node[position].input}
        assert sum(weights[name].nbytes for name in read & weights.keys()) <= 2000


def test_a_change_at_a_stop_is_seen_behind_it(model):
    run = SegmentedRun.of(model, feeds(2))
    stops = []
    for stop in run.advance(["a", "y"]):
        stops.append(stop)
        if stop == "a":
            for sample in run.samples:
                sample["a"] = np.zeros_like(sample["a"])
            continue
        # With a = 0 only zeros come out of the last product, whichever branch is taken.
        assert all(not sample["y"].any() for sample in run.samples)
    assert stops == ["a", "y"]
    assert run.samples == [{}, {}], "behind the last stop nothing is alive"


def test_dead_tensors_are_dropped(model):
    run = SegmentedRun.of(model, feeds(1))
    for stop in run.advance(["b", "y"]):
        if stop == "b":
            assert set(run.samples[0]) == {"a", "b", "r", "x", "flag"}
        else:
            assert set(run.samples[0]) == {"y"}
