"""Channels whose weights are next to nothing keep their biases: 32 bits hold them at the accumulator's scale."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcompiler.calibration import data
from qcompiler.errors import PassError
from qcompiler.ir.edit import Edit
from qcompiler.ir.execute import Runner
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.passes.calibrate.calibrate import Calibrate
from qcompiler.passes.calibrate.calibrate_weights import CalibrateWeights
from qcompiler.passes.place.simulate import materialized
from qcompiler.pipeline.base import Context
from qcompiler.quant import state
from qcompiler.target.load import load

FACTORS = np.array([1.0, 1e-13, 1e-10, 1e-20], np.float32)
BIAS = np.array([1.0, -2.0, 0.5, 3.0], np.float32)
LAYERS = {
    "Conv": ("Conv (x, w, b)", (1, 3, 4, 4), (4, 3, 1, 1), (4, 1, 1, 1)),
    "ConvTranspose": ("ConvTranspose <group = 2> (x, w, b)", (1, 4, 4, 4), (4, 2, 1, 1), (1, 2, 1, 1)),
    "Gemm": ("Gemm <transB = 1> (x, w, b)", (2, 3), (4, 3), (4, 1)),
}


def network(kind: str) -> tuple[ir.Model, tuple[int, ...]]:
    """One layer whose channels have smaller and smaller weights, and ordinary biases."""
    call, shape, weight, factors = LAYERS[kind]
    size = ",".join(map(str, shape))
    header = '<ir_version: 10, opset_import: ["" : 21]>'
    result = ",".join("M" for _ in shape)
    proto = onnx.parser.parse_model(f"{header} g (float[{size}] x) => (float[{result}] y) {{ y = {call} }}")
    array = np.random.default_rng(0).normal(size=weight).astype(np.float32) * FACTORS[: max(factors)].reshape(factors)
    for name, content in {"w": array, "b": BIAS}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(content, name))
    proto.graph.node[0].name = "layer"
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto)), shape


def decided(kind: str, target: str, *steps: object) -> tuple[ir.Model, Context]:
    model, shape = network(kind)
    random = np.random.default_rng(1)
    feeds = [{"x": random.normal(size=shape).astype(np.float32)} for _ in range(8)]
    ctx = Context(Edit(model), target=load(target), calibration=data.load(feeds, data.inputs_of(model)))
    for step in (AssignFormats(), *steps):
        step.run(model, ctx)  # type: ignore[attr-defined]
    return model, ctx


@pytest.mark.parametrize("target", ["edge-npu", "edge-npu-per-tensor"])
@pytest.mark.parametrize("kind", LAYERS)
def test_biases_of_nearly_dead_channels_survive(kind: str, target: str) -> None:
    model, ctx = decided(kind, target, Calibrate(), CalibrateWeights())
    exact, quantized = Runner(model), Runner(materialized(model))
    for feed in ctx.calibration or ():
        wanted, got = exact.run(feed)["y"], next(iter(quantized.run(feed).values()))
        np.testing.assert_allclose(got, wanted, atol=0.02 * np.abs(wanted).max())


def test_scales_that_hold_their_bias_are_left_alone() -> None:
    model, _ = decided("Conv", "edge-npu", Calibrate(), CalibrateWeights())
    weight = model.graph.initializers["w"]
    quant = state.value_quant(weight)
    assert quant is not None
    assert quant.params is not None
    assert weight.const_value is not None
    first = np.abs(weight.const_value.numpy()[0]).max() / 127
    assert quant.params.scale[0] == np.float32(first)
    assert (quant.params.scale[1:] < quant.params.scale[0]).all()


def test_a_bias_that_overflows_is_refused() -> None:
    """Weights first, activations second: the room cannot be made any more."""
    model, _ = decided("Conv", "edge-npu", CalibrateWeights(), Calibrate())
    with pytest.raises(PassError, match="bias") as caught:
        materialized(model)
    assert "layer" in str(caught.value)
    assert caught.value.hint is not None
