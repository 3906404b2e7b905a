"""Every metric: what it must get right on a network small enough to know the answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcompiler.analysis.sensitivity import METRICS, Alternative, Choice, Metric, Study, metric_named, sensitivity
from qcompiler.analysis.sensitivity.losses import Reference, curvature, label_loss_change, output_loss
from qcompiler.analysis.sensitivity.weights_alone import spike_ratio
from qcompiler.calibration import data
from qcompiler.errors import UsageError

_TEXT = """<ir_version: 10, opset_import: ["" : 21]> g (float[N, 8] x) => (float[N, 5] y) {
    a = MatMul(x, w1)
    t = Tanh(a)
    y = MatMul(t, w2) }"""


def _model() -> ir.Model:
    proto = onnx.parser.parse_model(_TEXT)
    rng = np.random.default_rng(5)
    for name, shape in {"w1": (8, 10), "w2": (10, 5)}.items():
        proto.graph.initializer.append(
            onnx.numpy_helper.from_array(rng.normal(size=shape).astype(np.float32) / 2, name)
        )
    for node in proto.graph.node:
        node.name = node.output[0]
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def _study(model: ir.Model | None = None) -> Study:
    """Two layers, with noise of three sizes in place of rounding."""
    of = model or _model()
    samples = np.random.default_rng(6).normal(size=(40, 8)).astype(np.float32)
    own = {"a": of.graph.initializers["w1"], "y": of.graph.initializers["w2"]}

    def alternative(choice: Choice) -> Alternative:
        found = {}
        for group, option in choice:
            tensor = own[group].const_value
            assert tensor is not None
            given = tensor.numpy()
            noise = np.random.default_rng(7).normal(size=given.shape)
            found[group, 1] = (given + float(option) * noise).astype(np.float32)
        return Alternative(found)

    options = ("0", "0.001", "0.01", "0.1")
    dataset = data.load({"x": samples}, data.inputs_of(of))
    return Study(of, dataset, {"a": options, "y": options}, {"a": ("a",), "y": ("y",)}, {"a": 80, "y": 50}, alternative)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_more_noise_loses_more_and_none_nothing(metric: Metric) -> None:
    study = _study()
    found = sensitivity(study, metric)
    for losses in found.losses.values():
        assert losses["0"] == pytest.approx(0, abs=1e-7)
        assert losses["0.001"] < losses["0.01"] < losses["0.1"]
    assert found.metric == metric.name
    assert found.samples == (40 if metric.forward else 0)
    assert (found.cost.macs > 0) == metric.forward
    assert metric_named(metric.name) == metric


def test_gauss_newton_is_the_measured_loss_where_noise_is_white_and_small() -> None:
    study = _study()
    measured, traced = sensitivity(study), sensitivity(study, metric_named("gauss-newton"))
    for group in study.options:
        assert traced.losses[group]["0.01"] == pytest.approx(measured.losses[group]["0.01"], rel=1.0)


def test_curvature_is_the_second_order_of_the_divergence() -> None:
    rng = np.random.default_rng(8)
    scores = rng.normal(size=(6, 4))
    change = rng.normal(size=(6, 4)) * 1e-3
    reference = Reference((scores,), (False,), (None,))
    softer = Reference((scores / 2,), (False,), (None,))
    second = (curvature(reference, [scores + change]) + 4 * curvature(softer, [(scores + change) / 2])) / 4
    assert output_loss(reference, [scores + change]) == pytest.approx(second, rel=1e-2)
    vectors = Reference((scores,), (True,), (None,))
    assert output_loss(vectors, [scores + change]) == pytest.approx(curvature(vectors, [scores + change]) / 2, rel=1e-2)


def test_growth_of_the_label_loss() -> None:
    scores = np.array([[2.0, 0.0], [0.0, 1.0]])
    grown = label_loss_change(Reference((scores,), (False,), (None,)), [scores * 0.5])
    expected = np.mean(
        [np.log1p(np.exp(-1.0)) - np.log1p(np.exp(-2.0)), np.log1p(np.exp(-0.5)) - np.log1p(np.exp(-1.0))]
    )
    assert grown == pytest.approx(expected)


def test_padding_does_not_count() -> None:
    wanted = np.zeros((1, 3, 2))
    got = wanted.copy()
    got[0, 2] = (5.0, -5.0)
    counted = np.array([[True, True, False]])
    assert output_loss(Reference((wanted,), (False,), (counted,)), [got]) == 0
    assert output_loss(Reference((wanted,), (False,), (None,)), [got]) > 0.1


def test_probabilities_and_logits_lose_alike() -> None:
    rng = np.random.default_rng(9)
    scores, other = rng.normal(size=(5, 4)), rng.normal(size=(5, 4))

    def shares(rows: np.ndarray) -> np.ndarray:
        powers = np.exp(rows)
        return powers / powers.sum(1, keepdims=True)

    logits = output_loss(Reference((scores,), (False,), (None,)), [other])
    assert output_loss(Reference((shares(scores),), (False,), (None,)), [shares(other)]) == pytest.approx(logits)


@pytest.mark.parametrize("name", ["gauss-newton", "taylor", "sqnr", "spikes"])
def test_metrics_of_weights_refuse_options_that_round_activations(name: str) -> None:
    study = _study()

    def rounding(choice: Choice) -> Alternative:
        return Alternative(study.alternative(choice).weights, study.model)

    with pytest.raises(UsageError, match=f"{name} looks at weights alone, but options of 'a'"):
        sensitivity(replace(study, alternative=rounding), name)


def test_spike_ratio() -> None:
    flat = np.ones(1000, np.float32)
    assert spike_ratio([flat]) == 1
    flat[3] = -50
    assert spike_ratio([flat]) == pytest.approx(50)
    assert spike_ratio([np.zeros(4, np.float32)]) == 1
