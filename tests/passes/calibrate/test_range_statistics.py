"""Ranges from kept statistics: what the graph makes of them, and when they are used."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.calibration import data
from qcompiler.calibration.trust import Made
from qcompiler.ir.edit import Edit
from qcompiler.ir.statistics import set_statistics
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.passes.calibrate.bias_statistics import moments
from qcompiler.passes.calibrate.calibrate import Calibrate
from qcompiler.passes.calibrate.calibrate_weights import CalibrateWeights
from qcompiler.passes.calibrate.correct_bias import CorrectBias
from qcompiler.passes.calibrate.range_statistics import extents, range_of
from qcompiler.pipeline.base import Context, PassRecord
from qcompiler.quant import state
from qcompiler.target.load import load

NETWORK = """<ir_version: 10, opset_import: ["" : 21]> g (float[N,3,6,6] x) => (float[N,4] y, float[N,5,6,6] m)
 <float zero = {0}, float six = {6}, int64[2] from = {0, 0}, int64[2] to = {6, 6}, int64[2] axes = {2, 3},
  int64[2] by = {2, 2}, int64[8] pads = {0, 2, 0, 0, 0, 1, 0, 0}> {
   a = Conv (x, w1)
   r = Relu(a)
   m = MaxPool <kernel_shape=[1,1]> (r)
   c = Conv (r, w2)
   k = Clip (c, zero, six)
   s = Add (k, r)
   t = Slice (s, from, to, axes, by)
   d = Pad (t, pads)
   p = GlobalAveragePool(s)
   f = Flatten(p)
   y = Gemm <transB=1> (f, w3) }"""
MEAN, VARIANCE = np.linspace(-2, 2, 5), np.linspace(0.25, 4, 5)


def network(mean: np.ndarray = MEAN, variance: np.ndarray = VARIANCE, *, known: bool = True) -> ir.Model:
    proto = onnx.parser.parse_model(NETWORK)
    random = np.random.default_rng(0)
    for name, shape in {"w1": (5, 3, 1, 1), "w2": (5, 5, 1, 1), "w3": (4, 5)}.items():
        weight = (0.2 + random.standard_normal(shape)).astype(np.float32) / 3
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    if known:
        set_statistics(model.graph[0].outputs[0], mean, variance)
    return model


def named(model: ir.Model, deviations: float = 4.0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {str(value.name): found for value, found in extents(model.graph, deviations).items()}


def test_extents_follow_the_graph() -> None:
    model = network()
    found = named(model)
    low, high = MEAN - 4 * np.sqrt(VARIANCE), MEAN + 4 * np.sqrt(VARIANCE)
    np.testing.assert_allclose(found["a"], (low, high), rtol=1e-6)
    np.testing.assert_allclose(found["r"], (np.maximum(low, 0), np.maximum(high, 0)), rtol=1e-6)
    np.testing.assert_allclose(found["m"], found["r"])
    assert (found["k"][0] >= 0).all()
    assert (found["k"][1] <= 6).all()
    np.testing.assert_array_equal(found["t"], found["s"])
    assert found["d"][0].shape == (8,)
    np.testing.assert_allclose([end[[0, 1, 7]] for end in found["d"]], 0, atol=1e-12)  # channels that Pad adds
    np.testing.assert_array_equal(found["d"][1][2:7], found["s"][1])
    known = {str(value.name): item for value, item in moments(model.graph).items()}
    reach = 4 * np.sqrt(known["c"][1])
    np.testing.assert_allclose(found["c"], (known["c"][0] - reach, known["c"][0] + reach))
    assert not named(network(known=False))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0, 9)), min_size=5, max_size=5), st.floats(0.5, 8))
def test_a_sum_stays_within_the_extents_of_its_parts(pairs: list[tuple[float, float]], deviations: float) -> None:
    mean, variance = np.array(pairs).T
    found = named(network(mean, variance), deviations)
    for low, high in found.values():
        assert (low <= high + 1e-6).all()
    assert (found["s"][0] >= found["k"][0] + found["r"][0] - 1e-9).all()
    assert (found["s"][1] <= found["k"][1] + found["r"][1] + 1e-9).all()
    assert (found["p"][1] - found["p"][0] <= found["s"][1] - found["s"][0] + 1e-9).all()


OPERANDS = """<ir_version: 10, opset_import: ["" : 21]> g (float[N,3,6,{width}] x) => (float[N,M,6,{width}] y)
 <float[3,3,1,1] w = {{1,0,0,0,1,0,0,0,1}}, {constant}> {{
   a = Conv (x, w)
   {nodes} }}"""


def of_result(nodes: str, constant: str, width: int) -> tuple[np.ndarray, np.ndarray] | None:
    proto = onnx.parser.parse_model(OPERANDS.format(nodes=nodes, constant=constant, width=width))
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    set_statistics(model.graph[0].outputs[0], np.zeros(3), np.ones(3))
    return named(model, 5.0).get("y")


def test_joined_branches_keep_their_extents() -> None:
    found = of_result("r = Relu (a) s = Identity (a) y = Concat <axis=1> (r, s)", "float c = {0}", 6)
    assert found is not None
    np.testing.assert_allclose(found, ([0] * 3 + [-5] * 3, [5] * 6))


@pytest.mark.parametrize("operator", ["Min", "Add"])
def test_constants_count_along_the_channels_alone(operator: str) -> None:
    nodes = f"y = {operator} (a, c)"
    found = of_result(nodes, "float[3,1,1] c = {1,2,3}", 6)
    assert found is not None
    np.testing.assert_allclose(found[1], [1, 2, 3] if operator == "Min" else [6, 7, 8])
    assert of_result(nodes, "float[4] c = {1,2,3,4}", 4) is None
    assert of_result(nodes, "float[3] c = {1,2,3}", 3) is None  # along the width


def test_a_range_is_of_the_tensor_or_of_its_channels() -> None:
    extent = np.array([-1.0, 0.0]), np.array([2.0, 5.0])
    whole, channels = range_of(extent, None), range_of(extent, 1)
    assert whole is not None
    assert channels is not None
    assert [float(end) for end in whole] == [-1, 5]
    np.testing.assert_array_equal(channels, extent)
    assert range_of(extent, 2) is None


def prepared(model: ir.Model, made: Made | None, size: float = 1.0) -> Context:
    context = Context(Edit(model), target=load("edge-npu"), records=[PassRecord("calibrate")])
    random = np.random.default_rng(1)
    feeds = [{"x": (size * random.standard_normal((1, 3, 6, 6))).astype(np.float32)} for _ in range(16)]
    context.calibration = replace(data.load(feeds, data.inputs_of(model)), made=made)
    AssignFormats().run(model, context)
    return context


def scale(model: ir.Model, name: str) -> float:
    value = next(item for node in model.graph for item in node.outputs if item.name == name)
    quant = state.value_quant(value)
    assert quant is not None
    assert quant.params is not None
    return float(quant.params.scale)


def scales(made: Made | None, size: float, **options: object) -> tuple[float, float]:
    model = network()
    context = prepared(model, made, size)
    Calibrate(**options).run(model, context)  # type: ignore[arg-type]
    found = named(model, 5.0)
    return scale(model, "s"), float(found["s"][1].max()) / 255


def test_made_up_samples_are_joined_by_statistics() -> None:
    given_small, told = scales(None, 0.01)
    assert given_small < 0.1 * told  # real samples are believed
    assert scales(Made(0.01), 0.01)[0] == pytest.approx(told, rel=1e-6)
    assert scales(None, 0.01, method="statistics")[0] == pytest.approx(told, rel=1e-6)
    assert scales(Made(0.01), 0.01, method="minmax")[0] == given_small
    assert scales(Made(0.01), 100.0)[0] == scales(None, 100.0)[0] > 2 * told


def test_noise_is_not_asked_about_what_statistics_know() -> None:
    assert scales(Made(), 100.0)[0] == pytest.approx(scales(Made(), 0.01)[1], rel=1e-6)
    model = network()
    context = prepared(model, Made(), 100.0)
    Calibrate().run(model, context)
    assert any("follow from 5 deviations" in note.text for note in context.records[0].notes)


@pytest.mark.parametrize(("made", "known", "expected"), [(Made(0.2), True, True), (Made(0.2), False, False),
                                                         (Made(0.01), True, False), (None, True, False),
                                                         (Made(), True, True)])  # fmt: skip
def test_biases_follow_from_statistics_where_made_up_samples_are_unlike_real_ones(
    made: Made | None, known: bool, expected: bool
) -> None:
    model = network(known=known)
    context = prepared(model, made)
    for item in (Calibrate(), CalibrateWeights(), CorrectBias(guard=False)):
        item.run(model, context)
    said = any("mean errors follow from BatchNormalization" in note.text for note in context.records[0].notes)
    assert said is expected


def test_samples_are_near_up_to_a_distance() -> None:
    assert Made(0.02).near
    assert not Made(0.15).near
    assert Made().noise
    assert not Made().near
