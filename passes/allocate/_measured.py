"""What one dry run says about costs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from qcompiler.analysis.bit_operations import bit_operations
from qcompiler.analysis.cost import CostModel
from qcompiler.analysis.file_parts import FileParts, file_parts
from qcompiler.analysis.group_costs import LATENCY, MEMORY
from qcompiler.analysis.memory_plan import Step, buffer_readers, memory_steps
from qcompiler.analysis.roofline import roofline
from qcompiler.analysis.workload import workloads
from qcompiler.ir import origins
from qcompiler.passes.allocate._dry_run import DryRun
from qcompiler.passes.allocate._open_shapes import Shapes, bind_open
from qcompiler.passes.allocate.budgets import no_speed
from qcompiler.quant.annotations import spare_bytes
from qcompiler.quant.functions import catalogue
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.target.schema import Target

__all__ = ["Clock", "Measured"]


@dataclass(frozen=True, slots=True)
class Clock:
    """Where seconds come from: a measured table, else the facts of the profile.

    Attributes:
        target: The profile.
        costs: Costs that were measured; ``None`` takes the profile's ``[cost]``.
    """

    target: Target
    costs: CostModel | None = None

    def seconds(self, run: DryRun) -> tuple[dict[str, float], float, tuple[str, ...]]:
        """Seconds by origin, of a run besides its nodes, and kinds of nodes of which nothing is known.

        Raises:
            UsageError: There is neither a table nor a ``[cost]``.
        """
        if self.costs is None:
            if self.target.cost is None:
                raise no_speed(self.target)
            return roofline(run.assigned, self.target.cost), self.target.cost.run_overhead, ()
        found: dict[str, float] = {}
        unknown = dict[str, None]()
        for node, work in workloads(run.written):
            microseconds, source = self.costs.cost(work)
            if source == "unknown":
                unknown[f"{work.kind} {work.format}"] = None
            name = origins.origin(node) or ""
            found[name] = found.get(name, 0.0) + (microseconds + self.costs.between) * 1e-6
        return found, self.costs.run * 1e-6, tuple(unknown)


@dataclass(frozen=True, slots=True)
class Measured:
    """Costs of a dry run.

    Attributes:
        parts: Bytes of the file.
        callers: By function of the file, origins of the nodes that need it.
        operations: Bit operations by node.
        spare: Bytes that other ranges could add: digits of scales.
        seconds: Latency by node; empty where not asked for.
        run_seconds: Latency of a run besides its nodes.
        steps: Live activations at each node; empty where not asked for.
        readers: Grouped nodes that read each buffer of the steps, at once or through others.
        unknown: Kinds of nodes that count no time because nothing is known of them.
    """

    parts: FileParts
    callers: Mapping[str, frozenset[str]]
    operations: Mapping[str, int]
    spare: int
    seconds: Mapping[str, float]
    run_seconds: float
    steps: tuple[Step, ...]
    readers: Mapping[str, frozenset[str]]
    unknown: tuple[str, ...]

    @classmethod
    def of(
        cls,
        run: DryRun,
        resources: Collection[str],
        clock: Clock,
        grouped: Collection[str] = (),
        shapes: Shapes | None = None,
    ) -> Measured:
        """Look at a dry run; dimensions that its graphs leave open get the sizes of ``shapes``, else made-up ones."""
        parts, callers = file_parts(run.written), _callers(run.written)
        spare = sum(spare_bytes(value) for node in run.written.graph for value in node.outputs)
        bind_open(run.assigned, shapes)
        if LATENCY in resources and clock.costs is not None:
            bind_open(run.written, shapes)
        seconds, run_seconds, unknown = clock.seconds(run) if LATENCY in resources else ({}, 0.0, ())
        steps = tuple(memory_steps(run.assigned.graph)) if MEMORY in resources else ()
        operations, readers = bit_operations(run.assigned), buffer_readers(run.assigned.graph, grouped)
        return cls(parts, callers, operations, spare, seconds, run_seconds, steps, readers, unknown)

    @property
    def size(self) -> int:
        """Bytes of the file at the most."""
        return self.parts.total + self.spare


def _callers(model: ir.Model) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for node in model.graph:
        if node.domain == DOMAIN:
            for name in catalogue.needed([node.op_type]):
                found.setdefault(name, set()).add(origins.origin(node) or "")
    return {name: frozenset(callers) for name, callers in found.items()}
