"""Formats chosen within budgets: what is marked, what is recorded, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcompiler.analysis.allocation.bisect import BoundMissedError
from qcompiler.analysis.allocation.problem import InfeasibleError
from qcompiler.analysis.allocation.record import Allocation
from qcompiler.calibration import data
from qcompiler.errors import DataError, UsageError
from qcompiler.ir.edit import Edit
from qcompiler.passes.allocate import _gathering
from qcompiler.passes.allocate.choose_formats import ChooseFormats
from qcompiler.passes.allocate.format_marks import ALLOCATION, marked
from qcompiler.passes.allocate.group_costs import observed_ranges
from qcompiler.pipeline.base import Context
from qcompiler.pipeline.spec import parse
from qcompiler.target.load import load

CANDIDATES = ("w2a8", "w8a8", "w4a8")
REST = "assign-formats,calibrate,calibrate-weights,place-qdq"


def network() -> ir.Model:
    """Four layers, the second and third with many weights."""
    shapes = {"w1": (8, 3, 3, 3), "w2": (32, 8, 3, 3), "w3": (32, 32, 3, 3), "w4": (10, 32, 1, 1)}
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[N,3,8,8] x) => (float[N,10] y) {
       a = Conv <pads=[1,1,1,1]> (x, w1)
       b = Relu(a)
       c = Conv <pads=[1,1,1,1]> (b, w2)
       d = Relu(c)
       e = Conv <pads=[1,1,1,1]> (d, w3)
       f = Relu(e)
       h = Conv (f, w4)
       p = GlobalAveragePool(h)
       y = Flatten(p) }"""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        weight = (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def chosen(samples: int = 24, **options: Any) -> tuple[ir.Model, Context]:
    model = network()
    rng = np.random.default_rng(1)
    feeds = [{"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(samples)]
    dataset = data.load(feeds, {"x": (np.dtype(np.float32), ("N", 3, 8, 8))}) if samples else None
    ctx = Context(Edit(model), target=load("edge-npu"), format="w8a8", calibration=dataset, following=parse(REST))
    ChooseFormats(**{"candidates": CANDIDATES, **options}).run(model, ctx)
    return model, ctx


def record(model: ir.Model) -> Allocation:
    found: Allocation = model.meta[ALLOCATION]
    return found


def test_the_plan_keeps_its_budget_and_is_what_nodes_are_marked_with() -> None:
    model, ctx = chosen(budget="size=12KB")
    found = record(model)
    assert found.costs["size"] <= found.budgets["size"] == 12_000
    assert found.base == "w8a8"
    assert {str(node.name): own.text for node, own in marked(model.graph)} == found.formats()
    assert len({group.choice for group in found.groups}) > 1
    assert found.loss == pytest.approx(sum(group.losses[group.choice] for group in found.groups))
    assert found.bound <= found.loss
    assert "predicted loss" in ctx.records[-1].notes[-1].text


def test_more_room_never_loses_more() -> None:
    losses = [record(chosen(budget=f"size={size}")[0]).loss for size in (10_000, 11_000, 14_000, 40_000)]
    assert losses == sorted(losses, reverse=True)


def test_several_budgets_hold_together() -> None:
    found = record(chosen(budget="size=14KB,bops=0.03x")[0])
    assert found.costs["size"] <= 14_000
    assert found.costs["bops"] <= found.budgets["bops"]


def test_a_budget_that_no_plan_keeps_names_the_smallest() -> None:
    with pytest.raises(InfeasibleError) as caught:
        chosen(budget="size=1KB")
    least = caught.value.least["size"]
    assert f"no plan keeps size=1KB\n  hint: the smallest feasible: size={least / 1e3:.10g}KB" in str(caught.value)
    assert record(chosen(budget=f"size={least:.0f}")[0]).costs["size"] <= least


def test_a_bound_on_the_loss_is_measured() -> None:
    model, _ = chosen(samples=64, budget="loss=0.02")
    found = record(model)
    assert found.measured is not None
    assert found.measured <= 0.02
    assert 1 <= found.evaluations <= found.most_evaluations == 3
    looser = record(chosen(samples=64, budget="loss=0.5")[0])
    assert looser.costs["size"] <= found.costs["size"]


def test_a_bound_on_the_loss_keeps_other_budgets_with_widths_of_activations_too() -> None:
    model, _ = chosen(samples=64, candidates=("w8a16", "w8a8", "w4a8"), budget="loss=9,size=13KB")
    found = record(model)
    assert found.costs["size"] <= 13_000
    assert found.proof == "none"


def test_a_bound_that_no_plan_keeps_says_what_is_reached() -> None:
    with pytest.raises(BoundMissedError, match="no plan keeps a measured loss"):
        chosen(samples=64, budget="loss=1e-9")


def test_what_neighbours_lose_together_enters_the_plan() -> None:
    model, ctx = chosen(budget="size=12KB", pairs=True)
    found = record(model)
    assert found.costs["size"] <= 12_000
    assert any("measured together" in note.text for note in ctx.records[-1].notes)
    alone = sum(group.losses[group.choice] for group in found.groups)
    assert found.loss != pytest.approx(alone, rel=1e-9)


def test_widths_of_activations_are_chosen_too() -> None:
    model, _ = chosen(candidates=("w8a16", "w8a8", "w4a8"), budget="size=20KB,bops=0.06x")
    found = record(model)
    assert found.base == "w8a16"
    assert {group.choice for group in found.groups} >= {"w8a16"}
    assert len({group.choice for group in found.groups}) > 1
    assert found.costs["bops"] <= found.budgets["bops"]


def test_ranges_for_dry_runs_are_observed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(_gathering, "observed_ranges", lambda *given: calls.append(given) or observed_ranges(*given))
    chosen(candidates=("w8a16", "w8a8", "w4a8"), budget="size=14KB")
    assert len(calls) == 1


def test_exempt_groups_keep_the_widest_candidate_with_their_price() -> None:
    model, ctx = chosen(budget="size=14KB", exempt=("first-last",))
    first, *_, last = record(model).groups
    assert (first.choice, last.choice) == ("w8a8", "w8a8")
    assert "first layer" in first.exempt
    assert first.exempt.endswith(" bytes more, and 0 of predicted loss")  # as the best plan has it anyway
    assert record(model).unexempted == record(model).loss
    assert any("first-last" in note.text for note in ctx.records[-1].notes)
    model, ctx = chosen(budget="size=14KB", exempt=("spikes",))
    assert record(model).unexempted is None
    assert not record(model).estimated
    assert any("no group is exempt by 'spikes'" in note.text for note in ctx.records[-1].notes)


def test_prices_of_exemptions_are_by_sums_where_activations_have_several_widths() -> None:
    model, ctx = chosen(candidates=("w8a16", "w8a8", "w4a8"), budget="size=14KB", exempt=("first-last",))
    found = record(model)
    assert found.estimated
    exempt = [group.exempt for group in found.groups if group.exempt]
    assert len(exempt) == 2
    assert all(text.endswith(" of predicted loss by sums of costs, which are estimates") for text in exempt)
    assert found.unexempted is not None
    assert found.unexempted <= found.loss
    words = f"without exemptions, predicted loss {found.unexempted:.4g} (by sums of costs, which are estimates)"
    assert any(note.text == words for note in ctx.records[-1].notes)


def test_plans_for_all_sizes_have_no_prices_of_exemptions() -> None:
    found = record(chosen(points=4, exempt=("first-last",))[0])
    assert len(found.front) > 1
    assert found.unexempted is None
    assert all("predicted loss" not in group.exempt for group in found.groups)


def test_the_front_ascends_in_size_and_descends_in_loss() -> None:
    points = record(chosen(budget="size=14KB", points=8)[0]).front
    assert len(points) > 2
    assert [point.costs["size"] for point in points] == sorted(point.costs["size"] for point in points)
    assert [point.loss for point in points] == sorted((point.loss for point in points), reverse=True)


def test_formats_of_a_plan_are_taken_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"schema": 1, "formats": {"Conv_2": "w4a8"}}))
    model, _ = chosen(plan=str(path))
    assert {str(node.name): own.text for node, own in marked(model.graph)} == {"Conv_2": "w4a8"}


@pytest.mark.parametrize(
    ("formats", "words"),
    [({"Conv_9": "w4a8"}, "Conv_9"), ({"Conv_2": "w5a8"}, "w5a8"), ({"Conv_2": 4}, "table"), ([], "table")],
)
def test_a_plan_that_cannot_be_is_refused(tmp_path: Path, formats: Any, words: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"schema": 1, "formats": formats}))
    with pytest.raises(UsageError, match=words):
        chosen(plan=str(path))


def test_too_few_samples_for_a_bound_are_refused_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gathering, "tie_groups", None)
    with pytest.raises(DataError, match=r"24 calibration samples, and there are 6.*\n.*give more of --calibration"):
        chosen(samples=6, budget="loss=0.1")


def test_what_cannot_be_chosen_is_refused() -> None:
    with pytest.raises(UsageError, match="candidates and a budget"):
        chosen(budget="")
    with pytest.raises(UsageError, match="w3a8"):
        chosen(candidates=("w8a8", "w3a8"), budget="size=14KB")
    with pytest.raises(DataError, match="samples"):
        chosen(samples=0, budget="size=14KB")
    with pytest.raises(UsageError, match="sensitivity"):
        chosen(budget="size=14KB", sensitivity="measuredd")
    with pytest.raises(UsageError, match="is not known, so no share"):
        chosen(budget="size=0.5x")  # a model in memory has no file
