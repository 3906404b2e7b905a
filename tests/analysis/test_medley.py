"""Different nodes run together in one model."""

from __future__ import annotations

import dataclasses

import onnx
import onnxruntime
import pytest

from qcompiler.analysis.cost_table import CostPoint
from qcompiler.analysis.medley import chosen, medley
from qcompiler.analysis.profile_plan import plan
from qcompiler.analysis.profile_target import measure
from qcompiler.analysis.specimen_grid import grid
from qcompiler.analysis.specimen_runs import open_native
from qcompiler.analysis.specimens import Specimen, specimen
from qcompiler.analysis.workload import workloads
from qcompiler.runtime import library_path
from qcompiler.target.load import load


@pytest.fixture(scope="module")
def short() -> list[Specimen]:
    """Short nodes of the grid."""
    model = grid()
    return [specimen(node, work, 21) for node, work in workloads(model) if work.bytes < 20_000]


def test_short_nodes_are_chosen_in_their_order(short: list[Specimen]) -> None:
    long = dataclasses.replace(short[0], work=dataclasses.replace(short[0].work, bytes=10**9))
    other = dataclasses.replace(short[1], opset=20)
    picked = chosen([*short, long, other])
    assert picked == sorted(picked)
    assert set(picked) == set(range(len(short)))


def test_all_of_them_run(short: list[Specimen]) -> None:
    content, feed = medley(short)
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model)
    assert len(model.graph.node) == len(short)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    assert [result.shape for result in session.run(None, feed)] == [item[2] for item in short[-1].outputs]


@pytest.mark.skipif(library_path() is None, reason="needs the native library")
def test_a_table_says_what_a_node_costs_between_others(short: list[Specimen]) -> None:
    chosen_plan = dataclasses.replace(plan(load("lowbit-cpu"), with_grid=False), specimens=tuple(short[:12]))
    table = measure(load("lowbit-cpu"), chosen_plan, budget=30, opener=open_native)
    assert len(table.points) == 12
    assert all(isinstance(point, CostPoint) for point in table.points)
    assert 0 <= table.between_minimum < 1000
    assert table.skipped == ()
