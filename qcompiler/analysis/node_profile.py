"""Which provider ran which node and how long, from ONNX Runtime's own profile.

Profiling slows every node down, so a profiled session is never the one that is timed. ONNX Runtime cuts the time of a
kernel to whole microseconds: nodes that take less than about one are shown as 0.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.analysis.sessions import SessionRunner
from qcompiler.errors import ModelError

__all__ = ["NodeTime", "OperatorTime", "by_operator", "parse_profile", "profile_nodes"]

_ENDING = "_kernel_time"


@dataclass(frozen=True, slots=True)
class NodeTime:
    """One node of the graph that ONNX Runtime runs.

    Attributes:
        name: Name of the node; nodes of inlined functions and fused nodes have names of ONNX Runtime's making.
        op_type: Its operator.
        provider: The execution provider that ran it.
        microseconds: Median over the runs.
        share: Part of the sum over all nodes, 0 to 1.
    """

    name: str
    op_type: str
    provider: str
    microseconds: float
    share: float


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """All nodes of one operator on one provider; times and shares are sums."""

    op_type: str
    provider: str
    nodes: int
    microseconds: float
    share: float


def profile_nodes(
    open_runner: Callable[[Path], SessionRunner],
    feed: Mapping[str, NDArray[Any]],
    *,
    runs: int = 30,
    warmup: int = 2,
    budget: float = 3.0,
) -> tuple[NodeTime, ...]:
    """Profile a model.

    Args:
        open_runner: Opens a session whose profile begins with the given path.
        feed: One sample.
        runs: Profiled runs at most.
        warmup: Runs that do not count.
        budget: Seconds after which no further run is begun; at least three are made.

    Returns:
        Nodes in the order in which they ran.

    Raises:
        ModelError: The model cannot be run, or ONNX Runtime wrote no profile.
    """
    with tempfile.TemporaryDirectory(prefix="qcompiler-") as folder:
        runner = open_runner(Path(folder) / "profile")
        start = time.perf_counter()
        for count in range(warmup + runs):
            if count >= warmup + 3 and time.perf_counter() - start > budget:
                break
            runner.run(feed)
        path = runner.end_profiling()
        try:
            events = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f"ONNX Runtime wrote no profile that can be read: {error}") from error
    return parse_profile(events, warmup=warmup)


def parse_profile(events: Iterable[Mapping[str, Any]], *, warmup: int = 0) -> tuple[NodeTime, ...]:
    """Nodes of a profile in the order in which they ran; the first ``warmup`` runs of each are left out."""
    times: dict[tuple[str, str, str, str], list[int]] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") != "Node" or not name.endswith(_ENDING):
            continue
        details = event.get("args", {})
        key = (
            name.removesuffix(_ENDING), str(details.get("op_name", "")), str(details.get("provider", "")),
            str(details.get("node_index", "")),
        )  # fmt: skip
        times.setdefault(key, []).append(int(event.get("dur", 0)))
    medians = {key: float(np.median(found[warmup:] or found)) for key, found in times.items()}
    total = sum(medians.values()) or 1.0
    return tuple(NodeTime(*key[:3], median, median / total) for key, median in medians.items())


def by_operator(nodes: Iterable[NodeTime]) -> tuple[OperatorTime, ...]:
    """Sums by operator and provider, longest first."""
    groups: dict[tuple[str, str], list[NodeTime]] = {}
    for node in nodes:
        groups.setdefault((node.op_type, node.provider), []).append(node)
    rows = [
        OperatorTime(*key, len(found), sum(node.microseconds for node in found), sum(node.share for node in found))
        for key, found in groups.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.microseconds, row.op_type, row.provider)))
