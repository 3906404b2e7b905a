"""Formats chosen among candidates, on a terminal: bits along the network as a chart, budgets, and what was predicted.

::

    Formats  w8a8, w4a8, w2a8 for 13 groups; 4.2 bits per weight
                                                          pred.
      group                   bits       weights    bytes  loss %
      /stem/Conv     ████████ w8a8           144    516 B     2.1
      …stage2/conv2/Conv ████ w4a8         9,216  5.05 kB    31.4
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from qcompiler.analysis.allocation.record import BY_SUMS
from qcompiler.analysis.amounts import amount_text, budget_text
from qcompiler.report.formats import SIZE, CandidatePart, FormatsPart, GroupPart, ResourcePart
from qcompiler.report.layout import named, paragraphs, styled, table_of
from qcompiler.report.words import bytes_text, count_text, figure_text, percent

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

__all__ = ["formats_section"]

_GROUPS: Final = 20
_EXEMPT: Final = 4
_NAME: Final = 44
_LEAST_NAME: Final = 12
_FIGURES: Final = 34
"""Columns of figures and the space between, without the chart."""
_LEVELS: Final = ((8, "green"), (4, "cyan"), (3, "yellow"), (0, "red"))
"""Colours from this many bits of a weight on: the warmer, the fewer."""
_PROOFS: Final = MappingProxyType(
    {
        "enumeration": "all that might were looked through",
        "bound": "a lower bound on all of them is as high",
        "solver": "the solver's word; a lower bound on all of them is {bound}",
    }
)


def formats_section(part: FormatsPart, console: Console) -> None:
    """Print what was chosen."""
    texts, bits = ", ".join(item.text for item in part.candidates), _mean_bits(part.candidates)
    average = f"; {bits:.3g} bits per weight" if bits is not None else ""
    console.print()
    console.print(styled(
        ("Formats", "bold"), (f"  {texts} for {count_text(len(part.groups), 'group')}{average}", "dim"),
    ))  # fmt: skip
    _chart(part, console)
    console.print(paragraphs([*_by_format(part), *_resources(part), *_losses(part), *_exempt(part)]))


def _mean_bits(candidates: Sequence[CandidatePart]) -> float | None:
    weights = sum(item.weights for item in candidates)
    return sum(item.weights * item.weight_bits for item in candidates) / weights if weights else None


# -- chart -------------------------------------------------------------------------------------------------


def _chart(part: FormatsPart, console: Console) -> None:
    """One line per group, in order; of many groups those with most of the predicted loss and of the bytes."""
    formats = {item.text: item for item in part.candidates}
    wide, text = max(item.weight_bits for item in part.candidates), max(map(len, formats))
    room = min(max(console.width - _FIGURES - wide - text, _LEAST_NAME), _NAME)
    loss = sum(group.loss for group in part.groups)
    table = table_of("group", "bits", "weights", "bytes", "pred.\nloss %")
    for group in _interesting(part.groups):
        share = percent(100 * group.loss / loss).removesuffix(" %") if loss > 0 and group.losses else "–"
        bar = _bar(formats[group.choice], wide, weights=group.weights > 0)
        name = named(_tail(group.name, room - 2))
        table.add_row(name, bar, f"{group.weights:,}", bytes_text(round(group.bytes)), share)
    console.print(table)
    if (more := len(part.groups) - _GROUPS) > 0:
        console.print(styled((f"  … and {count_text(more, 'more group')} (--report has all)", "dim")))


def _interesting(groups: Sequence[GroupPart]) -> list[GroupPart]:
    """The groups to show: where most of the predicted loss and of the bytes is."""
    loss, size = sum(abs(group.loss) for group in groups), sum(group.bytes for group in groups)

    def interest(place: int) -> tuple[float, int]:
        group = groups[place]
        return (abs(group.loss) / loss if loss else 0.0) + (group.bytes / size if size else 0.0), -place

    shown = sorted(range(len(groups)), key=interest, reverse=True)[:_GROUPS]
    return [groups[place] for place in sorted(shown)]


def _bar(item: CandidatePart, wide: int, *, weights: bool) -> Text:
    """A block for every bit of a weight, where there are weights, and the format."""
    style = next(style for least, style in _LEVELS if item.weight_bits >= least)
    blocks = "█" * item.weight_bits if weights else ""
    return styled((f"{blocks:<{wide}}", style), (f" {item.text}", ""))


def _tail(name: str, width: int) -> str:
    """The end of a name: where layers are told apart."""
    return name if len(name) <= width else "…" + name[len(name) - width + 1 :]


# -- below the chart ---------------------------------------------------------------------------------------


def _by_format(part: FormatsPart) -> list[tuple[str, str, str]]:
    """What follows each format; silent on those that nothing follows."""
    return [
        (
            f"  {item.text}: ", "dim",
            f"{count_text(item.groups, 'group')}, {item.weights:,} weights, {bytes_text(round(item.bytes))}",
        )
        for item in part.candidates if item.groups
    ] + _rest(part)  # fmt: skip


def _rest(part: FormatsPart) -> list[tuple[str, str, str]]:
    """Bytes that belong to no group: what no choice of formats makes smaller, but for functions that groups share."""
    size = next((item.predicted for item in part.resources if item.resource == SIZE), None)
    rest = 0 if size is None else round(size - sum(group.bytes for group in part.groups))
    text = f"{bytes_text(rest)}: nodes, constants that are no weights, functions that groups share"
    return [("  rest of the file: ", "dim", text)] if rest > 0 else []


def _resources(part: FormatsPart) -> list[tuple[str, str, str]]:
    """Budgets and what is taken of them; the size in any case."""
    shown = [item for item in part.resources if item.budget is not None or item.resource == SIZE]
    return [(f"  {item.resource}: ", _kept(item), _resource(item)) for item in shown]


def _kept(item: ResourcePart) -> str:
    taken = item.predicted if item.actual is None else item.actual
    return "dim" if item.budget is None else "green" if taken <= item.budget else "red"


def _resource(item: ResourcePart) -> str:
    asked = item.asked or ""
    predicted = amount_text(item.resource, item.predicted, asked)
    budget = "" if item.budget is None else f" of {budget_text(item.resource, item.budget, asked)}"
    if item.actual is None:
        return f"{predicted}{budget}, predicted"
    return f"{amount_text(item.resource, item.actual, asked)}{budget} after packing; {predicted} were predicted"


def _losses(part: FormatsPart) -> list[tuple[str, str, str]]:
    """Predicted loss against the softened one of the file, the held-out loss, and what is known of better plans."""
    on = f" on {count_text(part.samples, 'sample')}" if part.samples else ""
    predicted = f"{figure_text(part.loss)} (metric {part.metric}{on}, groups one at a time, added up)"
    lines = [("  predicted loss: ", "dim", f"{predicted}; {_measured(part)}")]
    if (bound := part.loss_bound) is not None:
        kept = f"{bound.metric} at most {figure_text(bound.upper)} of {figure_text(bound.bound)} on samples left out"
        file = "" if bound.measured is None else f"; {figure_text(bound.measured)} of the file on evaluation samples"
        tried = f"{bound.evaluations} of at most {bound.most_evaluations} plans measured"
        met = max(bound.upper, bound.measured or 0.0) <= bound.bound
        lines.append(("  held-out loss: ", "green" if met else "red", f"{kept}{file}; {tried}"))
    return [*lines, ("  proof: ", "dim", _proof(part))]


def _measured(part: FormatsPart) -> str:
    if part.measured is None:
        return "not measured"
    unit = "" if part.comparable else f", another unit than {part.metric}'s"
    return f"{figure_text(part.measured)} measured of the file (softened KL of scores, 1 − cosine of embeddings{unit})"


def _proof(part: FormatsPart) -> str:
    """What is known of better plans, in words."""
    within = "of this size" if part.loss_bound is not None else "within the budgets"
    if part.proof not in _PROOFS:
        return f"none: a plan {within} may be predicted to lose less, but no less than {figure_text(part.bound)}"
    why = _PROOFS[part.proof].format(bound=figure_text(part.bound))
    return f"by the cost model no plan {within} is predicted to lose less: {why}"


def _exempt(part: FormatsPart) -> list[tuple[str, str, str]]:
    """Groups that were not free to choose, why, and what that costs."""
    found = [group for group in part.groups if group.exempt]
    lines = [("  exempt: ", "yellow", f"{group.name} keeps {group.choice}: {group.exempt}") for group in found]
    more = len(found) - _EXEMPT
    rest = [("", "", f"… and {count_text(more, 'more exempt group')} (--report has all)")] if more > 0 else []
    if part.unexempted is None or part.unexempted >= part.loss:
        return lines[:_EXEMPT] + rest
    free = f"predicted loss {figure_text(part.unexempted)} instead of {figure_text(part.loss)}"
    how = f" ({BY_SUMS})" if part.estimated else ""
    return [*lines[:_EXEMPT], *rest, ("  not exempt: ", "dim", f"{free}, were they all free to choose{how}")]
