"""absorb-high-bias: channels move to 0, the next bias adds what they lost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.calibration import data
from qcompiler.ir.edit import Edit
from qcompiler.ir.statistics import set_statistics, statistics
from qcompiler.passes.equalize.absorb_high_bias import AbsorbHighBias
from qcompiler.pipeline import spec
from qcompiler.pipeline.base import Context, PassRecord, Preserves

PROOF = AbsorbHighBias(input_low=-8.0, input_high=8.0)


def model_with(make: SimpleNamespace, nodes: list[Any], *, seed: int = 0, pads: int = 0, **weights: Any) -> ir.Model:
    """Conv (6 channels, biases of up to 2000) → ``nodes`` from ``c`` to ``m`` → Conv."""
    random = np.random.default_rng(seed)
    return make.build(  # type: ignore[no-any-return]
        [make.node("Conv", "x w1 b1", "c"), *nodes, make.node("Conv", "m w2 b2", pads=[pads] * 4)],
        ["N", 3, 6, 6],
        w1=random.standard_normal((6, 3, 1, 1)).astype(np.float32),
        b1=np.array([200, 60, 0, -100, 2000, 90], np.float32),
        w2=random.standard_normal((4, 6, 1, 1)).astype(np.float32),
        b2=random.standard_normal(4).astype(np.float32),
        **weights,
    )


def proven_least(make: SimpleNamespace, model: ir.Model) -> Any:
    """What inputs within ±8 cannot fall below, by hand."""
    return make.content(model, "b1") - 8 * np.abs(make.content(model, "w1")).sum((1, 2, 3))


def test_a_shift_is_what_interval_analysis_proves(make: SimpleNamespace) -> None:
    model = model_with(make, [make.node("Relu", "c", "m")])
    bias, shift = make.content(model, "b1").copy(), np.maximum(proven_least(make, model), 0)
    assert (shift > 0).sum() >= 3
    assert (shift == 0).sum() >= 2
    added = make.content(model, "b2") + make.content(model, "w2").reshape(4, 6).astype(np.float64) @ shift
    context = make.run(model, PROOF)
    np.testing.assert_allclose(make.content(model, "b1"), bias - shift, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(make.content(model, "b2"), added, rtol=1e-4)
    assert "proven for inputs within [-8, 8]" in context.records[0].notes[0].text


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["Relu", "Clip", "none"]), st.booleans())
def test_any_chain_keeps_its_outputs(make: SimpleNamespace, seed: int, kind: str, pooled: bool) -> None:
    operands = "c zero high" if kind == "Clip" else "c"
    nodes = [] if kind == "none" else [make.node(kind, operands, "r")]
    data = "r" if nodes else "c"
    nodes.append(make.node("AveragePool" if pooled else "MaxPool", data, "m", kernel_shape=[2, 2]))
    constants = {"zero": make.SIX["zero"], "high": np.array(150, np.float32)} if kind == "Clip" else {}
    model = model_with(make, nodes, seed=seed, **constants)
    make.run(model, PROOF)


def test_what_rounding_leaves_of_a_shift_is_no_new_one(make: SimpleNamespace) -> None:
    """Channels that are constant: what is left of them is their last digit, and that is all of it."""
    model = model_with(make, [make.node("MaxPool", "c", "m", kernel_shape=[2, 2])])
    feeds = [{"x": np.full((1, 3, 6, 6), 0.1, np.float32)} for _ in range(4)]
    context = Context(Edit(model), calibration=data.load(feeds, data.inputs_of(model)))
    counts = []
    for _ in range(2):
        context.records.append(PassRecord("absorb-high-bias"))
        PROOF.run(model, context)
        counts.append(context.edit.count)
    assert counts[0] == counts[1] > 0


def test_clip_gets_a_bound_per_channel(make: SimpleNamespace) -> None:
    model = model_with(
        make, [make.node("Clip", "c zero high", "m")], zero=make.SIX["zero"], high=np.array(150, np.float32)
    )
    least = np.maximum(proven_least(make, model), 0)
    make.run(model, PROOF, target="edge-npu-per-tensor")
    assert make.kinds(model) == ["Conv", "Relu", "Min", "Conv"]
    shift = np.where(least < 150, least, 0)  # what lies above the bound altogether is constant
    np.testing.assert_allclose(make.content(model, "Clip_m_bounds").ravel(), 150 - shift, rtol=1e-5)
    refused = model_with(
        make, [make.node("Clip", "c zero high", "m")], zero=make.SIX["zero"], high=np.array(150, np.float32)
    )
    assert "cpu-x86 absorbs no bound per channel" in make.skipped(make.run(refused, PROOF, target="cpu-x86"))


def test_through_a_flatten(make: SimpleNamespace) -> None:
    random = np.random.default_rng(0)
    model = make.build(
        [
            make.node("Conv", "x w1 b1", "c"),
            make.node("Relu", "c", "r"),
            make.node("Flatten", "r", "f"),
            make.node("Gemm", "f w2"),
        ],
        [2, 3, 2, 2],
        w1=random.standard_normal((4, 3, 1, 1)).astype(np.float32),
        b1=np.array([100, 0, 200, 300], np.float32),
        w2=random.standard_normal((16, 5)).astype(np.float32),
    )
    assert make.run(model, PROOF).edit.count


def test_without_an_activation_statistics_decide_and_outputs_stay(make: SimpleNamespace) -> None:
    model = model_with(make, [make.node("MaxPool", "c", "m", kernel_shape=[2, 2])])
    bias = make.content(model, "b1").copy()
    set_statistics(model.graph[0].outputs[0], bias, np.full(6, 4.0))
    make.run(model, AbsorbHighBias(sigmas=3))
    np.testing.assert_allclose(bias - make.content(model, "b1"), [194, 54, 0, -94, 1994, 84], atol=0.01)
    known = statistics(model.graph[0].outputs[0])
    assert known is not None
    np.testing.assert_allclose(known[0], [6, 6, 0, -6, 6, 6], atol=0.01)


def test_statistics_promise_nothing_and_cut_off(make: SimpleNamespace) -> None:
    which = AbsorbHighBias(by="statistics", sigmas=1)
    assert which.preserves is Preserves.NOTHING
    assert AbsorbHighBias().preserves is Preserves.FLOAT
    assert spec.resolve("absorb-high-bias{by=statistics}")[0].preserves is Preserves.NOTHING
    model = model_with(make, [make.node("Relu", "c", "m")])
    bias = make.content(model, "b1").copy()
    set_statistics(model.graph[0].outputs[0], bias, np.full(6, 100.0))
    context = Context(Edit(model), records=[PassRecord(which.name)])
    which.run(model, context)
    np.testing.assert_allclose(bias - make.content(model, "b1"), [190, 50, 0, 0, 1990, 80], atol=0.01)
    assert "not proven" in context.records[0].notes[0].text


def test_calibration_minima_stand_in_for_statistics(make: SimpleNamespace) -> None:
    model = model_with(make, [make.node("Relu", "c", "m")])
    bias = make.content(model, "b1").copy()
    samples = data.random({"x": (np.dtype(np.float32), (1, 3, 6, 6))}, 6, 0)
    context = Context(Edit(model), calibration=samples, records=[PassRecord("absorb-high-bias")])
    least = min(
        float((np.einsum("oi,nihw->nohw", make.content(model, "w1")[:, :, 0, 0], feed["x"])[:, 0] + bias[0]).min())
        for feed in samples
    )
    AbsorbHighBias(by="statistics").run(model, context)
    assert bias[0] - make.content(model, "b1")[0] == pytest.approx(least, rel=1e-4)


@pytest.mark.parametrize(
    ("operator", "pads", "reason"),
    [
        ("Relu", 1, "Conv_y behind it: its zero padding would be shifted too"),
        ("Sigmoid", 0, "Sigmoid_m (Sigmoid) behind it does not let a shift pass"),
        ("LeakyRelu", 0, "LeakyRelu_m (LeakyRelu) behind it does not let a shift pass"),
    ],
)
def test_refusals(make: SimpleNamespace, operator: str, pads: int, reason: str) -> None:
    context = make.run(model_with(make, [make.node(operator, "c", "m")], pads=pads), PROOF)
    assert context.edit.count == 0
    assert reason in make.skipped(context)
    assert "Conv_y (Conv): its result is an output of the model" in make.skipped(context)
