"""What ``--format``, ``--candidates``, ``--budget`` and ``--plan`` together ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qcompiler.errors import UsageError

if TYPE_CHECKING:
    from qcompiler.driver.options import CompileOptions
    from qcompiler.target.formats import FormatRequest
    from qcompiler.target.schema import Target

__all__ = ["bounds_loss", "requested"]


def requested(options: CompileOptions, target: Target) -> FormatRequest:
    """The format of the model: what was asked for, or what all follows that is not chosen among candidates.

    Raises:
        UsageError: The target does not offer a format, or options contradict each other.
    """
    from qcompiler.quant import plan_file
    from qcompiler.target.formats import resolve_format, widest_first

    _check(options, target)
    if options.candidates:
        return resolve_format(target, widest_first(target, options.candidates)[0])
    if options.plan is not None:
        plan = plan_file.load(str(options.plan))
        _check_target(plan, str(options.plan), target)
        own = plan["format"] if isinstance(plan.get("format"), str) else None
        if options.format is not None:
            _check_decided(plan, own, options.format, target)
        return resolve_format(target, own if options.format is None else options.format)
    return resolve_format(target, options.format)


def _check_target(plan: Mapping[str, Any], where: str, target: Target) -> None:
    """Refuse the decisions that were made for another target: its kernels take other formats."""
    if plan.get("target", target.name) != target.name:
        raise UsageError(
            f"the plan was written for {plan['target']}, not for {target.name}", where=where,
            hint="write one for this target with --plan-out, or delete its 'target' if you know that it fits",
        )  # fmt: skip


def _check_decided(plan: Mapping[str, Any], own: str | None, text: str, target: Target) -> None:
    """Refuse a format for the nodes that a plan leaves open, where it leaves none open."""
    from qcompiler.target.formats import resolve_format

    if own is None or not ("nodes" in plan or "values" in plan):
        return
    asked, found = resolve_format(target, text), resolve_format(target, own)
    if _without_log(asked) != _without_log(found):  # formats along a grid may be open
        open_ = "; with its 'nodes' and 'values' deleted, nodes that its 'formats' do not name follow --format"
        raise UsageError(
            f"the plan decides on every tensor (by {own}), so --format {text} would change nothing", where="--plan",
            hint=f"leave --format out{open_ if plan.get('formats') else ', or the plan'}",
        )  # fmt: skip


def _without_log(request: FormatRequest) -> FormatRequest:
    """What a request says of all but the results along a grid, however it was written."""
    return replace(request, text="", log=None, log_operators=())


def _check(options: CompileOptions, target: Target) -> None:
    """Refuse what contradicts itself."""
    from qcompiler.driver.executors import check_executor
    from qcompiler.driver.front_alone import check_front_alone

    several = len(options.candidates) > 1
    if options.candidates and options.format is not None:
        raise UsageError("--candidates and --format both say which formats are wanted", hint="leave one of them out")
    if options.candidates and options.plan is not None:
        raise UsageError("--plan says which formats are taken, --candidates asks to choose", hint="leave one out")
    if options.front_alone:
        check_front_alone(options)
    elif several and options.budget is None:
        raise UsageError(
            f"nothing tells when {options.candidates[-1]} is worth its loss", where="--candidates",
            hint="give a --budget such as size=0.2x or loss=0.05, or --pareto FILE for plans of all sizes, no model; "
            "a single candidate is --format",
        )  # fmt: skip
    for name in ("budget", "sensitivity", "pairs", "exempt", "pareto", "workers", "executor"):
        if getattr(options, name) and not several:
            hint = "give several --candidates w8a8,w4a8"
            raise UsageError(f"--{name} is about a choice, and there is none", hint=hint)
    check_executor(options.executor, options.workers)
    if options.budget is not None:
        _check_budgets(str(options.budget), options, target)


def bounds_loss(options: CompileOptions) -> bool:
    """Whether formats are chosen with a bound on the loss."""
    from qcompiler.passes.allocate.budgets import LOSS, parse_budgets

    return options.budget is not None and any(item.resource == LOSS for item in parse_budgets(str(options.budget)))


def _check_budgets(text: str, options: CompileOptions, target: Target) -> None:
    """Refuse budgets that nothing can be compared with."""
    from qcompiler.analysis.group_costs import LATENCY
    from qcompiler.analysis.plan_loss import loss_named
    from qcompiler.passes.allocate.budgets import LOSS, no_speed, parse_budgets

    resources = {item.resource for item in parse_budgets(text)}
    if LOSS in resources:
        loss_named(options.metric, vector=False)
    if LATENCY in resources and options.cost_table is None and target.cost is None:
        raise no_speed(target)
