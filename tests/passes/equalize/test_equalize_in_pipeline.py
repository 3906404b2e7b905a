"""What equalize-channels leaves alone, and what the passes behind it make of its results."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.errors import UsageError
from qcompiler.ir import io
from qcompiler.ir.edit import Edit
from qcompiler.ir.execute import Runner
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.passes.calibrate.calibrate import Calibrate
from qcompiler.passes.calibrate.calibrate_weights import CalibrateWeights
from qcompiler.passes.equalize.equalize_channels import EqualizeChannels
from qcompiler.passes.place.place_qdq import PlaceQdq
from qcompiler.pipeline import spec
from qcompiler.pipeline.base import Context, PassRecord
from qcompiler.quant import state
from qcompiler.target.legality import check_model
from qcompiler.target.load import load

# -- refusals ----------------------------------------------------------------------------------------------------


def residual(make: SimpleNamespace) -> ir.Model:
    return make.build(  # type: ignore[no-any-return]
        [
            make.node("Conv", "x w1", "c", pads=[1, 1, 1, 1]),
            make.node("Relu", "c", "r"),
            make.node("Conv", "r w2", "d", pads=[1, 1, 1, 1]),
            make.node("Add", "d r", "s"),
            make.node("Conv", "s w3"),
        ],
        [1, 4, 6, 6],
        **{name: make.uneven(4, 4, 3, 3, seed=i) for i, name in enumerate(("w1", "w2", "w3"))},
    )


def test_residual_can_be_left_alone(make: SimpleNamespace) -> None:
    context = make.run(residual(make), EqualizeChannels(when="always", residual=False))
    assert context.edit.count == 0
    for name in "cd":
        assert f"Conv_{name} (Conv): Add_s (Add) behind it joins branches" in make.skipped(context)
    assert "Conv_y (Conv): its result is an output of the model" in make.skipped(context)


def test_a_residual_stream_takes_one_factor_per_channel(make: SimpleNamespace) -> None:
    model = residual(make)
    before = [make.content(model, name).copy() for name in ("w1", "w2", "w3")]
    make.run(model)
    after = [make.content(model, name) for name in ("w1", "w2", "w3")]
    factors = make.rows(before[0]) / make.rows(after[0])
    assert factors.max() / factors.min() > 2
    np.testing.assert_allclose(
        after[1], before[1] * factors.reshape(1, -1, 1, 1) / factors.reshape(-1, 1, 1, 1), rtol=1e-5
    )
    np.testing.assert_allclose(after[2], before[2] * factors.reshape(1, -1, 1, 1), rtol=1e-5)


def test_shared_weight_is_left_alone(make: SimpleNamespace) -> None:
    nodes = [make.node("Conv", "x w", "c"), make.node("Relu", "c", "r"), make.node("Conv", "r w")]
    context = make.run(make.build(nodes, [1, 4, 6, 6], w=make.uneven(4, 4, 1, 1)))
    assert context.edit.count == 0
    assert "its weight is shared with other nodes" in make.skipped(context)


@pytest.mark.parametrize(
    ("operator", "inputs", "reason"),
    [
        ("Sigmoid", "c", "Sigmoid_r (Sigmoid) behind it does not let a factor pass"),
        ("Clip", "c low six", "Clip_r behind it clips at other bounds than 0 and a positive number"),
        ("Min", "c six", "Min_r (Min) behind it has no bound per channel of its own"),
        ("Reshape", "c sizes", "Conv_y behind it mixes channels otherwise"),
    ],
)
def test_what_does_not_let_a_factor_pass(make: SimpleNamespace, operator: str, inputs: str, reason: str) -> None:
    constants = {"low": np.array(-1, np.float32), "six": make.SIX["six"], "sizes": np.array([1, 4, 6, 12])}
    nodes = [make.node("Conv", "x w1", "c"), make.node(operator, inputs, "r"), make.node("Conv", "r w2")]
    context = make.run(
        make.build(
            nodes,
            [1, 4, 6, 6],
            w1=make.uneven(8, 4, 1, 1),
            w2=make.uneven(2, 4 if operator == "Reshape" else 8, 1, 1),
            **constants,
        )
    )
    assert context.edit.count == 0
    assert reason in make.skipped(context)


def test_bounds_need_a_kernel_that_absorbs_them(make: SimpleNamespace) -> None:
    context = make.run(make.mobile_chain(), target="cpu-x86")
    assert context.edit.count == 0
    assert "cpu-x86 absorbs no bound per channel (Relu, Min) behind Conv" in make.skipped(context)
    nodes = [
        make.node("Conv", "x w1", "c"),
        make.node("MaxPool", "c", "p", kernel_shape=[2, 2]),
        make.node("Clip", "p zero six", "r"),
        make.node("Conv", "r w2"),
    ]
    model = make.build(nodes, [1, 3, 6, 6], w1=make.uneven(8, 3, 1, 1), w2=make.uneven(2, 8, 1, 1, axis=1), **make.SIX)
    context = make.run(model, target="edge-npu-per-tensor")
    assert "Clip_r behind it is not right behind a layer" in make.skipped(context)


# -- together with what follows ----------------------------------------------------------------------------------


def test_only_where_weights_share_one_scale(make: SimpleNamespace) -> None:
    for target, changes in (("edge-npu", False), ("edge-npu-per-tensor", True)):
        context = make.run(make.mobile_chain(), EqualizeChannels(), target)
        assert bool(context.edit.count) is changes
        assert context.records[0].notes[0].text.startswith("equalized" if changes else "nothing to equalize")


@pytest.mark.parametrize("growth", [0.0, -1.0, float("nan")])
def test_growth_must_be_positive(make: SimpleNamespace, growth: float) -> None:
    model = make.relu_chain()
    with pytest.raises(UsageError, match="growth"):
        EqualizeChannels(growth=growth).run(model, Context(Edit(model)))


def test_bounds_are_absorbed_by_the_integer_kernel(make: SimpleNamespace) -> None:
    from qcompiler.calibration import data

    model = make.mobile_chain()
    target = load("edge-npu-per-tensor")
    context = Context(Edit(model), target=target)
    EqualizeChannels().run(model, context)
    AssignFormats().run(model, context)
    decisions = {item.name: state.node_decision(item) for item in model.graph}
    fused = decisions["Clip_r1"]
    assert fused is not None
    assert fused.integer
    assert fused.reason == "fused into Conv_c1"
    context.calibration = data.random({"x": (np.dtype(np.float32), (1, 3, 6, 6))}, 4, 0)
    for each in (Calibrate(), CalibrateWeights(), PlaceQdq()):
        each.run(model, context)
    assert make.kinds(model).count("QuantizeLinear") == 4  # input and three results: no scale between Conv and Min
    assert check_model(model, target) == []


def test_a_min_of_two_activations_is_not_absorbed(make: SimpleNamespace) -> None:
    nodes = [make.node("Conv", "x w1", "c"), make.node("Min", "c x", "m"), make.node("Conv", "m w2")]
    model = make.build(nodes, [1, 3, 6, 6], w1=make.uneven(3, 3, 1, 1), w2=make.uneven(2, 3, 1, 1))
    context = Context(Edit(model), target=load("edge-npu-per-tensor"))
    AssignFormats().run(model, context)
    decision = state.node_decision(model.graph[1])
    assert decision is not None
    assert not decision.integer


@pytest.mark.parametrize("name", ["mobilenetv1_025_imagenet", "resnet20_cifar10", "dscnn_kws"])
def test_pretrained_models_keep_their_outputs(zoo: ModuleType, name: str) -> None:
    case = zoo.load(name)
    model = io.load(case.model)
    context = Context(Edit(model), target=load("edge-npu-per-tensor"))
    passes = [each for each in spec.resolve("normalize") if each.name != "infer-shapes"]
    for each in passes:
        each.run(model, context)
    samples = case.calibration(4)
    runner = Runner(model, optimize=False)
    wanted = [runner.run(sample) for sample in samples]
    context.records.append(PassRecord("equalize-channels"))
    EqualizeChannels().run(model, context)
    count = context.edit.count
    runner = Runner(model, optimize=False)
    for sample, outputs in zip(samples, wanted, strict=True):
        got = runner.run(sample)
        for output, array in outputs.items():
            assert np.abs(got[output] - array).max() <= 1e-5 * np.abs(array).max()
    EqualizeChannels().run(model, context)
    assert context.edit.count == count
    assert context.records[-1].notes[0].text.startswith("equalized")
