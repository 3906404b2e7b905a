"""Costs of groups of nodes by format, from dry runs: one per candidate, in which all groups follow it.

Each record of the written file belongs to the node that it was made for (``analysis/file_parts.py``), so the bytes of a
group in a format are read off the run of that format, whatever the others do. Where candidates have several widths of
activations, what stands between neighbours of different width (a requantization) is in no such run and depends on both:
it is estimated (``_borders.py``), and ``plan_costs`` says of one plan what it really takes. Where candidates differ in
weights alone, sums are those of ``plan_costs`` to the byte; both hold room for the longest digits of scales.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import onnx_ir as ir

from qcompiler.analysis.cost import CostModel
from qcompiler.analysis.cost_table import CostTable
from qcompiler.analysis.group_costs import BOPS, LATENCY, MEMORY, SIZE, GroupCosts, SharedCost
from qcompiler.errors import UsageError, nearest
from qcompiler.passes.allocate._borders import estimated_borders, mixed_plans
from qcompiler.passes.allocate._dry_run import Ranges, dry_run, observed_ranges
from qcompiler.passes.allocate._measured import Clock, Measured
from qcompiler.passes.allocate._memory_limits import memory_limits
from qcompiler.passes.allocate._open_shapes import Shapes
from qcompiler.pipeline import spec
from qcompiler.pipeline.base import Pass
from qcompiler.target.formats import resolve_format
from qcompiler.target.schema import Target

__all__ = ["finishing", "group_costs", "observed_ranges", "plan_costs"]

Groups = Mapping[str, Sequence[str]]


def finishing(lowering: str, *, weight_only: bool = False) -> tuple[Pass, ...]:
    """The passes behind calibration that change the structure of a graph.

    Args:
        lowering: ``qdq`` or ``integer``.
        weight_only: Whether activations stay real numbers.
    """
    lower = "lower-weight-only" if weight_only else "lower"
    return (
        *spec.resolve("place-qdq"), *(spec.resolve(lower) if lowering == "integer" else ()), *spec.resolve("finalize")
    )  # fmt: skip


def group_costs(
    model: ir.Model,
    target: Target,
    groups: Groups,
    candidates: Sequence[str],
    *,
    lowering: str | None = None,
    base: str | None = None,
    exclude: tuple[str, ...] = (),
    corrected: bool = False,
    ranges: Ranges | None = None,
    table: CostTable | None = None,
    resources: Collection[str] = (SIZE, BOPS),
    shapes: Shapes | None = None,
) -> GroupCosts:
    """Costs of every group in every candidate format.

    Args:
        model: The float graph as ``assign-formats`` would get it: normalized, transformed, widths chosen.
        target: The profile.
        groups: Names of nodes by group; a node is in one group at most.
        candidates: Format texts; either all leave activations real numbers or none does.
        lowering: Form of the written graph, ``qdq`` or ``integer``; ``None`` takes the profile's.
        base: The format of nodes in no group; ``None`` takes the first candidate.
        exclude: Selectors of nodes that stay float.
        corrected: Whether biases will be corrected, so that layers without one may get it.
        ranges: Ranges of activations by tensor (``observed_ranges``); without them they are made up.
        table: Measured latencies; without it those of the profile's ``[cost]``.
        resources: Which costs are wanted, of ``size``, ``bops``, ``latency`` and ``memory``.
        shapes: Shapes of the inputs, for dimensions that the model leaves open; ``None`` makes them up.

    Raises:
        UsageError: A group names no node of the model, a format cannot be had, or nothing tells a resource.
    """
    _check_groups(model.graph, groups)
    chosen = base or candidates[0]
    finish, clock = _passes(target, lowering, (*candidates, chosen)), _clock(target, table, resources)
    grouped = frozenset(name for names in groups.values() for name in names)

    def measured(plan: Mapping[str, str]) -> Measured:
        run = dry_run(
            model, target, chosen, finish, plan=plan, exclude=exclude, corrected=corrected, ranges=ranges
        )
        return Measured.of(run, resources, clock, grouped, shapes)

    runs = {form: measured(_everywhere(groups, form)) for form in dict.fromkeys(candidates)}
    width = resolve_format(target, chosen).activation_bits
    others = [form for form in runs if resolve_format(target, form).activation_bits != width]
    mixed = [measured(plan) for plan in mixed_plans(groups, chosen, others[0])] if others else []
    borders = estimated_borders(model.graph, groups, [run.parts for run in runs.values()], [run.parts for run in mixed])
    between = {(group, form): size for group, size in borders.items() for form in others}
    return _collected(groups, runs, mixed, between, resources)


def _collected(
    groups: Groups,
    runs: Mapping[str, Measured],
    mixed: Sequence[Measured],
    between: Mapping[tuple[str, str], int],
    resources: Collection[str],
) -> GroupCosts:
    """Costs by group and format, from runs in which all have one format and runs of mixed plans.

    ``between``: bytes at the border of a group in a format of another width of activations than the base's.
    """
    seen = [*runs.values(), *mixed]
    steps = {form: run.steps for form, run in runs.items()}
    limits = memory_limits(groups, steps, [run.readers for run in runs.values()])

    def costs(group: str, form: str) -> dict[str, float]:
        run, names = runs[form], groups[group]
        found = {
            SIZE: run.parts.of(names) + between.get((group, form), 0),
            BOPS: sum(run.operations.get(name, 0) for name in names),
            LATENCY: sum(run.seconds.get(name, 0.0) for name in names),
        }
        memory = {f"{MEMORY}@{limit.node}": float(limit.more.get((group, form), 0)) for limit in limits}
        return {name: float(amount) for name, amount in found.items() if name in resources} | memory

    options = {group: {form: costs(group, form) for form in runs} for group in groups}
    fixed = {name: amount for name, amount in _fixed(groups, runs, seen).items() if name in resources}
    fixed |= {f"{MEMORY}@{limit.node}": float(limit.fixed) for limit in limits}
    shared = tuple(_shared(groups, runs, seen)) if SIZE in resources else ()
    unknown = tuple(dict.fromkeys(kind for run in seen for kind in run.unknown))
    return GroupCosts(fixed, options, shared, unknown)


def plan_costs(
    model: ir.Model,
    target: Target,
    plan: Mapping[str, str],
    base: str,
    *,
    lowering: str | None = None,
    exclude: tuple[str, ...] = (),
    corrected: bool = False,
    ranges: Ranges | None = None,
    table: CostTable | None = None,
    resources: Collection[str] = (SIZE, BOPS),
    shapes: Shapes | None = None,
) -> dict[str, float]:
    """Costs of one plan by resource, from a dry run of its own: nothing is bounded, all is counted.

    Args:
        model: The normalized float graph.
        target: The profile.
        plan: Format by node name.
        base: The format of nodes that the plan does not name.
        lowering: Form of the written graph; ``None`` takes the profile's.
        exclude: Selectors of nodes that stay float.
        corrected: Whether biases will be corrected, so that layers without one may get it.
        ranges: Ranges of activations by tensor (``observed_ranges``); without them they are made up.
        table: Measured latencies; without it those of the profile's ``[cost]``.
        resources: Which costs are wanted, of ``size``, ``bops``, ``latency`` and ``memory``.
        shapes: Shapes of the inputs, for dimensions that the model leaves open; ``None`` makes them up.
    """
    finish = _passes(target, lowering, (base, *plan.values()))
    run = dry_run(model, target, base, finish, plan=plan, exclude=exclude, corrected=corrected, ranges=ranges)
    found = Measured.of(run, resources, _clock(target, table, resources), shapes=shapes)
    costs = {
        SIZE: found.size,
        BOPS: sum(found.operations.values()),
        LATENCY: found.run_seconds + sum(found.seconds.values()),
        MEMORY: max((step.bytes for step in found.steps), default=0),
    }
    return {name: float(amount) for name, amount in costs.items() if name in resources}


def _clock(target: Target, table: CostTable | None, resources: Collection[str]) -> Clock:
    known = (SIZE, BOPS, LATENCY, MEMORY)
    for name in resources:
        if name not in known:
            raise UsageError(f"'{name}' is no resource", hint=nearest(name, known) or f"one of {', '.join(known)}")
    return Clock(target, None if table is None else CostModel(table, threads=table.threads()[0]))


def _passes(target: Target, lowering: str | None, forms: Sequence[str]) -> tuple[Pass, ...]:
    kinds = {resolve_format(target, form).weight_only for form in forms}
    if len(kinds) > 1:
        raise UsageError(
            f"candidates {', '.join(dict.fromkeys(forms))} mix formats with real activations and formats with codes",
            hint="one compile has one kind of activations: give either w8a8, w4a8 … or w8, w4 …",
        )
    return finishing(str(lowering or target.lowering), weight_only=True in kinds)


def _check_groups(graph: ir.Graph, groups: Groups) -> None:
    known, seen = {str(node.name) for node in graph}, dict[str, str]()
    for group, names in groups.items():
        for name in names:
            if name not in known:
                raise UsageError(f"group '{group}' names no node '{name}'", hint=nearest(name, known))
            if name in seen:
                raise UsageError(f"node '{name}' is in the groups '{seen[name]}' and '{group}'")
            seen[name] = group


def _everywhere(groups: Groups, form: str) -> dict[str, str]:
    return {name: form for names in groups.values() for name in names}


def _fixed(groups: Groups, runs: Mapping[str, Measured], seen: Iterable[Measured]) -> dict[str, float]:
    """What does not depend on the choice; of bytes, the most that any run has besides the groups."""
    grouped = {name for names in groups.values() for name in names}
    besides = [
        run.size - sum(run.parts.functions.values()) - sum(run.parts.of(names) for names in groups.values())
        for run in runs.values()
    ]
    functions = {name: size for run in seen for name, size in run.parts.functions.items()}
    first = next(iter(runs.values()))
    return {
        SIZE: float(max(besides) + sum(functions.values())),
        BOPS: float(sum(count for name, count in first.operations.items() if name not in grouped)),
        LATENCY: first.run_seconds + sum(count for name, count in first.seconds.items() if name not in grouped),
    }


def _shared(groups: Groups, runs: Mapping[str, Measured], seen: Iterable[Measured]) -> Iterable[SharedCost]:
    """Functions that only some options need."""
    group_of = {name: group for group, names in groups.items() for name in names}
    for function, size in {name: size for run in seen for name, size in run.parts.functions.items()}.items():
        if any(function not in run.callers for run in runs.values()):
            callers = ((form, name) for form, run in runs.items() for name in run.callers.get(function, ()))
            needed = {(group_of.get(name), form) for form, name in callers}
            if needed and all(group is not None for group, _ in needed):
                options = frozenset((str(group), form) for group, form in needed)
                yield SharedCost(f"function {function}", SIZE, float(size), options)
