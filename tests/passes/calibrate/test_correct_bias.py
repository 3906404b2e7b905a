"""Bias correction gives back the mean that rounding took, and only where that helps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcompiler.calibration import data
from qcompiler.calibration.given_weights import WEIGHTS
from qcompiler.errors import DataError
from qcompiler.ir.edit import Edit
from qcompiler.ir.execute import Runner
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.passes.calibrate.calibrate import Calibrate
from qcompiler.passes.calibrate.calibrate_weights import CalibrateWeights
from qcompiler.passes.calibrate.correct_bias import CorrectBias
from qcompiler.passes.calibrate.judge import relative_error
from qcompiler.passes.place.simulate import materialized
from qcompiler.pipeline.base import Context, PassRecord
from qcompiler.target.load import load


def network() -> ir.Model:
    """Two padded convolutions, a depthwise one and a Gemm without bias, fed with all-positive images."""
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[N,3,8,8] x) => (float[N,5] y) {
       a = Conv <pads=[1,1,1,1]> (x, w1, b1)
       r = Relu(a)
       d = Conv <pads=[1,1,1,1], group=8> (r, w2)
       e = Relu(d)
       p = GlobalAveragePool(e)
       f = Flatten(p)
       y = Gemm <transB=1> (f, w3) }"""
    rng = np.random.default_rng(3)
    shapes = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 1, 3, 3), "w3": (5, 8)}
    return parsed(text, {name: 0.1 + rng.normal(size=shape) for name, shape in shapes.items()})


def parsed(text: str, weights: dict[str, np.ndarray]) -> ir.Model:
    proto = onnx.parser.parse_model(text)
    for name, weight in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight.astype(np.float32), name))
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def calibrated(
    samples: int = 40, form: str = "w4a8", network: Callable[[], ir.Model] = network, shape: tuple = (3, 8, 8)
) -> tuple[ir.Model, Context]:
    model = network()
    rng = np.random.default_rng(0)
    feeds = [{"x": np.abs(rng.normal(size=(1, *shape))).astype(np.float32)} for _ in range(samples)]
    ctx = Context(Edit(model), target=load("edge-npu"), format=form)
    ctx.calibration = data.load(feeds, data.inputs_of(model))
    ctx.records.append(PassRecord("test"))
    for step in (AssignFormats(), Calibrate(), CalibrateWeights()):
        step.run(model, ctx)
    return model, ctx


def channel_errors(model: ir.Model, reference: ir.Model, name: str, ctx: Context) -> np.ndarray:
    """Mean error per channel of one tensor over the calibration samples."""
    quantized = materialized(model)
    node = next(node for node in reference.graph if node.outputs[0].name == name)
    twin = next(other for other in quantized.graph if other.name == node.name).outputs[0].name
    candidate, exact = Runner(quantized, [twin]), Runner(reference, [name])
    errors = [candidate.run(feed)[twin] - exact.run(feed)[name] for feed in ctx.calibration]
    return np.abs(np.mean([error.mean(axis=(0, 2, 3)) for error in errors], axis=0))


@pytest.mark.parametrize("method", ["sequential", "analytic"])
def test_mean_error_of_every_channel_shrinks(method):
    model, ctx = calibrated()
    before = channel_errors(model, network(), "d", ctx)
    CorrectBias(method=method, guard=False).run(model, ctx)
    after = channel_errors(model, network(), "d", ctx)
    assert after.mean() < (0.1 if method == "sequential" else 0.5) * before.mean()


def test_sequential_meets_the_acceptance_of_the_method():
    """Per-channel mean error after correction under 1 % of the channel's standard deviation, on calibration data."""
    model, ctx = calibrated()
    CorrectBias(guard=False).run(model, ctx)
    deviation = np.std([Runner(network(), ["d"]).run(feed)["d"] for feed in ctx.calibration], axis=(0, 1, 3, 4))
    assert (channel_errors(model, network(), "d", ctx) < 0.01 * deviation).all()


def test_guard_reports_figures_and_keeps_a_gain():
    model, ctx = calibrated()
    CorrectBias().run(model, ctx)
    text = " ".join(note.text for note in ctx.records[-1].notes)
    assert "corrected 3 biases" in text
    assert "samples left out" in text


def test_guard_puts_the_biases_back(monkeypatch):
    from qcompiler.passes.calibrate import bias_sequential

    model, ctx = calibrated()
    before = ir.to_proto(model).graph.initializer
    monkeypatch.setattr(bias_sequential, "mean_errors", lambda *_: [np.full(n, 50.0) for n in (8, 8, 5)])
    CorrectBias().run(model, ctx)
    assert "rejected" in ctx.records[-1].notes[-1].text
    after = {tensor.name: tensor.SerializeToString() for tensor in ir.to_proto(model).graph.initializer}
    assert after == {tensor.name: tensor.SerializeToString() for tensor in before}


def test_missing_biases_are_created():
    model, ctx = calibrated()
    CorrectBias(guard=False).run(model, ctx)
    assert all(len(node.inputs) == 3 for node in model.graph if node.op_type in ("Conv", "Gemm"))


def test_without_samples_it_is_refused():
    model, ctx = calibrated()
    ctx.calibration = None
    with pytest.raises(DataError, match="calibration samples"):
        CorrectBias().run(model, ctx)


def test_one_sample_cannot_judge():
    model, ctx = calibrated(samples=1)
    CorrectBias().run(model, ctx)
    assert "no sample left to judge" in ctx.records[-1].notes[-1].text


@pytest.mark.parametrize("step", ["correct", "judge"])
def test_tensors_that_weights_of_positions_do_not_reach_are_told_of(step):
    """Nothing else in the compile met them: the result has the positions in its last axis."""
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[N,6,8] x) => (float[N,8,6] y)
        { t = Transpose <perm=[0,2,1]> (x)  m = MatMul (t, w)  y = Add (m, b) }"""
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(6, 6)), "b": rng.normal(size=6)}
    model, ctx = calibrated(24, network=lambda: parsed(text, weights), shape=(6, 8))
    x = np.concatenate([feed["x"] for feed in ctx.calibration])
    given = np.tile(np.arange(6), (len(x), 1))
    ctx.calibration = data.load({"x": x, WEIGHTS: given}, data.inputs_of(model))
    if step == "correct":
        CorrectBias(method="sequential", guard=False).run(model, ctx)
    else:
        quantized = materialized(model)
        relative_error(Runner(quantized), Runner(quantized), ctx.calibration, ctx, "judge")
    (told,) = [note.text for note in ctx.records[-1].notes if note.level == "warning"]
    assert "weights of positions do not reach tensors whose token axis is in doubt ('y')" in told
