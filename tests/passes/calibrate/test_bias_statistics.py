"""Mean inputs from kept statistics: moments of cut-off normals, and biases corrected without a sample."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcompiler.calibration import data
from qcompiler.ir import constants
from qcompiler.ir.edit import Edit
from qcompiler.ir.statistics import set_statistics
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.passes.calibrate.bias_statistics import clipped, moments
from qcompiler.passes.calibrate.calibrate import Calibrate
from qcompiler.passes.calibrate.calibrate_weights import CalibrateWeights
from qcompiler.passes.calibrate.correct_bias import CorrectBias
from qcompiler.pipeline.base import Context, PassRecord
from qcompiler.target.load import load

CHAIN = """<ir_version: 10, opset_import: ["" : 21]> g (float[N,3,6,6] x) => (float[N,4] y)
 <float zero = {0}, float six = {6}> {
   a = Conv (x, w1)
   r = Relu(a)
   c = Conv <pads=[1,1,1,1]> (r, w2, b2)
   k = Clip (c, zero, six)
   s = Add (k, r)
   p = GlobalAveragePool(s)
   f = Flatten(p)
   y = Gemm <transB=1> (f, w3) }"""


def chain(*, with_statistics: bool = True) -> ir.Model:
    proto = onnx.parser.parse_model(CHAIN)
    random = np.random.default_rng(0)
    for name, shape in {"w1": (8, 3, 1, 1), "w2": (8, 8, 3, 3), "b2": (8,), "w3": (4, 8)}.items():
        weight = (0.2 + random.standard_normal(shape)).astype(np.float32) / 3
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    if with_statistics:
        set_statistics(model.graph[0].outputs[0], random.standard_normal(8), random.uniform(0.5, 2, 8))
    return model


@pytest.mark.parametrize(("low", "high"), [(0.0, math.inf), (0.0, 6.0), (-1.0, 1.0), (-math.inf, 2.0)])
def test_moments_of_a_normal_cut_off(low: float, high: float) -> None:
    means, variances = np.array([-4.0, -0.5, 0.0, 1.0, 8.0]), np.array([1.0, 4.0, 0.25, 9.0, 2.0])
    draws = np.random.default_rng(0).standard_normal((400_000, 5)) * np.sqrt(variances) + means
    cut = np.clip(draws, low, high)
    mean, variance = clipped(means, variances, low, high)
    np.testing.assert_allclose(mean, cut.mean(0), atol=0.02)
    np.testing.assert_allclose(variance, cut.var(0), atol=0.06)


def test_a_channel_without_variance_is_cut_off_exactly() -> None:
    mean, variance = clipped(np.array([-1.0, 3.0, 9.0]), np.zeros(3), 0.0, 6.0)
    np.testing.assert_allclose(mean, [0, 3, 6], atol=1e-9)
    np.testing.assert_allclose(variance, 0, atol=1e-9)


def test_moments_follow_the_graph() -> None:
    model = chain()
    known = {str(value.name): found for value, found in moments(model.graph).items()}
    weight, bias = (np.asarray(constants.array(model.graph.initializers[n]), np.float64) for n in ("w2", "b2"))
    np.testing.assert_allclose(known["c"][0], weight.sum((2, 3)) @ known["r"][0] + bias, rtol=1e-9)
    np.testing.assert_allclose(known["c"][1], np.square(weight).sum((2, 3)) @ known["r"][1], rtol=1e-9)
    np.testing.assert_allclose(known["s"][0], known["k"][0] + known["r"][0])
    np.testing.assert_allclose(known["f"][0], known["p"][0])
    assert not moments(chain(with_statistics=False).graph)


def prepared(model: ir.Model) -> Context:
    context = Context(Edit(model), target=load("edge-npu"), format="w4a8", records=[PassRecord("correct-bias")])
    random = np.random.default_rng(1)
    feeds = [{"x": random.standard_normal((1, 3, 6, 6)).astype(np.float32)} for _ in range(4)]
    context.calibration = data.load(feeds, data.inputs_of(model))
    for each in (AssignFormats(), Calibrate(), CalibrateWeights()):
        each.run(model, context)
    context.calibration = None
    return context


def test_biases_are_corrected_without_a_sample() -> None:
    model = chain()
    context = prepared(model)
    before = np.array(constants.array(model.graph.initializers["b2"]))
    CorrectBias(method="statistics").run(model, context)
    assert not np.array_equal(before, np.asarray(constants.array(model.graph.initializers["b2"])))
    assert any("no sample left to judge" in note.text for note in context.records[0].notes)
    skips = {skip.node: skip.reason for skip in context.records[0].skips}
    assert skips["Conv_0 (Conv)"] == "no statistics tell the mean of its input"


def test_without_statistics_nothing_is_done() -> None:
    model = chain(with_statistics=False)
    context = prepared(model)
    count = context.edit.count
    CorrectBias(method="statistics").run(model, context)
    assert context.edit.count == count
    assert context.records[0].notes[-1].text.startswith("no bias corrected")
