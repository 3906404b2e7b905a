"""Profiles are read right: which provider ran which node, medians over runs, shares of the sum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcompiler.analysis.contestants import Contestant
from qcompiler.analysis.node_profile import NodeTime, by_operator, parse_profile, profile_nodes


def _event(name: str, operator: str, provider: str, index: int, microseconds: int) -> dict[str, Any]:
    details = {"op_name": operator, "provider": provider, "node_index": str(index)}
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": microseconds, "args": details}


def _runs(*rows: tuple[int, int, int]) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = [{"cat": "Session", "name": "model_run", "dur": 900, "args": {}}]
    for first, second, third in rows:
        events.append(_event("a", "QConv", "Ours", 0, first))
        events.append(_event("b", "QConv", "Ours", 1, second))
        events.append(_event("c", "Relu", "CPU", 2, third))
    return events


def test_medians_over_runs_and_shares() -> None:
    nodes = parse_profile(_runs((500, 500, 500), (10, 20, 6), (12, 20, 8), (11, 99, 7)), warmup=1)
    assert [(node.name, node.op_type, node.provider, node.microseconds) for node in nodes] == [
        ("a", "QConv", "Ours", 11.0), ("b", "QConv", "Ours", 20.0), ("c", "Relu", "CPU", 7.0),
    ]  # fmt: skip
    assert sum(node.share for node in nodes) == pytest.approx(1)
    assert nodes[1].share == pytest.approx(20 / 38)


def test_a_single_run_counts_although_it_warms_up() -> None:
    assert [node.microseconds for node in parse_profile(_runs((5, 6, 7)), warmup=2)] == [5, 6, 7]


def test_nodes_of_equal_names_stay_apart() -> None:
    events = [_event("", "Add", "CPU", index, 3 + index) for index in (4, 9)]
    assert [node.microseconds for node in parse_profile(events)] == [7, 12]


def test_sums_by_operator_and_provider() -> None:
    nodes = [NodeTime("a", "Conv", "Ours", 5, 0.25), NodeTime("b", "Conv", "CPU", 10, 0.5),
             NodeTime("c", "Conv", "Ours", 5, 0.25)]  # fmt: skip
    rows = by_operator(nodes)
    assert [(row.op_type, row.provider, row.nodes, row.microseconds, row.share) for row in rows] == [
        ("Conv", "CPU", 1, 10, 0.5), ("Conv", "Ours", 2, 10, 0.5),
    ]  # fmt: skip


def test_nothing_took_time() -> None:
    assert parse_profile(_runs((0, 0, 0)))[0].share == 0
    assert parse_profile([]) == ()


def test_a_real_profile(small_cnn_path: Path) -> None:
    feed = {"x": np.zeros((1, 3, 8, 8), np.float32)}
    entry = Contestant(small_cnn_path)
    nodes = profile_nodes(lambda prefix: entry.open(1, profile_prefix=prefix), feed, runs=4, warmup=1)
    assert {node.provider for node in nodes} == {"CPUExecutionProvider"}
    assert len(nodes) >= 4
    assert list(small_cnn_path.parent.iterdir()) == [small_cnn_path]
