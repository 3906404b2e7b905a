"""What layers behind a group make up for, and which losses follow from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.analysis.sensitivity import sensitivity
from qcompiler.calibration import data
from qcompiler.calibration.data import Dataset
from qcompiler.calibration.trust import Made
from qcompiler.ir.edit import Edit
from qcompiler.passes.allocate._held_out import divided
from qcompiler.passes.allocate._recovery import Recovery, few, recoverable, shares_left
from qcompiler.passes.allocate.alternatives import study_of
from qcompiler.passes.allocate.choose_formats import ChooseFormats
from qcompiler.passes.allocate.format_marks import ALLOCATION, marked
from qcompiler.passes.allocate.groups import tie_groups
from qcompiler.passes.allocate.roundings import rounding_named
from qcompiler.pipeline.base import Context, PassRecord
from qcompiler.pipeline.spec import parse
from qcompiler.target.load import load

from .test_choose_formats import network

CANDIDATES = ("w8a8", "w4a8", "w3a8")
REST = "assign-formats,calibrate,calibrate-weights,choose-rounding,correct-bias,place-qdq"


def samples(count: int = 48) -> Dataset:
    rng = np.random.default_rng(1)
    feeds = [{"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(count)]
    return data.load(feeds, {"x": (np.dtype(np.float32), ("N", 3, 8, 8))})


def context(model: ir.Model, dataset: Dataset | None, rest: str = REST) -> Context:
    return Context(
        Edit(model), target=load("lowbit-cpu"), format="w8a8", calibration=dataset, following=parse(rest),
        records=[PassRecord("test")],
    )  # fmt: skip


def test_shares_are_ratios_where_samples_agree() -> None:
    left = {"a": np.full(10, 0.1), "b": np.full(10, 0.4), "c": np.full(10, 0.9)}
    assert shares_left({"a": 1.0, "b": 0.5, "c": 0.6}, left) == pytest.approx({"a": 0.1, "b": 0.8, "c": 1.0})


def test_a_small_loss_keeps_the_share_of_all() -> None:
    noise = np.tile([-1.0, 1.0], 50)
    left = {"large": np.full(100, 0.2), "small": noise + 1e-6, "none": np.full(100, -0.1)}
    found = shares_left({"large": 1.0, "small": 1e-6, "none": 1.0}, left)
    assert found["small"] == pytest.approx(0.1 / 2, rel=1e-3)
    assert found["none"] == 0.02  # less than nothing is not left of a loss: the least share
    assert found["large"] == pytest.approx(0.2)


def test_outputs_that_are_no_numbers_leave_everything() -> None:
    assert shares_left({"a": 1.0, "b": 1.0}, {"a": np.array([0.1, np.inf]), "b": np.full(2, 0.5)}) == {
        "a": 1.0, "b": pytest.approx(0.5),
    }  # fmt: skip


def test_layers_behind_make_up_for_most_of_the_first_ones() -> None:
    model, dataset = network(), samples()
    ctx = context(model, dataset)
    groups = tie_groups(model, load("lowbit-cpu"), CANDIDATES).groups
    alone = sensitivity(study_of(model, ctx, groups, rounding_named("gptq"))).losses
    trials = Recovery(model, ctx, groups, *divided(dataset, 3))
    first, second, third, last = trials.shares(alone).values()
    assert max(first, second) < 0.4 < min(third, last) <= 1.0
    assert list(trials.shares(alone).values()) == [first, second, third, last]
    assert not list(marked(model.graph))  # the model itself follows no trial


def test_nothing_is_tried_where_losses_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    model, dataset = network(), samples()
    groups = tie_groups(model, load("lowbit-cpu"), CANDIDATES).groups
    losses = {group.name: {"w8a8": 0.0, "w4a8": 0.1, "w3a8": 0.4} for group in groups}
    tried = []
    for each, expected in ((0.1, 0), (0.07, len(groups))):
        trials = Recovery(model, context(model, dataset), groups, *divided(dataset, 3))

        def loses(_: Recovery, choice: dict[str, str], each: float = each) -> np.ndarray:
            tried.append(choice)
            return np.full(16, each * sum(option != "w8a8" for option in choice.values()))

        monkeypatch.setattr(Recovery, "_losses", loses)
        tried.clear()
        shares = trials.shares(losses)
        assert len(tried) == 2 + expected
        assert shares == ({} if not expected else dict.fromkeys(losses, pytest.approx(0.7)))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"metric": "sqnr"}, False),
        ({"rest": REST.replace("choose-rounding,", "")}, False),
        ({"made": Made()}, False),
        ({"samples": 0}, False),
        ({"groups": 10**9}, False),
    ],
)
def test_trials_are_made_where_they_say_something_in_seconds(changes: dict, expected: bool) -> None:
    model = network()
    dataset = samples(changes.get("samples", 32)) if changes.get("samples", 32) else None
    if dataset is not None and "made" in changes:
        dataset = replace(dataset, made=changes["made"])
    ctx = context(model, dataset, changes.get("rest", REST))
    assert recoverable(model, changes.get("groups", 4), ctx, changes.get("metric", "measured")) is expected


def test_trials_take_some_of_many_samples() -> None:
    assert len(few(samples(400))) == 384
    assert len(few(samples(10))) == 10


def test_plans_are_made_of_what_is_left() -> None:
    found = {}
    for rest in (REST, REST.replace("choose-rounding", "round-gptq")):
        model = network()
        ctx = context(model, samples(), rest)
        ChooseFormats(candidates=CANDIDATES, budget="size=14KB").run(model, ctx)
        found[rest] = model.meta[ALLOCATION]
        notes = " ".join(note.text for note in ctx.records[-1].notes)
        assert ("is left where layers behind are fitted" in notes) == (rest == REST)
        assert found[rest].costs["size"] <= 14_000
    ours, theirs = found.values()
    for left, alone in zip(ours.groups, theirs.groups, strict=True):
        shares = {option: left.losses[option] / alone.losses[option] for option in ("w4a8", "w3a8")}
        assert shares["w4a8"] == pytest.approx(shares["w3a8"])
        assert 0.02 <= shares["w4a8"] <= 1 + 1e-9
