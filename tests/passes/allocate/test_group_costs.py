"""Costs of groups: what is predicted of a mixed plan is what a compile writes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qcompiler
from qcompiler.analysis.cost_table import CostPoint, CostTable
from qcompiler.analysis.group_costs import BOPS, LATENCY, MEMORY, SIZE, GroupCosts
from qcompiler.analysis.machine import Machine
from qcompiler.analysis.size import stored_bytes
from qcompiler.calibration import data as datasets
from qcompiler.errors import GateError, UsageError
from qcompiler.ir import io
from qcompiler.ir.edit import Edit
from qcompiler.models import loaders
from qcompiler.passes.allocate.format_marks import mark_format
from qcompiler.passes.allocate.group_costs import group_costs, observed_ranges, plan_costs
from qcompiler.pipeline import spec
from qcompiler.pipeline.base import Context, Pass
from qcompiler.pipeline.manager import Pipeline
from qcompiler.quant.operators import LINEAR
from qcompiler.target.formats import resolve_format
from qcompiler.target.load import load
from qcompiler.target.schema import Target

WEIGHTS = ("w8a8", "w4a8", "w3a8", "w2a8")
BOTH = ("w8a8", "w4a8", "w8a16")


@dataclass(frozen=True)
class Mark(Pass):
    """Let nodes follow the formats of a plan: ``node=format`` each."""

    name: ClassVar[str] = "mark-formats"
    plan: tuple[str, ...] = ()

    def run(self, model: ir.Model, ctx: Context) -> None:
        assert ctx.target is not None
        plan = dict(item.rsplit("=", 1) for item in self.plan)
        for node in model.graph:
            if node.name in plan:
                mark_format(node, resolve_format(ctx.target, plan[node.name]))


def normalized(path: Path, target: Target) -> ir.Model:
    model = io.load(path)
    Pipeline(spec.resolve("normalize")).run(model, Context(Edit(model), target=target))
    return model


def linear_groups(model: ir.Model) -> dict[str, list[str]]:
    return {f"layer {index}": [str(node.name)] for index, node in enumerate(model.graph) if node.op_type in LINEAR}


def spread(groups: dict[str, list[str]], choice: dict[str, str]) -> dict[str, str]:
    return {name: choice[group] for group, names in groups.items() for name in names}


@cache
def prepared(
    name: str, target: str, lowering: str, forms: tuple[str, ...], resources: tuple[str, ...] = (SIZE, BOPS)
) -> tuple[ir.Model, dict[str, list[str]], GroupCosts]:
    model = normalized(loaders.load(name).path, load(target))
    groups = linear_groups(model)
    return model, groups, group_costs(
        model, load(target), groups, forms, lowering=lowering, resources=resources
    )


@pytest.mark.parametrize(
    ("name", "target", "lowering"),
    [
        ("digits_cnn", "lowbit-cpu", "integer"),
        ("digits_cnn", "lowbit-cpu", "qdq"),
        ("digits_vit", "lowbit-cpu", "integer"),
    ],
)
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_sums_are_exact_where_weights_differ(name: str, target: str, lowering: str, data: st.DataObject) -> None:
    model, groups, costs = prepared(name, target, lowering, WEIGHTS)
    choice = {group: data.draw(st.sampled_from(WEIGHTS)) for group in groups}
    true = plan_costs(model, load(target), spread(groups, choice), "w8a8", lowering=lowering)
    assert true[SIZE] <= costs.total(choice, SIZE) <= true[SIZE] + 64
    assert costs.bound(choice, SIZE) >= costs.total(choice, SIZE)
    assert costs.bound(choice, BOPS) == true[BOPS]


def test_weight_only_sums_are_exact() -> None:
    forms = ("w4", "w3/block=32/asym", "w8")
    model, groups, costs = prepared("digits_vit", "lowbit-cpu", "integer", forms)
    choice = {group: forms[index % 3] for index, group in enumerate(groups)}
    true = plan_costs(model, load("lowbit-cpu"), spread(groups, choice), forms[0], lowering="integer")
    assert costs.total(choice, SIZE) == true[SIZE]
    assert costs.total(choice, BOPS) == true[BOPS]


@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_widths_of_activations_are_estimated(data: st.DataObject) -> None:
    model, groups, costs = prepared("digits_vit", "edge-npu", "integer", BOTH)
    choice = {group: data.draw(st.sampled_from(BOTH)) for group in groups}
    true = plan_costs(model, load("edge-npu"), spread(groups, choice), "w8a8")
    assert costs.bound(choice, BOPS) == true[BOPS]
    assert 0.97 * true[SIZE] <= costs.bound(choice, SIZE) <= 1.25 * true[SIZE]


@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_latency_of_the_profile_adds_up(data: st.DataObject) -> None:
    forms, target = ("w8a8", "w4a8", "w2a8"), load("edge-npu")
    model, groups, costs = prepared("digits_cnn", "edge-npu", "integer", forms, (LATENCY,))
    choice = {group: data.draw(st.sampled_from(forms)) for group in groups}
    true = plan_costs(model, target, spread(groups, choice), "w8a8", resources=[LATENCY])
    assert costs.bound(choice, LATENCY) == pytest.approx(true[LATENCY], rel=1e-9)
    assert target.cost is not None
    assert true[LATENCY] > target.cost.run_overhead


@pytest.mark.parametrize("form", BOTH)
def test_memory_limits_of_uniform_plans_hold_the_peak(form: str) -> None:
    target = load("edge-npu")
    model, groups, costs = prepared("digits_cnn", "edge-npu", "integer", BOTH, (MEMORY,))
    choice = dict.fromkeys(groups, form)
    peak = plan_costs(model, target, spread(groups, choice), "w8a8", resources=[MEMORY])[MEMORY]
    bound = max(costs.bound(choice, name) for name in costs.fixed)
    assert all(name.startswith("memory@") for name in costs.fixed)
    assert bound == peak if form != "w8a16" else peak <= bound <= 2 * peak


def test_latency_needs_facts_or_a_table_that_says_what_it_lacks() -> None:
    model, groups, _ = prepared("digits_cnn", "lowbit-cpu", "integer", WEIGHTS)
    target = load("lowbit-cpu")
    with pytest.raises(UsageError, match="nothing says how fast cpu-x86 is"):
        group_costs(model, load("cpu-x86"), groups, ["w8a8"], resources=[LATENCY])
    point = CostPoint("QGemm", "w8a8", "any", "generic", 1, 1000, 100, 5.0, 4.0)
    machine = Machine("some processor", "Linux x86_64", 2, "1.31.1", "0.1.0 abc")
    table = CostTable("lowbit-cpu", "2026-01-01T00:00:00+00:00", machine, 10.0, 8.0, (point,))
    costs = group_costs(model, target, groups, ["w8a8"], table=table, resources=[LATENCY])
    assert any("QConv" in kind for kind in costs.unknown)
    assert costs.fixed[LATENCY] >= 9.9e-6
    assert sum(options["w8a8"][LATENCY] > 0 for options in costs.options.values()) >= 1
    with pytest.raises(UsageError, match="'latencies' is no resource"):
        group_costs(model, target, groups, ["w8a8"], resources=["latencies"])


def compiled_bytes(path: Path, target: str, plan: dict[str, str], out: Path, data: Path) -> int:
    """Bytes that a compile with marked nodes writes, however bad the result is."""
    left_out = ("choose-transforms", "choose-widths", "choose-rounding")
    default = [item for item in spec.resolve("default") if item.name not in left_out]
    position = next(index for index, item in enumerate(default) if item.name == "assign-formats")
    end = next(index for index, item in enumerate(default) if item.name == "place-qdq") + 1
    marks = Mark(tuple(f"{name}={form}" for name, form in plan.items()))
    passes = (*default[:position], marks, *default[position:end], *spec.resolve("lower"), *default[end:])
    with contextlib.suppress(GateError):
        qcompiler.compile(
            path, target, format="w8a8", pipeline=passes, calibration=data, output=out, keep=True, latency=False,
            cache=False,
        )  # fmt: skip
    return stored_bytes(out)


def check_written(path: Path, name: str, out: Path, step: int, data: Path) -> None:
    target = load(name)
    model = normalized(path, target)
    groups = linear_groups(model)
    samples = datasets.load(data, datasets.inputs_of(model))
    ranges = observed_ranges(model, Context(Edit(model), target=target, format="w8a8", calibration=samples))
    costs = group_costs(model, target, groups, WEIGHTS, ranges=ranges)
    choice = {group: WEIGHTS[(index * step + step) % len(WEIGHTS)] for index, group in enumerate(groups)}
    written = compiled_bytes(path, name, spread(groups, choice), out, data)
    assert written <= costs.total(choice, SIZE) <= 1.005 * written


@pytest.mark.parametrize("name", ["digits_cnn", "digits_vit"])
def test_what_is_written_is_what_was_predicted(name: str, tmp_path: Path) -> None:
    sample = loaders.load(name)
    check_written(sample.path, "lowbit-cpu", tmp_path / "q.onnx", 1, sample.calibration)


@pytest.mark.parametrize("step", [1, 3])
def test_what_is_written_of_a_zoo_model(zoo_folder: Path, zoo: ModuleType, step: int, tmp_path: Path) -> None:
    zoo.load("resnet20_cifar10").write_npz(str(tmp_path / "c.npz"), 16)
    path = zoo_folder / "resnet20_cifar10" / "model.onnx"
    check_written(path, "lowbit-cpu", tmp_path / "q.onnx", step, tmp_path / "c.npz")


def test_groups_are_checked(small_cnn_path: Path) -> None:
    target = load("edge-npu")
    model = normalized(small_cnn_path, target)
    name = next(str(node.name) for node in model.graph if node.op_type == "Conv")
    with pytest.raises(UsageError, match="names no node"):
        group_costs(model, target, {"a": [f"{name}x"]}, ["w8a8"])
    with pytest.raises(UsageError, match="in the groups 'a' and 'b'"):
        group_costs(model, target, {"a": [name], "b": [name]}, ["w8a8"])
    with pytest.raises(UsageError, match="mix formats"):
        group_costs(model, load("lowbit-cpu"), {"a": [name]}, ["w8a8", "w4"])
