"""How large the channels of a region are, and the weights that read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.passes.equalize._channels import Channels
from qcompiler.passes.equalize._regions import Region, Rows

__all__ = ["Statistics", "observe"]

_Floats = NDArray[np.float64]
_Seen = tuple[NDArray[np.int64], list[NDArray[np.float32]]]


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Sizes per label of the graph, and of what is tied to it.

    Attributes:
        low: Least value of each label; 0 where none was seen.
        high: Greatest value of each label.
        energy: Mean square of the values of each label.
        weights: Largest weight of what reads a label; of the root of every tie, with all that are tied to it.
        roots: The label that stands for each label.
        signs: Whether a label's factor is that of its root, or the inverse.
        inside: Labels of the region.
    """

    low: _Floats
    high: _Floats
    energy: _Floats
    weights: _Floats
    roots: NDArray[np.int64]
    signs: NDArray[np.int64]
    inside: NDArray[np.int64]

    def middle(self) -> _Floats:
        """The middle of each label's range."""
        return (self.low + self.high) / 2

    def sizes(self, shifts: _Floats) -> _Floats:
        """Largest absolute value behind a shift, of the root of every tie."""
        size = np.maximum(np.abs(self.low - shifts), np.abs(self.high - shifts))
        found = np.zeros(size.size)
        own = self.inside[self.signs[self.inside] > 0]
        np.maximum.at(found, self.roots[own], size[own])
        return found

    def loudness(self) -> _Floats:
        """Root of the mean square, of the root of every tie."""
        found = np.zeros(self.energy.size)
        own = self.inside[self.signs[self.inside] > 0]
        np.maximum.at(found, self.roots[own], np.sqrt(self.energy[own]))
        return found

    def spread(self, factors: _Floats) -> _Floats:
        """The factor of every label from that of its root."""
        found: _Floats = factors[self.roots] ** self.signs
        return found


def observe(region: Region, rows: Mapping[ir.Value, Rows], found: Channels, count: int) -> Statistics | None:
    """Sizes in the samples that fit; ``None`` where there are none."""
    roots, signs = np.arange(count), np.ones(count, np.int64)
    for label in region.labels.tolist():
        roots[label], signs[label] = found.union.find(label)
    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    weights, energy, seen = np.zeros(count), np.zeros(count), np.zeros(count)
    for labels, arrays in _tensors(region, rows):
        for array in arrays:
            axes = tuple(axis for axis in range(array.ndim - 1) if labels.ndim == 1 or labels.shape[axis] == 1)
            least, greatest = array.min(axis=axes, keepdims=True), array.max(axis=axes, keepdims=True)
            shaped = np.broadcast_to(labels.reshape((1,) * (array.ndim - labels.ndim) + labels.shape), least.shape)
            np.minimum.at(low, shaped.ravel(), least.ravel())
            np.maximum.at(high, shaped.ravel(), greatest.ravel())
            np.add.at(energy, shaped.ravel(), np.square(array, dtype=np.float64).sum(axis=axes).ravel())
            np.add.at(seen, shaped.ravel(), array.size / max(1, least.size))
    for reader in region.readers:
        largest = np.abs(reader.layer.matrix()).max(axis=1)
        np.maximum.at(weights, roots[reader.labels], largest)
    unseen = ~np.isfinite(low) | ~np.isfinite(high)
    if unseen[region.labels].all():
        return None
    low[unseen], high[unseen] = 0.0, 0.0
    keys = region.labels[signs[region.labels] < 0]
    size = np.maximum(np.abs(low[keys]), np.abs(high[keys]))
    np.maximum.at(weights, roots[keys], size)
    return Statistics(low, high, energy / np.maximum(seen, 1), weights, roots, signs, region.labels)


def _tensors(region: Region, rows: Mapping[ir.Value, Rows]) -> list[_Seen]:
    """Labels, and samples that they lie along."""
    found: list[_Seen] = []
    for reader in region.readers:
        value = reader.layer.node.inputs[0]
        if value is not None and value in rows:
            found.append((reader.labels, rows[value].fitted))
    for meeting in region.meetings:
        for value, labels in zip(meeting.node.inputs, (meeting.left, meeting.right), strict=True):
            if value is not None and value in rows:
                batch = (labels[0] if labels.ndim > 2 else labels)[..., None, :]
                found.append((batch, rows[value].fitted))
    return found
