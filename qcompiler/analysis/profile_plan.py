"""What ``qcompiler profile`` measures: the nodes of compiled models, then a grid of common shapes, in all widths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import onnx_ir as ir

from qcompiler.analysis.latency import random_feed
from qcompiler.analysis.specimen_grid import grid
from qcompiler.analysis.specimens import Specimen, other_widths, specimen
from qcompiler.analysis.workload import bind_dimensions, workloads
from qcompiler.errors import QCompilerError, UsageError
from qcompiler.target.schema import Target

__all__ = ["Plan", "check_here", "plan", "weight_widths"]


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        specimens: Nodes, in the order in which they are measured.
        skipped: Nodes that cannot be, and why.
    """

    specimens: tuple[Specimen, ...]
    skipped: tuple[str, ...]


def check_here(target: Target) -> None:
    """Refuse a target whose speed cannot be measured on this machine.

    Raises:
        UsageError: Its models are run by something else than our kernels.
        QCompilerError: Our kernels are not installed.
    """
    from qcompiler.target.runs_here import runs_here
    from qcompiler.target.schema import Provider

    hint = "profile the target that our kernels run: lowbit-cpu"
    if target.provider is not Provider.QCOMPILER:
        raise UsageError(f"{target.name} cannot be profiled: our kernels do not run its models", hint=hint)
    here, reason = runs_here(target)
    if not here:
        raise QCompilerError(f"{target.name} cannot be profiled here: {reason}")


def weight_widths(target: Target) -> tuple[int, ...]:
    """Widths of weights that a target accepts, widest first."""
    from qcompiler.target.schema import Role

    rules = [rule for rule in target.operators.values() if Role.WEIGHT in rule.inputs]
    return tuple(sorted({form.bits for rule in rules for form in rule.weights if form.bits <= 8}, reverse=True))


def plan(target: Target, models: Sequence[str | Path] = (), *, with_grid: bool = True) -> Plan:
    """Choose what to measure: the nodes of compiled models, then a grid; weights in every width of the target.

    Args:
        target: The profile.
        models: Compiled models whose very shapes are measured, at the shapes that ``qcompiler bench`` makes up.
        with_grid: Whether the grid of common shapes is measured too.
    """
    graphs = [_at_bench_shapes(path) for path in models] + ([grid()] if with_grid else [])
    skipped: list[str] = []
    own = [list(_specimens(model, skipped)) for model in graphs]
    found: dict[tuple[str, str, str], Specimen] = {}
    # What the models hold comes first, then its other widths, then the grid: a budget may end early.
    count = len(models)
    for part in (own[:count], _widths(own[:count], target), own[count:], _widths(own[count:], target)):
        for group in part:
            for _, one in group:
                found.setdefault((one.work.kind, one.work.format, one.work.shape), one)
    return Plan(tuple(found.values()), tuple(dict.fromkeys(skipped)))


_Nodes: TypeAlias = list[tuple[ir.Node, Specimen]]


def _at_bench_shapes(path: str | Path) -> ir.Model:
    from qcompiler.ir import io

    model = io.load(path)
    bind_dimensions(model, {name: array.shape for name, array in random_feed(path).items()})
    return model


def _specimens(model: ir.Model, skipped: list[str]) -> Iterator[tuple[ir.Node, Specimen]]:
    """Nodes of a model, as they are."""
    opset = model.opset_imports.get("", 21)
    for node, work in workloads(model):
        try:
            yield node, specimen(node, work, opset)
        except QCompilerError as error:
            skipped.append(f"{work.kind} {node.name}: {error.message}")


def _widths(groups: Sequence[_Nodes], target: Target) -> list[_Nodes]:
    """The same nodes with weights of the other widths."""
    widths = weight_widths(target)
    return [[(node, other) for node, one in group for other in other_widths(node, one, widths)] for group in groups]
