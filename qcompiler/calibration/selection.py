"""Which samples to calibrate on: without outliers, one per cluster, evenly over an input.

A broken sample widens every min-max range; many samples of one kind teach what one of them taught. All three choices
look at the samples, outliers also at what the model makes of them, and give the same answer for the same samples and
seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.calibration.data import Dataset
from qcompiler.calibration.features import Trait, sketch, traits
from qcompiler.calibration.inner import inner_deviations
from qcompiler.calibration.selectors import Clusters, Outliers, Selector, Stratify, parse_all
from qcompiler.errors import DataError, UsageError, nearest

__all__ = ["deviations", "kmeans", "select"]

_ENOUGH: Final = 8
"""Fewer samples have no majority to speak of."""

_MOST: Final = 0.25
"""More samples than this are not outliers but a second kind of data."""

_LAYOUT: Final = 0.1
"""What the logarithm of a distance between sketches may differ by without meaning anything."""

_STRATA: Final = 16
"""Groups that a real-valued input, or one with many values, is divided into."""

_ROUNDS: Final = 50


def select(
    dataset: Dataset,
    selectors: Iterable[str | Selector],
    *,
    seed: int = 0,
    model: ir.Model | None = None,
    threads: int = 0,
) -> Dataset:
    """The samples that the selectors leave, one selector after the other.

    Args:
        dataset: The samples.
        selectors: ``outliers``, ``clusters:N``, ``stratify:INPUT[:N]``, or the values they stand for.
        seed: Seed of the first centres of clusters.
        model: The float model, which tells outliers that look ordinary; it is run once over the samples.
        threads: Threads of one run.

    Returns:
        A part of ``dataset``; its notes say what was left out, and why.

    Raises:
        DataError: Samples cannot be compared.
        UsageError: A selector is unknown, or there is no such input to stratify by.
    """
    for selector in parse_all(selectors):
        match selector:
            case Outliers():
                chosen, note = _without_outliers(dataset, selector, model, threads)
            case Clusters():
                chosen, note = _one_per_cluster(dataset, selector, seed)
            case Stratify():
                chosen, note = _evenly(dataset, selector)
        dataset = replace(dataset.subset(chosen), notes=(*dataset.notes, note))
    return dataset


# -- outliers --------------------------------------------------------------------------------------------------


def deviations(
    dataset: Dataset, model: ir.Model | None = None, threads: int = 0
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """How far each sample is from the others.

    For every trait ``t`` the distance is ``|t - median| / (1.4826 MAD)``, the usual robust standard score (median
    absolute deviation; Huber, Robust Statistics), whose two parts half of the samples cannot move. Where more than
    half of the samples agree exactly the deviation is 0: it is never taken below what means something for the trait.
    One more trait compares whole sketches: how far a sample is from the median sketch. Given a model, what a sample
    does to its tensors counts as well (``qcompiler.calibration.inner``).

    Returns:
        The greatest distance of each sample over all traits, shape ``(samples,)``, and the trait it comes from.
    """
    found: list[dict[str, Trait]] = []
    sketches: list[NDArray[np.float64]] = []
    for feed in dataset:
        found.append(traits(feed))
        sketches.append(sketch(feed))
    for item, figure in zip(found, _unlikeness(sketches), strict=False):
        item["layout"] = Trait(figure, _LAYOUT, 1)
    names = list(dict.fromkeys(name for item in found for name in item))
    columns = [_scores([item.get(name) for item in found]) for name in names]
    if model is not None:
        columns.append(inner_deviations(model, dataset, threads))
    scores = np.stack(columns, axis=1)
    names.append("tensors inside the model")
    return scores.max(axis=1), tuple(names[index] for index in scores.argmax(axis=1))


def _scores(items: Sequence[Trait | None]) -> NDArray[np.float64]:
    """Distances in one trait; 0 for samples that do not have it."""
    has = np.array([item is not None for item in items])
    present = [item for item in items if item is not None]
    figures = np.array([item.figure for item in present])
    offset = figures - np.median(figures)
    least = float(np.median([item.least for item in present]))
    spread = max(1.4826 * float(np.median(np.abs(offset))), least, float(np.finfo(np.float64).tiny))
    scores = np.zeros(len(items))
    side = present[0].side
    scores[has] = np.abs(offset) / spread if side == 0 else np.maximum(side * offset, 0.0) / spread
    return scores


def _unlikeness(sketches: list[NDArray[np.float64]]) -> list[float]:
    """Logarithm of the distance to the median sketch, in robust deviations of each part; none for different shapes."""
    if len({len(row) for row in sketches}) != 1 or not len(sketches[0]):
        return []
    offset = np.abs(np.stack(sketches) - np.median(sketches, axis=0))
    spread = np.median(offset, axis=0)
    usual = spread > 0
    if not usual.any():
        return []
    distance = np.sqrt(np.mean(np.square(offset[:, usual] / spread[usual]), axis=1))
    return [float(item) for item in np.log(distance + 1e-3)]


def _without_outliers(
    dataset: Dataset, selector: Outliers, model: ir.Model | None, threads: int
) -> tuple[list[int], str]:
    count = len(dataset)
    if count < _ENOUGH:
        return list(range(count)), f"{count} samples are too few to tell outliers: all were kept"
    scores, reasons = deviations(dataset, model, threads)
    out = np.flatnonzero(scores > selector.deviations)
    if len(out) > _MOST * count:
        text = f"{len(out)} of {count} samples are unlike the others: that is a second kind of data, all were kept"
        return list(range(count)), text
    if not len(out):
        return list(range(count)), f"no outliers among {count} samples"
    worst = sorted(out, key=lambda index: -scores[index])[:3]
    shown = ", ".join(f"number {index} ({reasons[index]})" for index in worst)
    more = f" and {len(out) - len(worst)} more" if len(out) > len(worst) else ""
    kept = np.flatnonzero(scores <= selector.deviations).tolist()
    return kept, f"left out {len(out)} of {count} samples as outliers: {shown}{more}"


# -- clusters --------------------------------------------------------------------------------------------------


def _one_per_cluster(dataset: Dataset, selector: Clusters, seed: int) -> tuple[list[int], str]:
    count = len(dataset)
    if selector.count >= count:
        return list(range(count)), f"{count} samples: no more than the {selector.count} clusters asked for"
    points = _standardised([sketch(feed) for feed in dataset], dataset.source)
    centres, owner = kmeans(points, selector.count, np.random.default_rng(seed))
    chosen = []
    for index in range(selector.count):
        members = np.flatnonzero(owner == index)
        distance = np.square(points[members] - centres[index]).sum(axis=1)
        chosen.append(int(members[distance.argmin()]))
    return sorted(chosen), f"{selector.count} of {count} samples, the middle one of each cluster"


def _standardised(rows: list[NDArray[np.float64]], source: str) -> NDArray[np.float64]:
    if len({len(row) for row in rows}) > 1:
        hint = "samples of different channels cannot be compared; use 'outliers' or 'stratify'"
        raise DataError("has samples of different shapes, which cannot be clustered", where=source, hint=hint)
    points = np.stack(rows)
    deviation = points.std(axis=0)
    scaled: NDArray[np.float64] = (points - points.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    return scaled


def kmeans(
    points: NDArray[np.float64], count: int, generator: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Centres and the centre of each point, none without points (Lloyd 1982, first centres by Arthur 2007).

    Args:
        points: Shape ``(points, features)``, at least ``count`` of them.
        count: Number of centres.
        generator: Draws the first centres: each next one with a probability proportional to its squared distance
            from those there are.
    """
    centres = points[_first_centres(points, count, generator)]
    owner = np.full(len(points), -1)
    for _ in range(_ROUNDS):
        distance = _squared(points, centres)
        new = distance.argmin(axis=1)
        _fill_empty(new, distance, count)
        if (new == owner).all():
            break
        owner = new
        centres = np.stack([points[owner == index].mean(axis=0) for index in range(count)])
    return centres, owner


def _first_centres(points: NDArray[np.float64], count: int, generator: np.random.Generator) -> list[int]:
    chosen = [int(generator.integers(len(points)))]
    nearest_one = np.square(points - points[chosen[0]]).sum(axis=1)
    while len(chosen) < count:
        nearest_one[chosen] = 0.0
        total = nearest_one.sum()
        if total > 0:
            chosen.append(int(generator.choice(len(points), p=nearest_one / total)))
        else:  # only copies are left
            chosen.append(next(index for index in range(len(points)) if index not in chosen))
        nearest_one = np.minimum(nearest_one, np.square(points - points[chosen[-1]]).sum(axis=1))
    return chosen


def _squared(points: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([np.square(points - centre).sum(axis=1) for centre in centres], axis=1)


def _fill_empty(owner: NDArray[np.int64], distance: NDArray[np.float64], count: int) -> None:
    """Give every empty centre the point farthest from its own, from a centre that has others."""
    for index in range(count):
        if not (owner == index).any():
            own = distance[np.arange(len(owner)), owner].copy()
            own[np.bincount(owner, minlength=count)[owner] < 2] = -1.0
            owner[own.argmax()] = index


# -- strata ----------------------------------------------------------------------------------------------------


def _evenly(dataset: Dataset, selector: Stratify) -> tuple[list[int], str]:
    if selector.name not in dataset.inputs:
        near, known = nearest(selector.name, dataset.inputs), f"the inputs are {', '.join(dataset.inputs)}"
        raise UsageError(
            f"there is no input '{selector.name}' to stratify by", where=f"--select {selector}",
            hint=f"{near} {known}" if near else known,
        )  # fmt: skip
    keys = np.array([_key(feed[selector.name]) for feed in dataset])
    strata = _strata(keys)
    wanted = len(keys) if selector.count is None else min(selector.count, len(keys))
    chosen = _spread(_shares(strata, wanted), keys)
    return chosen, f"{wanted} of {len(keys)} samples, evenly over {len(strata)} groups of '{selector.name}'"


def _key(array: NDArray[Any]) -> float:
    """The index that a sample carries: the mean, which is the value itself where there is one."""
    return float(array.astype(np.float64).mean()) if array.size else 0.0


def _strata(keys: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    """Samples by group: one per value, or quantiles where there are many values."""
    values, group = np.unique(keys, return_inverse=True)
    if len(values) > 2 * _STRATA:
        edges = np.unique(np.quantile(keys, np.linspace(0, 1, _STRATA + 1)[1:-1]))
        group = np.searchsorted(edges, keys, side="right")
    return [np.flatnonzero(group == index) for index in np.unique(group)]


def _shares(strata: list[NDArray[np.int64]], wanted: int) -> list[NDArray[np.int64]]:
    """As many from each group as from the others, as far as they go; the first ones of each."""
    taken = [0] * len(strata)
    while sum(taken) < wanted:
        open_groups = [index for index, group in enumerate(strata) if taken[index] < len(group)]
        each = max(1, (wanted - sum(taken)) // len(open_groups))
        for index in open_groups[: wanted - sum(taken)]:
            taken[index] += min(each, len(strata[index]) - taken[index])
    return [group[:number] for group, number in zip(strata, taken, strict=True)]


def _spread(groups: list[NDArray[np.int64]], keys: NDArray[np.float64]) -> list[int]:
    """An order in which every stretch holds each group in its proportion: so does what is held out, or a limit."""
    places = [
        ((rank + 0.5) / len(group), float(keys[index]), int(index))
        for group in groups
        for rank, index in enumerate(group)
    ]
    return [index for _, _, index in sorted(places)]
