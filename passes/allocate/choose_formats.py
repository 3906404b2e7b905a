"""choose-formats: bits where they matter, within budgets (mixed precision).

Nodes that must agree form groups (``groups``); how much the outputs lose when one group follows a candidate is measured
(``analysis/sensitivity``), what it costs is read off dry runs and cost models (``group_costs``). An exact integer
program takes the plan of least predicted loss within the budgets (``analysis/allocation``). A budget of the loss itself
turns it round: the smallest plan whose measured loss keeps the bound, found by bisection.

The decision is marks on nodes, which assign-formats reads, and a record beside the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import onnx_ir as ir

from qcompiler.analysis.allocation.bisect import (
    BoundMissedError,
    Measured,
    ladder_steps,
    most_evaluations,
    smallest_step,
)
from qcompiler.analysis.allocation.least import asked_budgets
from qcompiler.analysis.allocation.pareto import front
from qcompiler.analysis.allocation.problem import InfeasibleError, Problem, Solution
from qcompiler.analysis.allocation.record import BY_SUMS, Allocation
from qcompiler.analysis.amounts import amount_text, budget_text
from qcompiler.analysis.cost_table import load_table
from qcompiler.analysis.group_costs import SIZE, SharedCost
from qcompiler.errors import PassError, UsageError
from qcompiler.ir import io
from qcompiler.passes.allocate._allocation import Material, absolute, problem_of, record_of, wholes
from qcompiler.passes.allocate._exempt_losses import exempt_losses, priced
from qcompiler.passes.allocate._gathering import Gathering
from qcompiler.passes.allocate._plan_formats import follow_formats
from qcompiler.passes.allocate._plan_trial import PlanTrial, mark_nodes
from qcompiler.passes.allocate._refusals import Refusal
from qcompiler.passes.allocate._settle import Exact, settled
from qcompiler.passes.allocate.budgets import LOSS, Budget, parse_budgets
from qcompiler.passes.allocate.format_marks import ALLOCATION
from qcompiler.pipeline.base import Context, Fact, Pass
from qcompiler.quant import plan as plans
from qcompiler.quant import plan_file
from qcompiler.target.formats import widest_first
from qcompiler.target.schema import Target

__all__ = ["ChooseFormats"]


@dataclass(frozen=True)
class ChooseFormats(Pass):
    """Choose a format for every group of nodes among candidates.

    Attributes:
        candidates: Format texts to choose among.
        budget: What the plan may take: ``size=0.25x,latency=2ms,loss=0.05``. Empty, where points of the front are asked
            for: the plan is the one of least predicted loss.
        sensitivity: Metric that predicts losses.
        samples: Samples it is measured on; 0 leaves it to the metric.
        pairs: Whether what neighbouring groups lose together is measured, too, and enters the plan.
        metric: What ``loss`` is of: ``kl``, ``cosine``, ``agreement``, ``sqnr``; empty: divergence of scores, one minus
            the cosine of embeddings.
        exempt: Rules by which groups keep the widest candidate (``exemptions``): ``first-last``, ``tiny``, ``spikes``.
        cost_table: File of ``qcompiler profile`` for the latency; without it the profile's ``[cost]``.
        points: Plans of the front that are kept beside the chosen one.
        plan: A plan file whose ``formats`` are taken instead: nothing is measured.
    """

    name: ClassVar[str] = "choose-formats"
    before: ClassVar[frozenset[Fact]] = frozenset({Fact.QDQ})
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.TYPED, Fact.SORTED, Fact.CANONICAL})

    candidates: tuple[str, ...] = ()
    budget: str = ""
    sensitivity: str = "measured"
    samples: int = 0
    pairs: bool = False
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
            content = plan_file.load(self.plan)
            plans.check_top(content)
            follow_formats(plans.node_formats(content), model, ctx)
            return
        if not self.candidates or not (self.budget or self.points):
            hint = "--candidates w8a8,w4a8 --budget size=0.2x"
            raise UsageError("choose-formats needs candidates and a budget", hint=hint)
        record = self._allocation(self._gathering(model, ctx, ctx.target), model, ctx)
        mark_nodes(model.graph, record.formats(), ctx)
        model.meta[ALLOCATION] = record
        _report(record, ctx)

    def _allocation(self, gathering: Gathering, model: ir.Model, ctx: Context) -> Allocation:
        """What is chosen, and why."""
        material = gathering.material()
        whole = wholes(gathering.budgets, model, _bytes(model), gathering.shapes)
        amounts = absolute(gathering.budgets, whole, material.costs)
        problem, exact = problem_of(material, amounts), gathering.exact(material)
        bound = next((item.amount for item in gathering.budgets if item.resource == LOSS), None)
        try:
            found, trial = self._plan(problem, material, exact, bound, model, ctx)
        except (InfeasibleError, BoundMissedError) as error:
            told = Refusal(material, amounts, gathering.budgets, whole, gathering.exempt, exact)
            told.explain(error, reach=self.points > 0)
            raise
        free, shared = replace(problem, budgets={}), material.costs.shared
        points = front(free, SIZE, self.points, shared=shared) if self.points else ()
        taken = None if exact is None else exact(found.choice)
        # Without a budget, plans of all sizes are wanted and none is compiled: nobody asks what exemptions cost one.
        prices = exempt_losses(material, amounts, found, smallest=trial is not None) if self.budget else None
        if prices is not None:
            material = priced(material, prices, estimated=exact is not None)
        record = replace(
            record_of(material, gathering.candidates[0], amounts, found, points, taken),
            asked={item.resource: item.text for item in gathering.budgets},
            unexempted=None if prices is None else prices.without,
        )
        if prices is not None and prices.missing:
            ctx.note(prices.missing)
        if trial is None or bound is None:
            return record
        return replace(
            record, budgets={**record.budgets, LOSS: bound}, measured=trial.value, evaluations=trial.evaluations,
            most_evaluations=most_evaluations(len(problem.groups)),
        )  # fmt: skip

    def _plan(
        self, problem: Problem, material: Material, exact: Exact | None, bound: float | None, model: ir.Model,
        ctx: Context,
    ) -> tuple[Solution, Measured | None]:  # fmt: skip
        """The plan of least predicted loss, or the smallest that was measured to keep a bound."""
        if bound is None:
            return settled(problem, material.costs, exact), None
        measure = PlanTrial(model, ctx, {group.name: group.nodes for group in material.groups}, self.metric)
        try:
            trial = smallest_step(_ladder(problem, material.costs.shared, exact), bound, measure)
        except BoundMissedError as error:
            error.hint = "; ".join(filter(None, (error.hint, measure.judges)))
            raise
        if measure.judges:
            ctx.note(measure.judges)
        return trial.solution, trial

    @property
    def _budgets(self) -> tuple[Budget, ...]:
        return parse_budgets(self.budget) if self.budget else ()

    def _gathering(self, model: ir.Model, ctx: Context, target: Target) -> Gathering:
        return Gathering(
            model, ctx, target, widest_first(target, self.candidates), self._budgets, self.sensitivity,
            self.samples, self.pairs, self.exempt, load_table(self.cost_table) if self.cost_table else None,
        )  # fmt: skip


def _ladder(problem: Problem, shared: Sequence[SharedCost], exact: Exact | None) -> tuple[Solution, ...]:
    """Plans from the smallest to the one of least predicted loss; with budgets, those that really keep them."""
    plans = front(problem, SIZE, ladder_steps(len(problem.groups)), shared=shared)
    if exact is None or not problem.budgets:
        return plans
    kept = []
    for plan in plans:
        taken = exact(plan.choice)
        if all(taken[resource] <= amount for resource, amount in asked_budgets(problem).items()):
            kept.append(replace(plan, proof="none"))  # the solver's proof is of sums, which are estimates here
    if not kept:
        raise PassError(
            f"no plan was found that keeps {', '.join(asked_budgets(problem))}: activations of different width take "
            "more than was estimated", where="choose-formats", hint="ask for a little more, or for one width",
        )  # fmt: skip
    return tuple(kept)


def _bytes(model: ir.Model) -> int:
    """Bytes of the files that the float model lies in; 0 where it lies in none."""
    return sum(path.stat().st_size for path in io.files(model) if path.is_file())


def _report(record: Allocation, ctx: Context) -> None:
    """What was decided, in a sentence or two."""
    counts: dict[str, int] = {}
    for group in record.groups:
        counts[group.choice] = counts.get(group.choice, 0) + 1
    shares = ", ".join(f"{count} of {len(record.groups)} groups {text}" for text, count in sorted(counts.items()))
    kept = ", ".join(_kept(record, name) for name in record.budgets if name in record.costs)
    ctx.note(f"{shares}; predicted loss {record.loss:.4g}" + (f"; {kept}" if kept else ""))
    if record.unexempted is not None:
        how = f" ({BY_SUMS})" if record.estimated else ""
        ctx.note(f"without exemptions, predicted loss {record.unexempted:.4g}{how}")
    if record.measured is not None:
        ctx.note(
            f"{record.evaluations} of at most {record.most_evaluations} plans measured; held-out loss: "
            f"at most {record.measured:.4g}, bound {record.budgets[LOSS]:.4g}"
        )


def _kept(record: Allocation, name: str) -> str:
    asked = record.asked.get(name, "")
    return f"{name} {amount_text(name, record.costs[name], asked)} of {budget_text(name, record.budgets[name], asked)}"
