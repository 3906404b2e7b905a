"""What is tried is judged on samples left out, kept where it gains, and leaves no trace where it does not."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcompiler.calibration import data
from qcompiler.calibration.trust import Made
from qcompiler.errors import PassError, PipelineError, UsageError
from qcompiler.ir.copies import shared_copy
from qcompiler.ir.edit import Edit
from qcompiler.ir.execute import Runner
from qcompiler.ir.render import render
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.passes.allocate.choose_formats import ChooseFormats
from qcompiler.passes.recipe import _candidates
from qcompiler.passes.recipe._trial import Attempt, Bench, divided
from qcompiler.passes.recipe.choose_rounding import ChooseRounding
from qcompiler.passes.recipe.choose_transforms import ChooseTransforms
from qcompiler.passes.round.round_gptq import RoundGptq
from qcompiler.pipeline import registry
from qcompiler.pipeline.base import Context, Pass, PassRecord, Preserves
from qcompiler.pipeline.spec import parse
from qcompiler.quant import plan, state
from qcompiler.target.formats import resolve_format
from qcompiler.target.load import load

REST = "choose-widths,assign-formats,calibrate,calibrate-weights,place-qdq"


def network(*, outlier: float = 1.0) -> ir.Model:
    """Two convolutions; channel 0 of the first has weights ``outlier`` times as large, the second takes it back."""
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[N,3,8,8] x) => (float[N,5] y) {
       a = Conv <pads=[1,1,1,1]> (x, w1, b1)
       r = Relu(a)
       d = Conv (r, w2, b2)
       p = GlobalAveragePool(d)
       y = Flatten(p) }"""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(3)
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    for name in ("w1", "b1"):
        weights[name][0] *= outlier
    weights["w2"][:, 0] /= outlier
    for name, weight in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


SHAPES = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (5, 8, 1, 1), "b2": (5,)}


def context(model: ir.Model, *, target: str = "edge-npu-per-tensor", samples: int = 16) -> Context:
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(samples)]
    ctx = Context(Edit(model), target=load(target), format="w8a8", following=parse(REST))
    ctx.calibration = data.load(feeds, data.inputs_of(model))
    ctx.records.append(PassRecord("test"))
    return ctx


@dataclass(frozen=True)
class Spoil(Pass):
    """Halve the first weight: never a gain."""

    name: ClassVar[str] = "spoil"
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, model: ir.Model, ctx: Context) -> None:
        value = model.graph.initializers["w1"]
        assert value.const_value is not None
        ctx.note("halved")
        ctx.edit.set_constant(value, value.const_value.numpy() / 2)


@dataclass(frozen=True)
class Double(Pass):
    """Put an Identity behind the input, and nothing else."""

    name: ClassVar[str] = "double"
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, model: ir.Model, ctx: Context) -> None:
        first, value = next(iter(model.graph)), model.graph.inputs[0]
        same = ctx.edit.insert("Identity", [value], before=first).outputs[0]
        same.shape, same.type = value.shape, value.type
        ctx.edit.set_input(first, 0, same)


@dataclass(frozen=True)
class Idle(Pass):
    """Find nothing to do."""

    name: ClassVar[str] = "idle"
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, model: ir.Model, ctx: Context) -> None:
        ctx.skip("Conv_0", "its weight is shared")


@dataclass(frozen=True)
class Broken(Pass):
    """Refuse."""

    name: ClassVar[str] = "broken"
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, model: ir.Model, ctx: Context) -> None:
        raise PassError("cannot do that", where="Conv_0")


@pytest.fixture(autouse=True)
def own_passes(monkeypatch):
    plugins = {item.name: item for item in (Spoil, Double, Idle, Broken)}
    monkeypatch.setattr(registry, "_PLUGINS", plugins)


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


def test_rounding_is_chosen_behind_scales():
    model = network()
    ctx = context(model, target="edge-npu")
    for item in parse("choose-widths,assign-formats,calibrate,calibrate-weights"):
        item.run(model, ctx)
    ctx.following = parse("correct-bias,place-qdq")
    ChooseRounding(candidates=("spoil",)).run(model, ctx)
    (trial,) = ctx.records[0].trials
    assert not trial.kept
    assert trial.after > trial.before


@pytest.mark.parametrize(("after", "kept"), [(0.99, ["round-alternating"]), (1.0, []), (0.97, ["all"])])
def test_any_gain_of_turns_is_kept_and_of_other_roundings_two_percent(
    after: float, kept: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["round-gptq", "round-alternating", "round-alternating,correct-outputs"]

    def attempt(bench: Bench, model: ir.Model, _text: str) -> Attempt:
        return Attempt(shared_copy(model), 1, bench.loss * after, "", (), (), 0.0)

    monkeypatch.setattr(Bench, "attempt", attempt)
    model = network()
    ctx = context(model, target="edge-npu")
    for item in parse("choose-widths,assign-formats,calibrate,calibrate-weights"):
        item.run(model, ctx)
    ctx.following = parse("correct-bias,place-qdq")
    ChooseRounding(candidates=tuple(texts)).run(model, ctx)
    assert [trial.text for trial in ctx.records[0].trials if trial.kept] == (texts if kept == ["all"] else kept)


@pytest.mark.parametrize("choose", [ChooseTransforms(), ChooseRounding()])
@pytest.mark.parametrize(
    ("samples", "made", "reason"),
    [
        (7, None, "that takes 8 calibration samples"),
        (16, Made(), "random samples say nothing of the loss"),
        (16, Made(0.01), "synthesised samples do not choose well among 8-bit weights"),
    ],
)
def test_nothing_is_tried_where_nothing_can_be_judged(choose, samples, made, reason):
    model = network()
    ctx = context(model, samples=samples)
    for item in parse("choose-widths,assign-formats,calibrate,calibrate-weights"):
        item.run(model, ctx)
    ctx.calibration = dataclasses.replace(ctx.calibration, made=made)
    choose.run(model, ctx)
    assert not ctx.records[0].trials
    assert reason in ctx.records[0].notes[-1].text


def test_nothing_is_tried_where_nothing_is_quantized():
    model = network()
    ctx = context(model)
    ctx.following = ()
    ChooseTransforms().run(model, ctx)
    ChooseRounding().run(model, ctx)
    assert [note.text for note in ctx.records[0].notes] == [
        "nothing was tried: no pass behind this one quantizes the model",
        "nothing was tried: no weight is quantized",
    ]


def test_samples_that_judge_are_not_fitted_on():
    model = network()
    ctx = context(model, samples=40)
    every, few, judging = divided(ctx.calibration, model, "normal")
    seen = [[feed["x"].tobytes() for feed in part] for part in (every, few, judging)]
    assert len(seen[2]) == 10
    assert set(seen[1]) <= set(seen[0])
    assert not set(seen[0]) & set(seen[2])


def test_large_models_are_tried_on_fewer_samples(monkeypatch):
    from qcompiler.passes.recipe import _trial

    model = network()
    ctx = context(model, samples=40)
    monkeypatch.setattr(_trial, "_WORK", {"normal": 0, "high": 0})
    _, few, judging = divided(ctx.calibration, model, "normal")
    assert (len(few), len(judging)) == (4, 4)


@pytest.mark.parametrize("effort", ["normal", "high"])
def test_candidates_are_passes_that_exist(effort):
    for form in ("w8a8", "w2a8", "w4"):
        request = resolve_format(load("lowbit-cpu"), form)
        texts = _candidates.transforms(effort, request)
        for text in (*texts, *_candidates.roundings(effort, request.weight_bits)):
            assert parse(text)
        assert set(_candidates.transforms("normal", request)) <= set(_candidates.transforms("high", request))
    for weight_only in (False, True):
        assert all(parse(text) for text in _candidates.roundings(effort, 4, few_words=True, weight_only=weight_only))
    assert set(_candidates.roundings("normal", 8)) <= set(_candidates.roundings("high", 2))
    narrow = set(_candidates.roundings("high", 4, narrow=True)) - set(_candidates.roundings("high", 4))
    assert narrow == {"fit-ranges,round-gptq"}
    assert all(parse(text) for text in narrow)
    assert _candidates.roundings("normal", 4, narrow=True) == _candidates.roundings("normal", 4)


def test_layers_that_read_few_bits_are_known():
    model = network()
    for form, wanted in (("w4a8", False), ("w4a4", True)):
        ctx = Context(Edit(model), target=load("lowbit-cpu"), format=form)
        AssignFormats().run(model, ctx)
        assert _candidates.reads_few_bits(model.graph) is wanted


def test_attention_of_few_bits_is_offered_another_grid():
    cpu, npu = load("lowbit-cpu"), load("edge-npu")
    offered = ("choose-log-formats{bits=4 operators=Softmax}",)
    assert _candidates.attention("high", resolve_format(cpu, "w4a4"), cpu) == offered
    assert _candidates.attention("normal", resolve_format(cpu, "w4a4"), cpu) == ()
    assert _candidates.attention("high", resolve_format(cpu, "w4a4/log3"), cpu) == ()
    assert _candidates.attention("high", resolve_format(cpu, "w4a8"), cpu) == ()
    assert _candidates.attention("high", resolve_format(npu, "w4a8"), npu) == ()
    assert _candidates.attention("high", resolve_format(cpu, "w4"), cpu) == ()


def test_another_grid_for_attention_is_kept_where_it_gains():
    """Scores come from outside, so that nothing but attention weights and what they weigh has 4 bits."""
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[N,16,16] s, float[N,16,8] v) => (float[N,16,4] y) {
       [soft] p = Softmax(s)
       [mix] c = MatMul(p, v)
       [out] y = MatMul(c, w) }"""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=(8, 4)).astype(np.float32), "w"))
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    feeds = [{"s": 3 * rng.normal(size=(1, 16, 16)).astype(np.float32),
              "v": 1 + rng.normal(size=(1, 16, 8)).astype(np.float32)} for _ in range(32)]  # fmt: skip
    target = load("lowbit-cpu")
    ctx = Context(Edit(model), target=target, format="w4a4", following=parse("place-qdq"))
    ctx.calibration = data.load(feeds, data.inputs_of(model))
    for item in parse("assign-formats,choose-log-formats,calibrate,calibrate-weights"):
        item.run(model, ctx)
    assert str(state.edge_quant(model.graph.node("mix"), 0).format) == "i4"
    ChooseRounding(candidates=_candidates.attention("high", resolve_format(target, "w4a4"), target)).run(model, ctx)
    (trial,) = ctx.records[-1].trials
    assert trial.kept, trial
    assert trial.after < 0.9 * trial.before
    assert str(state.edge_quant(model.graph.node("mix"), 0).format) == "log4"
