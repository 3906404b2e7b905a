"""Losses of groups on samples that their codes were not fitted on.

Codes fitted to few samples answer these better than others: of 112 images the classifier of mobilenetv1_025, 256 inputs
and one row per image, loses 0.012 at 4 bits and 0.047 at 3 on those it was fitted to, 0.028 and 0.10 on 400 others,
while convolutions, with hundreds of rows per image, lose the same on both. So the samples are halved at random (drawn
words stand in turns with given samples), codes are fitted to one half and measured on the other, and the other way
round; a loss is the mean of both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from qcompiler.analysis.sensitivity import Sensitivity, Study
from qcompiler.errors import PassError
from qcompiler.passes.allocate.alternatives import prepare

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcompiler.calibration.data import Dataset
    from qcompiler.passes.allocate.groups import TieGroup
    from qcompiler.pipeline.base import Context, Pass

__all__ = ["LEAST", "divided", "held_out_losses", "merged"]

LEAST: Final = 32
"""Samples below which halves fit nothing well."""


def divided(data: Dataset, parts: int, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Samples to fit on and, of so many parts one, to judge by: drawn at random, each in the order of the data."""
    order = np.random.default_rng(seed).permutation(len(data))
    judging = len(data) // parts
    return data.subset(sorted(order[judging:].tolist())), data.subset(sorted(order[:judging].tolist()))


def held_out_losses(
    model: ir.Model,
    ctx: Context,
    groups: Sequence[TieGroup],
    rounding: Sequence[Pass],
    halves: tuple[Dataset, Dataset],
    ask: Callable[[Study], Sensitivity],
) -> Sensitivity:
    """Losses of every group, each half measured with what was fitted to the other.

    Args:
        model: The normalized float model; it is not changed.
        ctx: Target and excluded nodes.
        groups: The groups.
        rounding: Passes that choose codes of less than 8 bits.
        halves: The samples.
        ask: Measures one study.

    Raises:
        PassError: No option of a group has finite outputs.
    """
    first, second = halves
    found = []
    for fitted, judging in ((first, second), (second, first)):
        made = prepare(model, replace(ctx, calibration=fitted), groups, rounding)
        options = {group.name: group.options for group in groups}
        nodes = {group.name: group.nodes for group in groups}
        weights = {group.name: group.weights for group in groups}
        found.append(ask(Study(model, judging, options, nodes, weights, made, ctx.jobs)))
    return merged(*found)


def merged(one: Sensitivity, other: Sensitivity) -> Sensitivity:
    """The mean of both; an option without a finite loss in one of them has none."""
    losses = {
        group: {option: (loss + other.losses[group][option]) / 2 for option, loss in own.items()
                if option in other.losses[group]}
        for group, own in one.losses.items()
    }  # fmt: skip
    for group, own in losses.items():
        if not own:
            raise PassError(
                f"no option of '{group}' gives finite outputs on all samples",
                hint="look at the group's weights, or leave it out with --exclude",
            )
    notes = tuple(dict.fromkeys((*one.notes, *other.notes)))
    return replace(
        one, samples=one.samples + other.samples, seconds=one.seconds + other.seconds, losses=losses,
        dropped={**one.dropped, **other.dropped}, notes=notes,
    )  # fmt: skip
