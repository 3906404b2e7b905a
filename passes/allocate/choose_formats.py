"""choose-formats: bits where they matter, within budgets (mixed precision).

Nodes that must agree form groups (``groups``); how much the outputs lose when one group follows a candidate is measured
(``analysis/sensitivity``), what it costs is read off dry runs and cost models (``group_costs``). An exact integer
program takes the plan of least predicted loss within the budgets (``analysis/allocation``). A budget of the loss itself
turns it round: the smallest plan whose measured loss keeps the bound, found by bisection.

The decision is marks on nodes, which assign-formats reads, and a record beside the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Final

import onnx_ir as ir

from qcompiler.analysis.allocation.bisect import most_evaluations, smallest_within
from qcompiler.analysis.allocation.pareto import front
from qcompiler.analysis.allocation.problem import Problem, Solution
from qcompiler.analysis.allocation.record import Allocation
from qcompiler.analysis.allocation.solve import solve
from qcompiler.analysis.cost_table import load_table
from qcompiler.analysis.group_costs import BOPS, LATENCY, SIZE, GroupCosts
from qcompiler.analysis.sensitivity import Sensitivity, sensitivity
from qcompiler.errors import UsageError
from qcompiler.ir import io
from qcompiler.passes.allocate._allocation import Material, absolute, problem_of, record_of
from qcompiler.passes.allocate._plan_trial import PlanTrial, mark_nodes
from qcompiler.passes.allocate.alternatives import study_of
from qcompiler.passes.allocate.budgets import LOSS, Budget, amount_text, parse_budgets
from qcompiler.passes.allocate.exemptions import exemptions, parse_rules
from qcompiler.passes.allocate.format_marks import ALLOCATION
from qcompiler.passes.allocate.group_costs import group_costs, observed_ranges
from qcompiler.passes.allocate.groups import Grouping, tie_groups
from qcompiler.pipeline.base import Context, Fact, Pass
from qcompiler.pipeline.spec import parse
from qcompiler.quant import plan as plans
from qcompiler.target.formats import FormatRequest, resolve_format
from qcompiler.target.schema import Target

__all__ = ["ChooseFormats", "widest_first"]

_ROUNDS: Final = ("choose-rounding", "round-gptq", "round-alternating", "round-coordinate-descent", "reconstruct")
_LIKE_THEM: Final = "round-gptq{inputs=float}"
_LOWERS: Final = ("lower-integer", "lower-weight-only")


@dataclass(frozen=True)
class ChooseFormats(Pass):
    """Choose a format for every group of nodes among candidates.

    Attributes:
        candidates: Format texts to choose among.
        budget: What the plan may take: ``size=0.25x,latency=2ms,loss=0.05``.
        sensitivity: Metric that predicts losses.
        samples: Samples it is measured on; 0 leaves it to the metric.
        metric: What ``loss`` is of: ``kl``, ``cosine``, ``agreement``, ``sqnr``; empty: divergence of scores, one minus
            the cosine of embeddings.
        exempt: Rules by which groups keep the widest candidate (``exemptions``): ``first-last``, ``tiny``, ``spikes``.
        cost_table: File of ``qcompiler profile`` for the latency; without it the profile's ``[cost]``.
        points: Plans of the front that are kept beside the chosen one.
        plan: A plan file whose ``formats`` are taken instead: nothing is measured.
    """

    name: ClassVar[str] = "choose-formats"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.TYPED, Fact.SORTED, Fact.CANONICAL})

    candidates: tuple[str, ...] = ()
    budget: str = ""
    sensitivity: str = "measured"
    samples: int = 0
    metric: str = ""
    exempt: tuple[str, ...] = ()
    cost_table: str = ""
    points: int = 0
    plan: str = ""

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Mark the nodes; see the class."""
        if ctx.target is None:
            raise UsageError("choose-formats needs a target", hint="name one with --target")
        if self.plan:
            _apply(plans.node_formats(plans.load(self.plan)), model, ctx)
            return
        if not self.candidates or not self.budget:
            hint = "--candidates w8a8,w4a8 --budget size=0.2x"
            raise UsageError("choose-formats needs candidates and a budget", hint=hint)
        budgets = parse_budgets(self.budget)
        candidates = widest_first(ctx.target, self.candidates)
        material = self._material(model, ctx, candidates, budgets)
        amounts = absolute(budgets, model, material.costs, _bytes(model))
        problem = problem_of(material, amounts)
        bound = next((item.amount for item in budgets if item.resource == LOSS), None)
        found, measured, evaluations = self._solved(problem, bound, material, model, ctx)
        points = front(replace(problem, budgets={}), SIZE, self.points) if self.points else ()
        record = record_of(material, candidates[0], amounts, found, points)
        if bound is not None:
            budgeted = {**record.budgets, LOSS: bound}
            most = most_evaluations(len(problem.groups))
            record = replace(
                record, budgets=budgeted, measured=measured, evaluations=evaluations, most_evaluations=most
            )
        mark_nodes(model.graph, record.formats(), ctx)
        model.meta[ALLOCATION] = record
        _report(record, ctx)

    def _material(
        self, model: ir.Model, ctx: Context, candidates: tuple[str, ...], budgets: tuple[Budget, ...]
    ) -> Material:
        """Groups, their losses and their costs."""
        if ctx.target is None:
            raise UsageError("choose-formats needs a target", hint="name one with --target")
        grouping = tie_groups(model, ctx.target, candidates, ctx.exclude)
        for name, reason in grouping.refused.items():
            ctx.skip(name, f"follows no candidate: {reason}")
        if not grouping.groups:
            raise UsageError(
                f"nothing to choose: every group of this model follows one of {', '.join(candidates)} alone",
                where="--candidates", hint=f"--format {candidates[0]} is the same",
            )  # fmt: skip
        found = self._losses(model, ctx, grouping)
        groups = {group.name: group.nodes for group in (*grouping.groups, *grouping.fixed)}
        wanted = {SIZE, BOPS, *(item.resource for item in budgets if item.resource != LOSS)}
        table = load_table(self.cost_table) if self.cost_table else None
        costs = group_costs(
            model, ctx.target, groups, candidates, lowering=_lowering(ctx), exclude=ctx.exclude,
            ranges=observed_ranges(model, ctx), table=table,
            resources=wanted | ({LATENCY} if table is not None else set()),
        )  # fmt: skip
        for kind in costs.unknown:
            ctx.warn(f"the cost table says nothing on {kind}: latencies are lower bounds")
        return Material(grouping, found, costs, self._exempt(model, ctx, grouping, costs))

    def _exempt(
        self, model: ir.Model, ctx: Context, grouping: Grouping, costs: GroupCosts
    ) -> dict[str, tuple[str, str]]:
        """The option that exempt groups keep, and why."""
        if not self.exempt or ctx.target is None:
            return {}
        order = {str(node.name): place for place, node in enumerate(model.graph)}
        groups = sorted((*grouping.groups, *grouping.fixed), key=lambda group: order[group.name])
        sizes = {name: {form: cost[SIZE] for form, cost in forms.items()} for name, forms in costs.options.items()}
        found = exemptions(model, ctx.target, groups, parse_rules(",".join(self.exempt)), sizes)
        for item in found:
            ctx.note(f"{item.group} keeps {item.option} ({item.rule}: {item.reason}), {item.bytes:.0f} bytes more")
        return {item.group: (item.option, f"{item.rule}: {item.reason}; {item.bytes:.0f} bytes more") for item in found}

    def _losses(self, model: ir.Model, ctx: Context, grouping: Grouping) -> Sensitivity:
        """How much every group loses under every option."""
        study = study_of(model, ctx, grouping.groups, _rounding(ctx))
        found = sensitivity(
            study, self.sensitivity, samples=self.samples or None, cache_dir=ctx.cache_dir, progress=ctx.progress
        )
        for note in found.notes:
            ctx.note(note)
        for (group, option), reason in found.dropped.items():
            ctx.skip(group, f"cannot follow {option}: {reason}")
        return found

    def _solved(
        self, problem: Problem, bound: float | None, material: Material, model: ir.Model, ctx: Context
    ) -> tuple[Solution, float | None, int]:
        """The plan; its measured loss and how often was measured, where a bound on that is asked for."""
        if bound is None:
            return solve(problem), None, 0
        trial = PlanTrial(model, ctx, {group.name: group.nodes for group in material.groups}, self.metric)
        found = smallest_within(problem, SIZE, bound, trial)
        return found.solution, found.value, found.evaluations


def widest_first(target: Target, candidates: tuple[str, ...]) -> tuple[str, ...]:
    """Candidates from the most bits to the fewest; what is in no group follows the first."""

    def bits(text: str) -> tuple[int, int]:
        request: FormatRequest = resolve_format(target, text)
        return -(request.activation_bits or 32), -request.weight_bits

    return tuple(sorted(dict.fromkeys(candidates), key=bits))


def _apply(formats: Mapping[str, str], model: ir.Model, ctx: Context) -> None:
    """Take the formats of a plan."""
    names = {str(node.name) for node in model.graph}
    for name in formats:
        if name not in names:
            raise UsageError(f"the plan names a node '{name}' that the model does not have", where="--plan",
                             hint="a plan belongs to one model: write it again with --plan-out")  # fmt: skip
    mark_nodes(model.graph, formats, ctx)
    ctx.note(f"{len(formats)} nodes follow the formats of the plan")


def _bytes(model: ir.Model) -> int:
    """Bytes of the files that the float model lies in; 0 where it lies in none."""
    return sum(path.stat().st_size for path in io.files(model) if path.is_file())


def _rounding(ctx: Context) -> tuple[Pass, ...]:
    """How weights will be rounded: losses of nearest codes do not rank those of fitted ones.

    resnet20 at the bytes of w3a8: divergence 0.0855 with losses of nearest codes, 0.0721 with these, 0.0825 uniform.
    """
    fitted = any(item.name in _ROUNDS for item in ctx.following)
    return parse(_LIKE_THEM) if fitted and ctx.calibration is not None else ()


def _lowering(ctx: Context) -> str:
    return "integer" if any(item.name in _LOWERS for item in ctx.following) else "qdq"


def _report(record: Allocation, ctx: Context) -> None:
    """What was decided, in a sentence or two."""
    counts: dict[str, int] = {}
    for group in record.groups:
        counts[group.choice] = counts.get(group.choice, 0) + 1
    shares = ", ".join(f"{count} of {len(record.groups)} groups {text}" for text, count in sorted(counts.items()))
    kept = ", ".join(
        f"{name} {amount_text(name, record.costs[name])} of {amount_text(name, budget)}"
        for name, budget in record.budgets.items()
        if name in record.costs
    )
    ctx.note(f"{shares}; predicted loss {record.loss:.4g}" + (f"; {kept}" if kept else ""))
    if record.measured is not None:
        ctx.note(
            f"{record.evaluations} of at most {record.most_evaluations} plans measured; loss on samples left out:"
            f" at most {record.measured:.4g} (95 %), bound {record.budgets[LOSS]:.4g}"
        )
