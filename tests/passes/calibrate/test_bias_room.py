"""Channels whose weights are next to nothing keep their biases: 32 bits hold them at the accumulator's scale."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qcompiler.calibration import data
from qcompiler.errors import PassError
from qcompiler.ir import constants
from qcompiler.ir.edit import Edit
from qcompiler.ir.execute import Runner
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.passes.calibrate.calibrate import Calibrate
from qcompiler.passes.calibrate.calibrate_weights import CalibrateWeights
from qcompiler.passes.calibrate.correct_bias import CorrectBias
from qcompiler.passes.calibrate.correct_outputs import CorrectOutputs
from qcompiler.passes.place.biases import accumulator_scale
from qcompiler.passes.place.simulate import materialized
from qcompiler.passes.round.reconstruct import Reconstruct
from qcompiler.passes.round.round_alternating import RoundAlternating
from qcompiler.pipeline.base import Context, PassRecord
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


def decided(kind: str, target: str, *steps: object, form: str | None = None) -> tuple[ir.Model, Context]:
    model, shape = network(kind)
    random = np.random.default_rng(1)
    feeds = [{"x": random.normal(size=shape).astype(np.float32)} for _ in range(8)]
    ctx = Context(Edit(model), target=load(target), format=form)
    ctx.calibration = data.load(feeds, data.inputs_of(model))
    ctx.records.append(PassRecord("test"))
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


FOLLOWING = {
    "alternating": RoundAlternating(guard=False, sweeps=1),
    "outputs": CorrectOutputs(guard=False),
    "biases": CorrectBias(guard=False),
    "reconstruct": Reconstruct(guard=False, iterations=20, bias_rate=0.05),
}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["Conv", "Gemm"]),
    form=st.sampled_from([("w4a8", "edge-npu"), ("w8a8", "edge-npu-per-tensor"), ("w4a8", "fpga-pot")]),
    powers=st.lists(st.floats(-3, 3), min_size=4, max_size=4),
    order=st.lists(st.sampled_from(sorted(FOLLOWING)), min_size=2, max_size=4),
)
def test_whatever_follows_biases_keep_their_room(
    kind: str, form: tuple[str, str], powers: list[float], order: list[str]
) -> None:
    """Scales of weights that a bias only just fits (powers of 2 around that) are fitted again and again."""
    model, ctx = decided(kind, form[1], form=form[0])
    [layer] = model.graph
    weight = model.graph.initializers["w"]
    weight.const_value = ir.Tensor(np.random.default_rng(2).normal(size=weight.const_value.shape).astype(np.float32))
    for step in (Calibrate(), CalibrateWeights()):
        step.run(model, ctx)
    scale = accumulator_scale(layer)
    assert scale is not None
    signs = np.array([1, -1, 1, -1])
    bias = (signs * np.exp2(np.array(powers) + 30) * scale.max()).astype(np.float32)
    model.graph.initializers["b"].const_value = ir.Tensor(bias)
    for step in (AssignFormats(), Calibrate(), CalibrateWeights(), *(FOLLOWING[name] for name in order)):
        step.run(model, ctx)
        if not isinstance(step, AssignFormats | Calibrate):
            held, room = constants.array(layer.inputs[2]), accumulator_scale(layer)
            assert held is not None
            assert room is not None
            assert (np.abs(held) <= 2.0**31 * room).all(), step
    materialized(model)


def test_a_bias_that_overflows_is_refused() -> None:
    """Weights first, activations second: the room cannot be made any more."""
    model, _ = decided("Conv", "edge-npu", CalibrateWeights(), Calibrate())
    with pytest.raises(PassError, match="bias") as caught:
        materialized(model)
    assert "layer" in str(caught.value)
    assert caught.value.hint is not None
