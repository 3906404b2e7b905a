"""Regions of channels that are decided on together, and the samples by which they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir.dataflow import ties
from qcompiler.passes.equalize._channels import Balance, Channels, Meeting, Reader, Source
from qcompiler.passes.equalize._layout import Labels, Layout

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset
    from qcompiler.pipeline.base import Context

__all__ = ["Region", "Rows", "collect", "regions", "unread"]

_ROWS: Final = 512
"""Rows of an input that are kept, over all samples."""
_TOKENS: Final = 24
"""Queries and keys that are kept of a sample."""


@dataclass(slots=True, eq=False)
class Region:
    """Channels between what makes them and what takes them in.

    Attributes:
        labels: All labels, ascending.
        sources: What makes them; a source may belong to several regions.
        readers: Matrix products that take them in.
        meetings: Products of queries and keys.
        averages: Products with attention weights, and the labels of the values.
        balances: Layers that take a shift back.
        scale: Why its channels cannot be multiplied; empty where they can.
        shift: Why its channels cannot be shifted; empty where they can.
        movable: Labels that can be shifted.
    """

    labels: Labels
    sources: list[Source] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=list)
    meetings: list[Meeting] = field(default_factory=list)
    averages: list[tuple[ir.Node, Layout]] = field(default_factory=list)
    balances: list[Balance] = field(default_factory=list)
    scale: str = ""
    shift: str = ""
    movable: frozenset[int] = frozenset()

    @property
    def node(self) -> ir.Node:
        """The node by which the region is called."""
        return self.sources[0].maker.node


def regions(found: Channels) -> list[Region]:
    """Regions in graph order: labels that end in the same place, or are tied, belong together."""
    keys = [found.union.find(label)[0] for label in range(sum(source.count for source in found.sources))]
    roots = np.array(keys, np.int64)
    ends = [reader.labels for reader in found.readers]
    ends += [np.concatenate([meeting.left.ravel(), meeting.right.ravel()]) for meeting in found.meetings]
    pairs: list[tuple[int, int]] = []
    for labels in ends:
        members = np.unique(roots[labels]).tolist()
        pairs += [(members[0], other) for other in members]
    result = []
    for group in ties(pairs):
        labels = np.flatnonzero(np.isin(roots, group))
        result.append(_region(labels, found))
    result.sort(key=lambda region: int(region.labels[0]))
    return result


def unread(found: Channels, items: Iterable[Region]) -> Iterator[tuple[Source, str]]:
    """What makes channels none of which ends where a factor could be taken back, and why."""
    ended = {label for region in items for label in region.labels.tolist()}
    for source in found.sources:
        if ended.isdisjoint(source.labels.tolist()):
            yield source, found.stuck.get(source.first, "no matrix product reads them")


def _region(labels: Labels, found: Channels) -> Region:
    region = Region(labels)
    region.sources = [source for source in found.sources if np.isin(source.labels, labels).any()]
    region.readers = [reader for reader in found.readers if np.isin(reader.labels, labels).any()]
    region.meetings = [meeting for meeting in found.meetings if np.isin(meeting.left, labels).any()]
    region.averages = [item for item in found.averages if np.isin(item[1].all(), labels).any()]
    region.balances = [balance for balance in found.balances if np.isin(balance.labels, labels).any()]
    region.scale = next((found.stuck[label] for label in labels.tolist() if label in found.stuck), "")
    still = {label: found.still[label] for label in labels.tolist() if label in found.still}
    region.movable = frozenset(labels.tolist()) - set(still)
    region.shift = next(iter(still.values())) if len(still) == len(labels) else ""
    return region


@dataclass(slots=True, eq=False)
class Rows:
    """What was seen of one tensor, its channels last.

    Attributes:
        fitted: Arrays of the samples that fit.
        judging: Arrays of the samples that judge.
    """

    fitted: list[NDArray[np.float32]] = field(default_factory=list)
    judging: list[NDArray[np.float32]] = field(default_factory=list)


def collect(model: ir.Model, items: Iterable[Region], dataset: Dataset, ctx: Context) -> dict[ir.Value, Rows]:
    """Rows of every tensor that regions are judged by; the last quarter of the samples judges.

    Rows are drawn by their weights (padding: 0). Inputs of matrix products come as ``(rows, channels)``, queries, keys
    and values as ``(…, tokens, channels)`` of one sample each.
    """
    from qcompiler.calibration import engine, row_weights

    wanted: dict[ir.Value, Callable[..., NDArray[np.float32]]] = {}
    for region in items:
        wanted |= {value: _matrix for reader in region.readers if (value := reader.layer.node.inputs[0]) is not None}
        for meeting in region.meetings:
            wanted |= {value: take for value, take in zip(meeting.node.inputs, (_tokens, _keys), strict=True) if value}
        wanted |= {value: _tokens for node, _ in region.averages if (value := node.inputs[1]) is not None}
    kept = {value: Rows() for value in wanted}
    if not wanted:
        return kept
    weights = row_weights.of(dataset, model.graph)
    shares = row_weights.mean_weights(dataset)
    count = len(dataset)
    judges = max(1, count // 4) if count > 1 else 0
    names = [str(value.name) for value in wanted]
    for number, (feed, tensors) in enumerate(engine.stream(model, dataset, names, threads=ctx.jobs)):
        rows = None if weights is None else weights.of_feed(feed, number)
        for value, take in wanted.items():
            array = tensors[str(value.name)]
            mask = None if rows is None else rows.of(str(value.name), array.shape)
            part = take(np.asarray(array, np.float32), mask, max(1, round(_ROWS // count * shares[number])))
            seen = kept[value]
            (seen.judging if number >= count - judges else seen.fitted).append(part)
        tensors.clear()
        ctx.progress("smooth", number + 1, count)
    row_weights.tell(weights, ctx)
    return kept


def _matrix(array: NDArray[Any], mask: NDArray[Any] | None, most: int) -> NDArray[np.float32]:
    rows = array.reshape(-1, array.shape[-1])
    if mask is not None:
        counted = np.broadcast_to(mask, (*array.shape[:-1], 1)).reshape(-1)
        real = counted > 0
        rows, counted = rows[real], counted[real]
        if (counted != counted[:1]).any():
            return rows[_drawn(counted, most)].copy()
    return rows[_spread(len(rows), most)].copy()


def _drawn(weights: NDArray[Any], most: int) -> NDArray[np.int64]:
    """Indices drawn systematically in proportion to positive weights, as many as ``_spread`` takes; some repeat."""
    ends = np.cumsum(weights, dtype=np.float64)
    size = min(ends.size, most)
    places = np.searchsorted(ends, (np.arange(size) + 0.5) / size * ends[-1])
    drawn: NDArray[np.int64] = np.minimum(places, ends.size - 1).astype(np.int64)
    return drawn


def _tokens(array: NDArray[Any], mask: NDArray[Any] | None, _: int) -> NDArray[np.float32]:
    one = array[0] if array.ndim > 2 else array
    real = np.arange(one.shape[-2])
    if mask is not None and mask.ndim == array.ndim and mask.shape[-2] == one.shape[-2]:
        real = np.flatnonzero(mask.reshape(mask.shape[0], -1)[0] > 0)
    return one[..., real[_spread(len(real), _TOKENS)], :].copy()


def _keys(array: NDArray[Any], _mask: NDArray[Any] | None, most: int) -> NDArray[np.float32]:
    """Keys come transposed, ``(…, channels, tokens)``: which tokens are padding is not told by such a shape."""
    return _tokens(np.swapaxes(array, -1, -2), None, most)


def _spread(count: int, most: int) -> NDArray[np.int64]:
    """At most so many indices, evenly spread."""
    if not count:
        return np.zeros(0, np.int64)
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))
