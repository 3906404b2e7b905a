"""Ranges of activations from what BatchNormalization left: no sample is needed.

Training kept mean ``μ`` and variance ``σ²`` of every channel of a normalised tensor. Its values are taken to lie in
``μ ± n σ`` (ZeroQ, Cai et al., arXiv 2001.00281; Nagel et al., "Data-Free Quantization Through Weight Equalization and
Bias Correction", 2019, section 5); Relu and Clip cut that off, pools and reshapes hand it on, joined channels keep
theirs, a sum of branches has the sum of their means and (taken as independent) variances, and a layer without
statistics gives ``W E[x] + b`` and the variance that its inputs bring (``bias_statistics``). A mean over all positions
varies less than one of them: half as much. The range of a tensor is the union of those of its channels.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.calibration.collectors import Range
from qcompiler.ir import patterns
from qcompiler.passes.calibrate.bias_statistics import FLATTENING, Moments, bounds, moments, padded, per_channel

__all__ = ["Extent", "extents", "range_of"]

_Array: TypeAlias = NDArray[np.float64]
Extent: TypeAlias = "tuple[_Array, _Array]"
"""Lowest and highest value of each channel of axis 1."""
_HANDING_ON = ("Identity", "AveragePool", "Resize", "Slice", *FLATTENING)
_POOLED: Final = 0.5
"""Deviation of means over positions as a share of that of positions: the extremes of three networks lay at 2.7 to 3.1
deviations of positions where those of positions lay at about 6."""


def extents(graph: ir.Graph, deviations: float) -> dict[ir.Value, Extent]:
    """The extent of every tensor for which statistics tell it.

    Args:
        graph: Its tensors carry the statistics that folding kept.
        deviations: ``n``.
    """
    known = moments(graph)
    found: dict[ir.Value, Extent] = {}
    for node in graph:
        for result in node.outputs[:1]:
            own = _of(node, known.get(result), found, deviations)
            if own is not None:
                found[result] = own
    return found


def range_of(extent: Extent, axis: int | None) -> Range | None:
    """The range of a tensor, or of each channel (``axis`` 1); ``None`` along another axis."""
    if axis is None:
        return np.array(extent[0].min()), np.array(extent[1].max())
    return (extent[0].copy(), extent[1].copy()) if axis == 1 else None


def _of(node: ir.Node, known: Moments | None, found: dict[ir.Value, Extent], deviations: float) -> Extent | None:
    """The extent of a node's first result."""
    data = node.inputs[0] if node.inputs else None
    before = None if data is None else found.get(data)
    if patterns.has_type(node, "Relu", "Clip", "Min"):
        ends = None if before is None else bounds(node, before[0].size)
        if before is None or ends is None:
            return None
        return np.clip(before[0], *ends), np.clip(before[1], *ends)
    if patterns.has_type(node, "MaxPool"):
        return before
    if known is None:
        return None
    pooled = _pools_all(node)
    if not pooled and (same := _handed_on(node, known[0].size, found)) is not None:
        return same
    reach = deviations * np.sqrt(known[1]) * (_POOLED if pooled else 1.0)
    low, high = known[0] - reach, known[0] + reach
    if before is not None and pooled:
        return np.clip(low, *before), np.clip(high, *before)
    if patterns.has_type(node, "Add"):
        given = [part for value in node.inputs if (part := _part(node, value, found, known[0].size)) is not None]
        if len(given) == len(node.inputs):
            least, most = (sum((part[index] for part in given), np.zeros(1)) for index in range(2))
            low, high = np.clip(low, least, most), np.clip(high, least, most)
    return low, high


def _handed_on(node: ir.Node, channels: int, found: dict[ir.Value, Extent]) -> Extent | None:
    """The extent of the result of a node that only moves values; ``None`` where it does more or reads unknown ones."""
    parts = [found[value] for value in node.inputs if value in found]
    if patterns.has_type(node, "Concat"):
        if len(parts) < len(node.inputs) or sum(part[0].size for part in parts) != channels:
            return None
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    if not parts or node.inputs[0] not in found:
        return None
    if patterns.has_type(node, "Pad"):
        lower, upper = (padded(node, (end, end)) for end in parts[0])
        return None if lower is None or upper is None else (lower[0], upper[0])
    share, rest = divmod(channels, parts[0][0].size)
    if rest or not patterns.has_type(node, *_HANDING_ON):
        return None
    return np.repeat(parts[0][0], share), np.repeat(parts[0][1], share)


def _pools_all(node: ir.Node) -> bool:
    """Whether every result is the mean of all positions of a channel."""
    if not patterns.has_type(node, "AveragePool"):
        return patterns.has_type(node, "GlobalAveragePool")
    after = patterns.static_shape(node.outputs[0])
    before = None if node.inputs[0] is None else patterns.static_shape(node.inputs[0])
    if after is None or before is None or len(before) < 3 or set(after[2:]) != {1}:
        return False
    return tuple(before[2:]) == patterns.integers(node, "kernel_shape")


def _part(node: ir.Node, value: ir.Value | None, found: dict[ir.Value, Extent], channels: int) -> Extent | None:
    """The extent of an operand: a constant's is its content."""
    if value is not None and value in found:
        own = found[value]
        return own if own[0].size in (1, channels) else None
    flat = per_channel(node, value, channels)
    return None if flat is None else (flat, flat)
