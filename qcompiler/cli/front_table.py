"""Plans for all sizes, as ``qcompile --pareto FILE`` shows them where no budget asks for a model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from qcompiler.cli.show import table

if TYPE_CHECKING:
    from qcompiler.analysis.allocation.record import FrontPoint
    from qcompiler.driver.front_alone import FrontFound

__all__ = ["show_front"]


def show_front(found: FrontFound) -> None:
    """The plans from the smallest to the one of least predicted loss, and how one of them is compiled."""
    from qcompiler.report.words import count_text

    plans, options = found.allocation, found.job.options
    costs = [name for name in plans.front[0].costs if name != "size"]
    table(("point", "size", "of float", *costs, "pred. loss", "groups"), _rows(found, costs))
    click.echo()
    on = f" on {count_text(plans.samples, 'sample')}" if plans.samples else ""
    exact = "" if _one_width(found) else " (estimates: widths of activations differ)"
    how = f"metric {plans.metric}{on}, groups one at a time, added up"
    click.echo(f"predicted loss: {how}; costs by the cost model{exact}")
    click.echo(f"no model was written: --plan {options.pareto}:1 instead of --candidates … compiles the first")


def _one_width(found: FrontFound) -> bool:
    from qcompiler.target.formats import resolve_format

    texts = {text for point in found.allocation.front for text in point.choice.values()}
    return len({resolve_format(found.job.target, text).activation_bits for text in texts}) == 1


def _rows(found: FrontFound, costs: list[str]) -> Iterator[tuple[str, ...]]:
    from qcompiler.analysis.amounts import amount_text
    from qcompiler.report.words import figure_text

    for number, point in enumerate(found.allocation.front, 1):
        size = point.costs["size"]
        # Rounded up, so that a budget of it has the plan.
        share = f"{math.ceil(1000 * size / found.float_bytes) / 1000:.3f}x" if found.float_bytes else ""
        others = (amount_text(name, point.costs[name]) for name in costs)
        yield str(number), amount_text("size", size), share, *others, figure_text(point.loss), _mix(point)


def _mix(point: FrontPoint) -> str:
    from qcompiler.passes.allocate.layer_formats import counted
    from qcompiler.report.words import counts_text

    return counts_text(counted(point.choice.values()))
