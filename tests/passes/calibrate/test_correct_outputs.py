"""Scale and shift per output channel: least squares, codes unchanged, kept only where samples left out agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcompiler.calibration import data
from qcompiler.errors import DataError
from qcompiler.ir import constants, originals
from qcompiler.ir.edit import Edit
from qcompiler.ir.execute import Runner
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.passes.calibrate.calibrate import Calibrate
from qcompiler.passes.calibrate.calibrate_weights import CalibrateWeights
from qcompiler.passes.calibrate.correct_outputs import CorrectOutputs
from qcompiler.passes.calibrate.judge import Judge
from qcompiler.passes.calibrate.output_fit import Scaled, Sums
from qcompiler.passes.place.simulate import materialized
from qcompiler.pipeline.base import Context, PassRecord
from qcompiler.quant import arithmetic, state
from qcompiler.target.load import load

TEXT = """<ir_version: 10, opset_import: ["" : 21]> g (float[N,3,8,8] x) => (float[N,5] y) {
   a = Conv <pads=[1,1,1,1]> (x, w1, b1)
   r = Relu(a)
   d = Conv <pads=[1,1,1,1], group=8> (r, w2)
   e = Relu(d)
   p = GlobalAveragePool(e)
   f = Flatten(p)
   m = MatMul(f, w3)
   y = Add(m, b3) }"""


def calibrated(target: str = "edge-npu", form: str = "w4a8", samples: int = 40) -> tuple[ir.Model, Context]:
    proto = onnx.parser.parse_model(TEXT)
    random = np.random.default_rng(3)
    for name, shape in {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 1, 3, 3), "w3": (8, 5), "b3": (5,)}.items():
        weight = (0.1 + random.normal(size=shape)).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    feeds = [{"x": np.abs(random.normal(size=(1, 3, 8, 8))).astype(np.float32)} for _ in range(samples)]
    context = Context(Edit(model), target=load(target), format=form, records=[PassRecord("correct-outputs")])
    context.calibration = data.load(feeds, data.inputs_of(model))
    for step in (AssignFormats(), Calibrate(), CalibrateWeights()):
        step.run(model, context)
    return model, context


def content(model: ir.Model, name: str) -> Any:
    return np.array(constants.array(model.graph.initializers[name]))


def codes(model: ir.Model, name: str) -> Any:
    value = model.graph.initializers[name]
    use = next(iter(value.uses()))
    quant = state.edge_quant(use.node, use.idx)
    assert quant is not None
    assert quant.params is not None
    return arithmetic.quantize(content(model, name), quant.params, quant.format), quant.params.scale.copy()


@pytest.mark.parametrize("scaled", ["no", "tensor", "channel"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_fit_is_that_of_least_squares(scaled: Scaled, weighted: bool) -> None:
    random = np.random.default_rng(0)
    found = random.standard_normal((6, 3, 5))
    wanted = found * np.array([0.9, 1.2, 1.05])[:, None] + 0.3 + 0.1 * random.standard_normal(found.shape)
    rows = random.integers(0, 2, (6, 1, 5)).astype(np.float64) if weighted else np.ones((6, 1, 5))
    sums = Sums(1)
    for index in range(6):
        one = slice(index, index + 1)
        sums.add(wanted[one], found[one], rows[one] if weighted else None)
    fit = sums.fit(scaled)
    keep = np.broadcast_to(rows > 0, found.shape)
    left = np.square(wanted - fit.scale[:, None] * found - fit.shift[:, None])[keep].sum()
    assert left <= np.square(wanted - found)[keep].sum()
    for channel in range(3):
        mask = keep[:, channel]
        z, y = found[:, channel][mask], wanted[:, channel][mask]
        if scaled == "channel":
            solution = np.linalg.lstsq(np.stack([z, np.ones_like(z)], 1), y, rcond=None)[0]
            np.testing.assert_allclose([fit.scale[channel], fit.shift[channel]], solution, rtol=1e-6)
        else:
            assert fit.shift[channel] == pytest.approx((y - fit.scale[channel] * z).mean())
    assert len(set(fit.scale.tolist())) == (3 if scaled == "channel" else 1)


def test_a_channel_that_does_not_move_gets_its_shift_alone() -> None:
    sums = Sums(1)
    sums.add(np.full((1, 1, 9), 2.0), np.full((1, 1, 9), 3.0), None)
    fit = sums.fit("channel")
    assert (fit.scale, fit.shift) == (1.0, -1.0)


def test_codes_stay_and_outputs_come_closer() -> None:
    model, context = calibrated()
    reference = Runner(originals.restored(model), ["a", "y"])
    before = {name: codes(model, name) for name in ("w1", "w2", "w3")}
    float_weight = content(model, "w1")

    def errors() -> Any:
        quantized = materialized(model)
        twin = next(str(node.outputs[0].name) for node in quantized.graph if node.name == "Conv_0")
        candidate = Runner(quantized, [twin, "y"])
        assert context.calibration is not None
        runs = [(reference.run(feed), candidate.run(feed)) for feed in context.calibration]
        first = np.concatenate([want["a"] - got[twin] for want, got in runs])
        spread = np.concatenate([want["a"] for want, _ in runs]).std((0, 2, 3))
        last = np.concatenate([want["y"] - got["y"] for want, got in runs])
        return np.square(first).mean((0, 2, 3)), np.abs(first.mean((0, 2, 3))) / spread, np.square(last).mean()

    squares, _, last = errors()
    CorrectOutputs(guard=False).run(model, context)
    after, mean, final = errors()
    assert (after <= squares * (1 + 1e-4)).all()
    assert (mean < 0.01).all()
    assert final < last
    for name, (old, scale) in before.items():
        new, changed = codes(model, name)
        np.testing.assert_array_equal(new, old)
        assert not np.array_equal(changed, scale)
    kept = originals.original(model.graph.initializers["w1"])
    assert kept is not None
    np.testing.assert_array_equal(kept.numpy(), float_weight)


@pytest.mark.parametrize(("target", "kinds"), [("edge-npu-per-tensor", 1), ("fpga-pot", 0)])
def test_what_scales_allow(target: str, kinds: int) -> None:
    model, context = calibrated(target, "w8a8")
    before = codes(model, "w1")
    CorrectOutputs(guard=False).run(model, context)
    after = codes(model, "w1")
    np.testing.assert_array_equal(after[0], before[0])
    assert (after[1].size == 1) == (kinds == 1)
    assert np.array_equal(after[1], before[1]) == (kinds == 0)


def test_what_does_not_prove_itself_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    model, context = calibrated()
    names = sorted(model.graph.initializers)
    before = {name: content(model, name) for name in names}
    scales = {name: codes(model, name)[1] for name in ("w1", "w2", "w3")}
    verdicts = iter([1.0, 2.0])
    monkeypatch.setattr(Judge, "error", lambda *_: next(verdicts))
    CorrectOutputs().run(model, context)
    assert sorted(model.graph.initializers) == names
    for name in names:
        np.testing.assert_array_equal(content(model, name), before[name])
    for name, scale in scales.items():
        np.testing.assert_array_equal(codes(model, name)[1], scale)
    assert "was rejected; output error on 5 samples left out: 1 before, 2 after" in context.records[0].notes[-1].text


def test_samples_are_needed() -> None:
    model, context = calibrated()
    context.calibration = None
    with pytest.raises(DataError, match="needs calibration samples"):
        CorrectOutputs().run(model, context)
