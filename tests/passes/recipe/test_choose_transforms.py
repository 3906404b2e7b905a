"""Transforms are judged on samples left out, kept where they gain, and leave no trace where they do not."""

from __future__ import annotations

import json

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.errors import PipelineError, UsageError
from qcompiler.ir.execute import Runner
from qcompiler.ir.render import render
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.passes.allocate.choose_formats import ChooseFormats
from qcompiler.passes.recipe.choose_transforms import ChooseTransforms
from qcompiler.passes.round.round_gptq import RoundGptq
from qcompiler.pipeline.base import Context
from qcompiler.pipeline.spec import parse
from qcompiler.quant import plan
from tests.passes.recipe.trials import REST, SHAPES, context, network


def test_a_transform_that_gains_is_kept():
    model = network(outlier=100.0)
    before = Runner(model)
    ctx = context(model)
    ChooseTransforms(candidates=("equalize-channels",)).run(model, ctx)
    (trial,) = ctx.records[0].trials
    assert trial.kept
    assert trial.reason == ""
    assert trial.after is not None
    assert trial.after < 0.1 * trial.before
    assert ctx.edit.count > 0
    assert "r_equalized" in render(model)
    feed = next(iter(ctx.calibration))
    np.testing.assert_allclose(Runner(model).run(feed)["y"], before.run(feed)["y"], rtol=1e-4, atol=1e-5)


def test_what_does_not_gain_leaves_no_trace():
    model = network()
    text = render(model)
    ctx = context(model)
    ChooseTransforms(candidates=("spoil", "idle", "broken")).run(model, ctx)
    spoil, idle, broken = ctx.records[0].trials
    assert not spoil.kept
    assert spoil.reason == "no gain on samples left out"
    assert spoil.after > spoil.before
    assert spoil.notes == ("halved",)
    assert (idle.kept, idle.after, idle.reason) == (False, None, "nothing to do: its weight is shared")
    assert (broken.kept, broken.after) == (False, None)
    assert broken.reason.startswith("failed: ")
    assert "cannot do that" in broken.reason
    assert render(model) == text
    assert ctx.edit.count == 0
    assert ctx.records == [ctx.records[0]]


@pytest.mark.parametrize(("effort", "measured"), [("normal", False), ("high", True)])
def test_nodes_are_added_only_on_request(effort, measured):
    model = network(outlier=100.0)
    ctx = context(model)
    ChooseTransforms(effort=effort, candidates=("double",)).run(model, ctx)
    (trial,) = ctx.records[0].trials
    assert (trial.after is not None) == measured
    assert not trial.kept
    assert measured or trial.reason == "adds 1 node: --effort high keeps it where it gains"


def test_a_candidate_that_fails_is_named_in_a_warning():
    model = network()
    ctx = context(model)
    ChooseTransforms(candidates=("broken",)).run(model, ctx)
    assert [note.level for note in ctx.records[0].notes] == ["warning"]
    assert "broken was tried and failed: " in ctx.records[0].notes[0].text


@pytest.mark.parametrize("content", [np.nan, 0.0])
def test_nothing_is_kept_where_there_is_no_loss_to_lower(content):
    model = network()
    model.graph.initializers["w2"].const_value = ir.tensor(np.full(SHAPES["w2"], content, np.float32), name="w2")
    if content == 0:
        model.graph.initializers["b2"].const_value = ir.tensor(np.zeros(SHAPES["b2"], np.float32), name="b2")
    ctx = context(model)
    ctx.following = parse("place-qdq") if np.isnan(content) else ctx.following
    text = render(model)
    ChooseTransforms(candidates=("spoil",)).run(model, ctx)
    assert not ctx.records[0].trials
    assert "nothing was tried" in ctx.records[0].notes[-1].text
    assert render(model) == text


def test_candidates_are_checked_before_any_work():
    model = network()
    ctx = context(model)
    with pytest.raises(PipelineError, match="no pass named 'smoth'"):
        ChooseTransforms(candidates=("spoil", "smoth")).run(model, ctx)
    with pytest.raises(UsageError, match="'correct-bias' does not keep what the model computes"):
        ChooseTransforms(candidates=("correct-bias",)).run(model, ctx)
    assert not ctx.records[0].trials


def test_models_too_large_to_copy_about_are_left_alone(monkeypatch):
    from qcompiler.passes.recipe import _trial

    monkeypatch.setattr(_trial, "PART_BYTES", 100)
    model = network()
    ctx = context(model)
    ChooseTransforms().run(model, ctx)
    assert "too large to copy about" in ctx.records[0].notes[0].text


def test_a_plan_repeats_what_was_kept(tmp_path):
    model = network(outlier=100.0)
    ctx = context(model)
    ChooseTransforms(candidates=("equalize-channels", "spoil")).run(model, ctx)
    for item in parse("choose-widths,assign-formats,calibrate,calibrate-weights"):
        item.run(model, ctx)
    decisions = plan.dump(model)
    assert decisions["transforms"] == ["equalize-channels"]
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(decisions))
    again = network(outlier=100.0)
    other = context(again)
    other.calibration = None
    ChooseTransforms(plan=str(path)).run(again, other)
    parse(f"apply-plan{{path={json.dumps(str(path))}}}")[0].run(again, other)
    assert plan.dump(again) == decisions
    assert not other.records[0].trials


def test_a_second_candidate_is_measured_on_top_of_the_first():
    model = network(outlier=100.0)
    ctx = context(model)
    ChooseTransforms(candidates=("equalize-channels", "spoil")).run(model, ctx)
    first, second = ctx.records[0].trials
    assert second.before == first.after


@pytest.mark.parametrize(("form", "fitted"), [("w8a8", 0), ("w4a8", 3)])
def test_below_8_bits_transforms_are_judged_behind_gptq(
    form: str, fitted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for the model as it is, once for each of two candidates."""
    runs = []
    monkeypatch.setattr(RoundGptq, "run", lambda _self, _model, ctx: runs.append(len(ctx.calibration)))
    model = network()
    ctx = context(model, target="edge-npu")
    ctx.format = form
    ctx.following = parse(REST.replace("place-qdq", "choose-rounding,place-qdq"))
    ChooseTransforms(candidates=("spoil", "spoil")).run(model, ctx)
    assert runs == [12] * fitted


@pytest.mark.parametrize(
    ("candidates", "judged"), [(("w4a8", "w8a8", "w2a8"), "w4a8"), (("w8a16", "w8a8"), "w8a8"), (("w2a8",), "w8a8")]
)
def test_among_candidates_transforms_are_judged_in_the_one_behind_the_widest(
    candidates: tuple[str, ...], judged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    formats, run = set(), AssignFormats.run

    def seen(own: AssignFormats, model: ir.Model, ctx: Context) -> None:
        formats.add(ctx.format)
        run(own, model, ctx)

    monkeypatch.setattr(AssignFormats, "run", seen)
    model = network()
    ctx = context(model, target="edge-npu")
    ctx.following = (ChooseFormats(candidates=candidates, budget="size=1x"), *parse(REST))
    ChooseTransforms(candidates=("spoil",)).run(model, ctx)
    assert formats == {judged}
    assert ctx.format == "w8a8"
    assert len(ctx.records[0].trials) == 1


def test_decisions_are_the_same_every_time():
    losses = []
    for _ in range(2):
        model = network(outlier=10.0)
        ctx = context(model)
        ChooseTransforms(candidates=("equalize-channels", "spoil")).run(model, ctx)
        losses.append([(trial.before, trial.after, trial.kept) for trial in ctx.records[0].trials])
    assert losses[0] == losses[1]
