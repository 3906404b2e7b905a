"""One bias that two layers read: what fits biases gives each its own, transforms copy it or leave it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from qcompiler.calibration import data
from qcompiler.ir import constants, originals
from qcompiler.ir.edit import Edit
from qcompiler.ir.execute import Runner
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.passes.calibrate.calibrate import Calibrate
from qcompiler.passes.calibrate.calibrate_weights import CalibrateWeights
from qcompiler.passes.calibrate.correct_bias import CorrectBias
from qcompiler.passes.calibrate.correct_outputs import CorrectOutputs
from qcompiler.passes.calibrate.judge import Judge
from qcompiler.passes.equalize.absorb_high_bias import AbsorbHighBias
from qcompiler.passes.equalize.equalize_channels import EqualizeChannels
from qcompiler.passes.equalize.permute_channels import PermuteChannels
from qcompiler.passes.equalize.split_concat import SplitConcat
from qcompiler.passes.round.reconstruct import Reconstruct
from qcompiler.pipeline.base import Context, Pass, PassRecord
from qcompiler.target.load import load

TEXT = """<ir_version: 10, opset_import: ["" : 21]> g (float[N,3,8,8] x) => (float[N,4,8,8] y) {
   a = Conv (x, w1, b)
   r = Relu (a)
   d = Conv (r, w2, b)
   e = Relu (d)
   y = Conv (e, w3) }"""
SHAPES = {"w1": (4, 3, 1, 1), "w2": (4, 4, 1, 1), "w3": (4, 4, 1, 1), "b": (4,)}


def network() -> ir.Model:
    proto = onnx.parser.parse_model(TEXT)
    random = np.random.default_rng(3)
    for name, shape in SHAPES.items():
        content = (0.2 + random.normal(size=shape)).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(content, name))
    for node in proto.graph.node:
        node.name = f"{node.op_type}_{node.output[0]}"
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def images() -> list[dict[str, NDArray[np.float32]]]:
    random = np.random.default_rng(0)
    return [{"x": np.abs(random.normal(size=(1, 3, 8, 8))).astype(np.float32)} for _ in range(24)]


def prepared(*, quantized: bool) -> tuple[ir.Model, Context]:
    model = network()
    ctx = Context(Edit(model), target=load("edge-npu"), format="w4a8", records=[PassRecord("test")])
    ctx.calibration = data.load(images(), data.inputs_of(model))
    for step in (AssignFormats(), Calibrate(), CalibrateWeights()) if quantized else ():
        step.run(model, ctx)
    return model, ctx


def biases(model: ir.Model) -> list[Any]:
    return [constants.array(model.graph[index].inputs[2]) for index in (0, 2)]


FITTING = [CorrectBias(guard=False), CorrectBias(method="analytic", guard=False), CorrectOutputs(guard=False)]


@pytest.mark.parametrize("step", [*FITTING, Reconstruct(unit="layer", iterations=10, guard=False)], ids=str)
def test_what_fits_biases_gives_each_layer_its_own(step: Pass) -> None:
    """The numbers are those of a model in which the biases were two from the beginning."""
    shared, ctx = prepared(quantized=True)
    original = biases(shared)[0].copy()
    apart, other = prepared(quantized=True)
    second = apart.graph[2]
    other.edit.set_input(second, 2, other.edit.constant("b2", original))
    step.run(shared, ctx)
    step.run(apart, other)
    for found, wanted in zip(biases(shared), biases(apart), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert not np.array_equal(*biases(shared))
    for kept in biases(originals.restored(shared)):
        np.testing.assert_array_equal(kept, original)


@pytest.mark.parametrize("step", [CorrectBias(), CorrectOutputs()], ids=str)
def test_what_is_rejected_is_put_back_in_both(step: Pass, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = iter([1.0, 2.0])
    monkeypatch.setattr(Judge, "error", lambda *_: next(errors))
    model, ctx = prepared(quantized=True)
    original = biases(model)[0].copy()
    step.run(model, ctx)
    assert "rejected" in ctx.records[-1].notes[-1].text
    for found in biases(model):
        np.testing.assert_array_equal(found, original)


TRANSFORMS = [
    EqualizeChannels(when="always"), AbsorbHighBias(input_low=0.0, input_high=1.0),
    AbsorbHighBias(by="statistics", sigmas=0.0), PermuteChannels(block=2), SplitConcat(when="always"),
]  # fmt: skip


@pytest.mark.parametrize("step", TRANSFORMS, ids=str)
def test_transforms_leave_outputs_equal(step: Pass) -> None:
    model, ctx = prepared(quantized=False)
    wanted = [Runner(model).run(feed)["y"] for feed in images()]
    step.run(model, ctx)
    for feed, array in zip(images(), wanted, strict=True):
        np.testing.assert_allclose(Runner(model).run(feed)["y"], array, rtol=0, atol=1e-5 * np.abs(array).max())
