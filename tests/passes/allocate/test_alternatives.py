"""What options make of groups, against the whole pipeline with every other node left in float."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.analysis import metrics
from qcompiler.analysis.sensitivity import around, sensitivity
from qcompiler.calibration import data
from qcompiler.calibration.data import Dataset
from qcompiler.errors import DataError
from qcompiler.ir.copies import shared_copy
from qcompiler.ir.edit import Edit
from qcompiler.ir.execute import Runner
from qcompiler.passes.allocate.alternatives import prepare, study_of
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.passes.allocate.groups import tie_groups
from qcompiler.passes.calibrate.calibrate_weights import CalibrateWeights
from qcompiler.passes.place.simulate import materialized
from qcompiler.pipeline.base import Context
from qcompiler.target.load import load

from .test_assign_formats import RESIDUAL, STREAM


def samples(model: ir.Model, count: int = 6) -> Dataset:
    inputs = data.inputs_of(model)
    rng = np.random.default_rng(3)
    return data.load({n: rng.normal(size=(count, *s[1][1:])).astype(np.float32) for n, s in inputs.items()}, inputs)


def by_hand(model: ir.Model, form: str, others: tuple[str, ...], dataset: Dataset) -> float:
    """The loss where ``others`` are excluded by the user."""
    copy = shared_copy(model)
    ctx = Context(Edit(copy), target=load("lowbit-cpu"), format=form, calibration=dataset, exclude=others)
    AssignFormats().run(copy, ctx)
    CalibrateWeights().run(copy, ctx)
    # Unoptimized: ONNX Runtime would fuse DequantizeLinear and MatMul and round the activations to 8 bits.
    ours, theirs = Runner(model, threads=1), Runner(materialized(copy), threads=1, optimize=False)
    name = str(model.graph.outputs[0].name)
    pairs = [(ours.run(feed)[name], theirs.run(feed)[name]) for feed in dataset]
    return float(np.mean([(metrics.kl(one, two) + 4 * metrics.kl(one / 2, two / 2)) / 2 for one, two in pairs]))


@pytest.mark.parametrize(("group", "other"), [("MatMul_0", "MatMul_3"), ("MatMul_3", "MatMul_0")])
def test_loss_of_weights_alone_is_that_of_the_pipeline_without_the_others(group: str, other: str) -> None:
    dataset = samples(STREAM)
    ctx = Context(Edit(STREAM), target=load("lowbit-cpu"), calibration=dataset)
    found = tie_groups(STREAM, load("lowbit-cpu"), ["w4", "w3", "w2"])
    losses = sensitivity(study_of(STREAM, ctx, found.groups, rounding=())).losses[group]
    for form in ("w4", "w3", "w2"):
        assert losses[form] == pytest.approx(by_hand(STREAM, form, (other,), dataset), rel=1e-3)


def test_activations_are_rounded_where_options_differ_in_them() -> None:
    ctx = Context(Edit(RESIDUAL), target=load("edge-npu"), calibration=samples(RESIDUAL))
    found = tie_groups(RESIDUAL, load("edge-npu"), ["w8a8", "w8a16", "w4a8"])
    made = prepare(RESIDUAL, ctx, found.groups)
    alternative = made((("Conv_5", "w8a8"),))
    assert alternative.model is not None
    kinds = [node.op_type for node in alternative.model.graph]
    assert kinds.count("QuantizeLinear") == 1, "what Conv_5 reads, nothing else"
    both = made((("Conv_2", "w8a8"), ("Conv_5", "w4a8")))
    assert both.model is not None
    assert set(both.weights) == {("Conv_2", 1), ("Conv_5", 1)}
    losses = sensitivity(study_of(RESIDUAL, ctx, found.groups)).losses
    assert all(losses[name]["w8a16"] < losses[name]["w8a8"] < losses[name]["w4a8"] for name in ("Conv_2", "Conv_5"))


def test_all_other_weights_are_float_where_activations_are_rounded() -> None:
    """Codes are fitted on a copy of the whole model: what stands beside one group must be as it was."""
    model, target = RESIDUAL, load("edge-npu")
    ctx = Context(Edit(model), target=target, calibration=samples(model, 16))
    groups = tie_groups(model, target, ["w8a16", "w8a8", "w4a8"]).groups
    made = study_of(model, ctx, groups).alternative(((groups[0].name, "w4a8"),))
    assert made.model is not None
    kept = {str(value.name): value.const_value.numpy() for value in model.graph.initializers.values()}
    found = {str(value.name): value.const_value.numpy() for value in made.model.graph.initializers.values()}
    shared = [name for name in kept if name in found]
    assert len(shared) >= 2
    for name in shared:
        np.testing.assert_array_equal(found[name], kept[name])


def test_samples_are_needed() -> None:
    ctx = Context(Edit(RESIDUAL), target=load("edge-npu"))
    with pytest.raises(DataError, match="samples"):
        study_of(RESIDUAL, ctx, tie_groups(RESIDUAL, load("edge-npu"), ["w8a8", "w4a8"]).groups)


def test_around_a_plan_of_activations() -> None:
    ctx = Context(Edit(RESIDUAL), target=load("edge-npu"), calibration=samples(RESIDUAL))
    found = tie_groups(RESIDUAL, load("edge-npu"), ["w8a8", "w8a16", "w4a8"])
    study = study_of(RESIDUAL, ctx, found.groups)
    plan = {group.name: "w4a8" for group in found.groups}
    beside = sensitivity(around(study, plan))
    itself = [own["w4a8"] for own in beside.losses.values()]
    assert max(itself) == pytest.approx(min(itself), rel=1e-5), "the plan, by whatever group"
    relative = beside.relative_to(plan).losses
    assert sum(own["w8a16"] for own in relative.values()) < 0, "more bits take loss away"
    wide = sensitivity(around(study, dict.fromkeys(plan, "w8a16")))
    assert wide.losses["Conv_5"]["w8a16"] < beside.losses["Conv_5"]["w4a8"] / 10


def test_codes_below_8_bits_are_fitted_unless_asked_not_to() -> None:
    ctx = Context(Edit(STREAM), target=load("lowbit-cpu"), calibration=samples(STREAM, 24))
    groups = tie_groups(STREAM, load("lowbit-cpu"), ["w8a8", "w3a8"]).groups
    fitted, nearest = study_of(STREAM, ctx, groups), study_of(STREAM, ctx, groups, rounding=())
    for form, same in (("w8a8", True), ("w3a8", False)):
        one, other = (study.alternative((("MatMul_3", form),)).weights["MatMul_3", 1] for study in (fitted, nearest))
        assert np.array_equal(one, other) == same
    assert sensitivity(fitted).losses["MatMul_3"]["w3a8"] < sensitivity(nearest).losses["MatMul_3"]["w3a8"]
