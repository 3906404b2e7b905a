"""What is tried of roundings, on which samples it is judged, and what is kept."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcompiler.calibration import data
from qcompiler.calibration.trust import Made
from qcompiler.ir.copies import shared_copy
from qcompiler.ir.edit import Edit
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.passes.recipe import _candidates
from qcompiler.passes.recipe._trial import Attempt, Bench, divided
from qcompiler.passes.recipe.choose_rounding import ChooseRounding
from qcompiler.passes.recipe.choose_transforms import ChooseTransforms
from qcompiler.pipeline.base import Context
from qcompiler.pipeline.spec import parse
from qcompiler.quant import state
from qcompiler.target.formats import resolve_format
from qcompiler.target.load import load
from tests.passes.recipe.trials import context, network


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
