"""Orders of channels: which may change places with which, and what a new order does to a tensor.

Two channels may change places if they occur in the same tensors, in the same parts of each, equally often: then putting
one where the other was, everywhere, is a renaming that no node notices. Channels that are tied (both rotary halves,
both sides of a residual stream) change places together: the k-th label of one takes the place of the k-th of the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from qcompiler.passes.equalize._labels import Labels, Names
from qcompiler.passes.equalize._permuting import Permuting

__all__ = ["cells", "places", "renaming"]

_Hashes = NDArray[np.uint64]
_ODD = np.uint64(0x9E3779B97F4A7C15)


def cells(found: Permuting) -> list[list[int]]:
    """Groups of free roots that may change places with each other, each with at least two, in order."""
    labels = found.labels
    groups: dict[tuple[int, ...], list[int]] = {}
    print_of = _fingerprints(found)
    for root, members in labels.members().items():
        if not labels.reason(root):
            groups.setdefault(tuple(int(print_of[label]) for label in members), []).append(root)
    return [roots for roots in groups.values() if len(roots) > 1]


def _fingerprints(found: Permuting) -> _Hashes:
    """A number per label that tells in which tensors and parts it occurs, how often: equal where these are."""
    labels = found.labels
    prints = np.zeros(labels.count, np.uint64)
    with np.errstate(over="ignore"):
        for number, value in enumerate(labels.values()):
            unique, counts = np.unique(labels.of(value), return_counts=True)
            prints[unique] = _mixed(prints[unique], np.uint64(2 * number + 1), counts.astype(np.uint64))
        for number, (names, parts) in enumerate(found.marks):
            sums = np.zeros(labels.count, np.uint64)
            seeds = _mixed(parts.ravel().astype(np.uint64), np.uint64(7), np.ones(parts.size, np.uint64))
            np.add.at(sums, names.ravel(), seeds)
            unique = np.unique(names)
            prints[unique] = _mixed(prints[unique], np.uint64(2 * number + 2), sums[unique])
    return prints


def _mixed(state: _Hashes, number: np.uint64, content: _Hashes) -> _Hashes:
    """Splitmix64's finisher over a running state."""
    mixed = (state * np.uint64(31) + number * _ODD) ^ (content * np.uint64(0xBF58476D1CE4E5B9))
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))


def renaming(labels: Labels, orders: Sequence[Mapping[int, int]]) -> Names:
    """For every label the one whose content takes its place.

    An order that would tear tied labels apart is left out.

    Args:
        labels: The labels.
        orders: By root, the root whose content takes its place; each over the roots of a cell.
    """
    members = labels.members()
    kept = list(orders)
    while True:
        names = np.arange(labels.count)
        for order in kept:
            targets = chain.from_iterable(members[root] for root in order)
            names[list(targets)] = list(chain.from_iterable(members[source] for source in order.values()))
        torn = _torn(labels, names)
        if not torn:
            return names
        kept = [order for order in kept if not torn & set(order)]


def _torn(labels: Labels, names: Names) -> set[int]:
    """Roots of labels that are combined elementwise and would no longer meet."""
    torn: set[int] = set()
    for first, second in labels.met:
        one, two = np.broadcast_arrays(first, second)
        before = one.astype(np.int64) * labels.count + two
        after = names[one].astype(np.int64) * labels.count + names[two]
        lost = ~np.isin(after, before)
        torn |= {labels.root(int(label)) for label in np.unique(one[lost])}
    return torn


def places(vector: Names, names: Names) -> Names:
    """For each place along a vector of labels, the place whose content goes there.

    Args:
        vector: Labels; one that occurs several times takes another's places in their order.
        names: A ``renaming``.
    """
    order = np.argsort(vector, kind="stable")
    ordered = vector[order]
    first = np.searchsorted(ordered, ordered)
    turn = np.empty(vector.size, np.intp)
    turn[order] = np.arange(vector.size) - first
    return np.asarray(order[np.searchsorted(ordered, names[vector]) + turn])
