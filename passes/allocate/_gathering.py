"""What a choice of formats needs to know: groups, what they lose and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import onnx_ir as ir

from qcompiler.analysis.cost_table import CostTable
from qcompiler.analysis.group_costs import BOPS, LATENCY, SIZE, GroupCosts
from qcompiler.analysis.plan_loss import enough_to_judge
from qcompiler.analysis.sensitivity import Sensitivity, pair_choices, sensitivity
from qcompiler.errors import UsageError
from qcompiler.passes.allocate._allocation import Material
from qcompiler.passes.allocate._dry_run import Ranges
from qcompiler.passes.allocate._held_out import LEAST, divided, held_out_losses
from qcompiler.passes.allocate._open_shapes import Shapes, input_shapes, shapes_text
from qcompiler.passes.allocate._recovery import Recovery, few, recoverable
from qcompiler.passes.allocate._settle import Exact
from qcompiler.passes.allocate.alternatives import added_notes, study_of, study_samples
from qcompiler.passes.allocate.budgets import LOSS, Budget
from qcompiler.passes.allocate.exemptions import exemptions, parse_rules
from qcompiler.passes.allocate.group_costs import group_costs, observed_ranges, plan_costs
from qcompiler.passes.allocate.groups import Grouping, tie_groups
from qcompiler.passes.allocate.roundings import rounding_ahead, rounding_named
from qcompiler.pipeline.base import Context
from qcompiler.target.schema import Target

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset

__all__ = ["Gathering"]

Ask: TypeAlias = Callable[..., Sensitivity]
"""Measures a study."""

_LOWERS: Final = ("lower-integer", "lower-weight-only")


@dataclass(frozen=True)
class Gathering:
    """How it is found out.

    Attributes:
        model: The model, normalized and transformed, no formats assigned.
        ctx: The context of the running pass.
        target: The profile.
        candidates: Format texts, widest first.
        budgets: What the plan may take: other resources are not measured.
        sensitivity: Metric that predicts losses.
        samples: Samples it is measured on; 0 leaves it to the metric.
        pairs: Whether neighbours are measured together as well.
        exempt: Rules by which groups keep the widest candidate.
        table: Measured latencies; ``None`` takes the profile's ``[cost]``.
    """

    model: ir.Model
    ctx: Context
    target: Target
    candidates: tuple[str, ...]
    budgets: tuple[Budget, ...]
    sensitivity: str
    samples: int
    pairs: bool
    exempt: tuple[str, ...]
    table: CostTable | None

    def material(self) -> Material:
        """Groups, their losses and their costs.

        Raises:
            UsageError: There is nothing to choose, or a candidate, rule or metric is unknown.
            DataError: A bound on the loss is asked for, and there are too few samples to judge by.
        """
        if any(item.resource == LOSS for item in self.budgets):
            enough_to_judge(self.ctx.calibration)  # a compile has asked before; whoever runs the pass alone has not
        rules = parse_rules(",".join(self.exempt))
        grouping = tie_groups(self.model, self.target, self.candidates, self.ctx.exclude)
        for name, reason in grouping.refused.items():
            self.ctx.skip(name, f"follows no candidate: {reason}")
        if not grouping.groups:
            raise UsageError(
                f"nothing to choose: every group of this model follows one of {', '.join(self.candidates)} alone",
                where="--candidates", hint=f"--format {self.candidates[0]} is the same",
            )  # fmt: skip
        costs = self._costs(grouping)  # first: refusing takes a second, measuring may take minutes
        return Material(grouping, self._losses(grouping), costs, self._kept_wide(grouping, costs, rules))

    @cached_property
    def shapes(self) -> Shapes:
        """Shapes of the inputs that costs are for."""
        return input_shapes(self.model, self.ctx.calibration)

    @cached_property
    def ranges(self) -> Ranges:
        """Ranges of activations that dry runs are given."""
        return observed_ranges(self.model, self.ctx)

    def exact(self, material: Material) -> Exact | None:
        """What a plan takes by a dry run of its own; ``None`` where sums are exact."""
        if not any(group.activations for group in material.groups):
            return None
        resources = {name.partition("@")[0] for name in material.costs.fixed}

        def exact(choice: Mapping[str, str]) -> Mapping[str, float]:
            plan = {node: choice[group.name] for group in material.groups for node in group.nodes}
            return plan_costs(
                self.model, self.target, plan, self.candidates[0], lowering=_lowering(self.ctx),
                exclude=self.ctx.exclude, corrected=_corrected(self.ctx), ranges=self.ranges, table=self.table,
                resources=resources, shapes=self.shapes,
            )  # fmt: skip

        return exact

    def _losses(self, grouping: Grouping) -> Sensitivity:
        """How much every group loses under every option."""
        name = rounding_ahead(self.model, grouping.groups, self.ctx)
        with self.ctx.executor() as executor:
            ask = partial(
                sensitivity, metric=self.sensitivity, cache_dir=self.ctx.cache_dir, executor=executor,
                progress=self.ctx.progress,
            )  # fmt: skip
            data = self._data(grouping)
            for note in added_notes(data, self.ctx.calibration):
                self.ctx.note(note)
            if name == "nearest" or self.pairs or data is None or len(data) < LEAST:
                found = self._whole(grouping, name, ask)
            else:
                found = self._fitted(grouping, name, data, ask)
        for note in found.notes:
            self.ctx.note(note)
        for (group, option), reason in found.dropped.items():
            self.ctx.skip(group, f"cannot follow {option}: {reason}")
        return found

    def _data(self, grouping: Grouping) -> Dataset | None:
        """The samples of a study."""
        given = self.ctx.calibration
        return None if given is None else study_samples(self.model, given, self.target, grouping.groups)

    def _whole(self, grouping: Grouping, rounding: str, ask: Ask) -> Sensitivity:
        """Losses on all samples, and on request of neighbours together."""
        study = study_of(self.model, self.ctx, grouping.groups, rounding_named(rounding))
        found = ask(study, samples=self.samples or None)
        if self.pairs:
            found = ask(study, samples=self.samples or None, pairs=pair_choices(study, found.losses), known=found)
            self.ctx.note(f"{len(found.pairs)} pairs of options of neighbouring groups were measured together")
        return found

    def _fitted(self, grouping: Grouping, rounding: str, data: Dataset, ask: Ask) -> Sensitivity:
        """Losses on samples that codes were not fitted on, of which layers behind make up for some."""
        parts = divided(data, 2)
        found = held_out_losses(
            self.model, self.ctx, grouping.groups, rounding_named(rounding), parts,
            partial(ask, samples=-(-self.samples // 2) or None),
        )  # fmt: skip
        if not recoverable(self.model, len(grouping.groups), self.ctx, self.sensitivity):
            return found
        shares = Recovery(self.model, self.ctx, grouping.all, *divided(few(data), 3)).shares(found.losses)
        if not shares:
            self.ctx.note("losses of groups add up to what all of them lose together: layers behind make up for little")
            return found
        low, middle, high = np.quantile(list(shares.values()), (0, 0.5, 1))
        self.ctx.note(
            f"{low:.0%} to {high:.0%} (median {middle:.0%}) of a group's loss is left where layers behind are fitted"
        )
        losses = {
            group: {option: loss * shares[group] for option, loss in own.items()} for group, own in found.losses.items()
        }
        return replace(found, losses=losses)

    def _costs(self, grouping: Grouping) -> GroupCosts:
        groups = {group.name: group.nodes for group in grouping.all}
        wanted = {SIZE, BOPS, *(item.resource for item in self.budgets if item.resource != LOSS)}
        costs = group_costs(
            self.model, self.target, groups, self.candidates, lowering=_lowering(self.ctx), exclude=self.ctx.exclude,
            corrected=_corrected(self.ctx), ranges=self.ranges, table=self.table,
            resources=wanted | ({LATENCY} if self.table is not None else set()), shapes=self.shapes,
        )  # fmt: skip
        if sizes := shapes_text(self.model, self.shapes):
            self.ctx.note(f"dimensions are open: costs are those of {sizes}")
        if costs.unknown:
            kinds = ", ".join(costs.unknown)
            self.ctx.warn(f"the cost table says nothing on {kinds}: latencies are lower bounds")
        if self.table is None and LATENCY in wanted:
            self.ctx.warn(
                "latency is that of the profile's [cost], which is nominal: measure with 'qcompiler profile' and give "
                "--cost-table"
            )
        return costs

    def _kept_wide(
        self, grouping: Grouping, costs: GroupCosts, rules: tuple[str, ...]
    ) -> dict[str, tuple[str, str]]:
        """The option that exempt groups keep, and why."""
        groups = grouping.all
        sizes = {name: {form: cost[SIZE] for form, cost in forms.items()} for name, forms in costs.options.items()}
        found = exemptions(self.model, self.target, groups, rules, sizes)
        for rule in rules:
            if not any(item.rule == rule for item in found):
                self.ctx.note(f"no group is exempt by '{rule}'")
        for item in found:
            self.ctx.note(f"{item.group} keeps {item.option} ({item.rule}: {item.reason}), {item.bytes:.0f} bytes more")
        return {
            item.group: (item.option, f"{item.rule}: {item.reason}; {item.bytes:.0f} bytes more") for item in found
        }


def _corrected(ctx: Context) -> bool:
    """Whether biases will be corrected, which may add some."""
    return any(item.name == "correct-bias" for item in ctx.following)


def _lowering(ctx: Context) -> str:
    return "integer" if any(item.name in _LOWERS for item in ctx.following) else "qdq"
