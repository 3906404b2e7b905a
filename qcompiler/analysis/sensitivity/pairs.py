"""Which pairs of groups to measure together: their common loss less that of each alone is a quadratic term of plans.

Errors of neighbours meet: one hides the other, or feeds it. All pairs are squarely many, so by default only groups that
follow one another are paired, and only at options that lose enough to interact.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Final

from qcompiler.analysis.sensitivity.study import Choice, Study

__all__ = ["pair_choices"]

_FEW: Final = 8
"""Groups up to which all pairs are measured."""


def pair_choices(
    study: Study, losses: Mapping[str, Mapping[str, float]], *, share: float = 0.01, every: bool | None = None
) -> list[Choice]:
    """Pairs of groups with options that may interact.

    Args:
        study: Groups in graph order.
        losses: Loss by group and option, each alone; options without one are left out.
        share: Options that lose less than this share of the largest loss of all interact with nothing.
        every: Whether all pairs of groups are taken instead of neighbours; by default where there are at most 8 groups.
    """
    groups = [group for group in study.options if losses.get(group)]
    largest = max((loss for own in losses.values() for loss in own.values()), default=0.0)
    lossy = {group: _lossy(study.options[group], losses[group], share * largest) for group in groups}
    close = list(itertools.combinations(groups, 2)) if every or (every is None and len(groups) <= _FEW) else []
    found: list[Choice] = []
    for first, second in close or list(itertools.pairwise(groups)):
        found += [((first, one), (second, other)) for one in lossy[first] for other in lossy[second]]
    return found


def _lossy(options: Sequence[str], losses: Mapping[str, float], least: float) -> list[str]:
    return [option for option in options if losses.get(option, 0.0) > least]
