"""The mean output error of rounded weights, from what BatchNormalization left: no sample is needed.

``(W - Ŵ) E[x]`` as in ``bias_analytic``, with ``E[x]`` from the mean and variance that training kept per channel.
Behind a normalization ``x`` is taken to be normal; Relu and Clip cut the normal off, whose mean and variance are then
known in closed form (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019,
section 4.2 and appendix C). Pools keep means, sums of branches add means and (taken as independent) variances, and a
layer without statistics of its own gives ``W E[x] + b``.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir import constants, patterns
from qcompiler.ir.statistics import statistics
from qcompiler.passes.calibrate.bias_analytic import error_of
from qcompiler.passes.calibrate.linear import Layer
from qcompiler.pipeline.base import Context

__all__ = ["FLATTENING", "KEEPING", "Moments", "bounds", "clipped", "mean_errors", "moments", "padded", "per_channel"]

_Array: TypeAlias = NDArray[np.float64]
Moments: TypeAlias = "tuple[_Array, _Array]"
"""Mean and variance of each channel of axis 1."""
KEEPING = ("Identity", "AveragePool", "GlobalAveragePool", "Resize")
"""Operators whose results have the mean of their input; the variance is at most that."""
FLATTENING = ("Flatten", "Reshape", "Squeeze")
"""Operators that may put all positions of a channel side by side."""


def mean_errors(model: ir.Model, layers: list[Layer], ctx: Context) -> list[_Array | None]:
    """What each layer's bias lacks, in the order of ``layers``; ``None`` where the mean of its input is not known."""
    known = moments(model.graph)
    errors: list[_Array | None] = []
    for layer in layers:
        data = layer.node.inputs[0]
        found = None if data is None else known.get(data)
        if found is None or data is None:
            ctx.skip(layer.node, "no statistics tell the mean of its input")
            errors.append(None)
        else:
            errors.append(error_of(layer, _as_map(data, found[0])))
    return errors


def _as_map(data: ir.Value, mean: _Array) -> _Array:
    """Means as one sample of the tensor where its size is known: its border then sees padding."""
    shape = patterns.static_shape(data)
    if shape is None or len(shape) < 3 or None in shape[2:]:
        return mean
    sizes = [int(size or 0) for size in shape[2:]]
    return np.broadcast_to(mean.reshape(1, -1, *[1] * len(sizes)), (1, mean.size, *sizes))


def moments(graph: ir.Graph) -> dict[ir.Value, Moments]:
    """Mean and variance of every tensor for which statistics tell them."""
    known: dict[ir.Value, Moments] = {}
    for node in graph:
        if not node.outputs:
            continue
        result = node.outputs[0]
        kept = statistics(result)
        if kept is not None:
            known[result] = kept[0].astype(np.float64), np.maximum(kept[1].astype(np.float64), 0)
        elif (found := _derived(node, known)) is not None:
            known[result] = found
    return known


def _derived(node: ir.Node, known: dict[ir.Value, Moments]) -> Moments | None:
    data = node.inputs[0] if node.inputs else None
    before = None if data is None else known.get(data)
    if patterns.has_type(node, "Add", "Concat"):
        return _joined(node, known)
    if before is None or data is None:
        return None
    if patterns.has_type(node, "Relu", "Clip", "Min"):
        ends = bounds(node, before[0].size)
        return None if ends is None else clipped(*before, *ends)
    if patterns.has_type(node, *KEEPING):
        return before
    if patterns.has_type(node, "Slice"):
        return before if _keeps_channels(node) else None
    if patterns.has_type(node, "Pad"):
        return padded(node, before)
    if patterns.has_type(node, *FLATTENING):
        return _flattened(node, before)
    return _linear(node, before)


def clipped(mean: _Array, variance: _Array, low: float | _Array, high: float | _Array) -> Moments:
    """Mean and variance of ``clip(x, low, high)`` of a normal ``x``.

    With ``a = (low - μ) / σ``, ``b = (high - μ) / σ`` and ``P = Φ(b) - Φ(a)``:
    ``E = low Φ(a) + high (1 - Φ(b)) + μ P + σ (φ(a) - φ(b))``,
    ``E² = low² Φ(a) + high² (1 - Φ(b)) + (μ² + σ²) P + σ ((μ + low) φ(a) - (μ + high) φ(b))``.
    """
    deviation = np.sqrt(np.maximum(variance, 1e-24))
    ends = [np.broadcast_to(np.asarray(end, np.float64), mean.shape) for end in (low, high)]
    standard = [(end - mean) / deviation for end in ends]
    below, density = [_distribution(z) for z in standard], [np.exp(-np.square(z) / 2) / math.tau**0.5 for z in standard]
    tails = below[0], 1 - below[1]
    inside = below[1] - below[0]
    finite = [np.where(np.isfinite(end), end, 0.0) for end in ends]
    first = finite[0] * tails[0] + finite[1] * tails[1] + mean * inside + deviation * (density[0] - density[1])
    second = np.square(finite[0]) * tails[0] + np.square(finite[1]) * tails[1] + (np.square(mean) + variance) * inside
    second = second + deviation * ((mean + finite[0]) * density[0] - (mean + finite[1]) * density[1])
    return first, np.maximum(second - np.square(first), 0)


def _distribution(z: _Array) -> _Array:
    """The normal distribution function."""
    return np.array([0.5 * (1 + math.erf(item / math.sqrt(2))) for item in z.ravel()]).reshape(z.shape)


def bounds(node: ir.Node, channels: int) -> tuple[_Array, _Array] | None:
    """What Relu, Clip or a Min with a constant per channel cut off at; ``None`` where that is not constant."""
    if node.op_type == "Relu":
        return np.zeros(1), np.full(1, math.inf)
    if node.op_type == "Min":
        most = per_channel(node, node.inputs[1], channels) if len(node.inputs) == 2 else None
        return None if most is None else (np.full(1, -math.inf), most)
    low, high = ([*node.inputs[1:], None, None][index] for index in range(2))
    ends = -math.inf if low is None else constants.scalar(low), math.inf if high is None else constants.scalar(high)
    if ends[0] is None or ends[1] is None:
        return None
    return np.full(1, float(ends[0])), np.full(1, float(ends[1]))


def per_channel(node: ir.Node, operand: ir.Value | None, channels: int) -> _Array | None:
    """A constant operand of an elementwise node that has one element, or one for each channel along axis 1; flat."""
    content = constants.array(operand)
    if content is None:
        return None
    if content.size > 1:
        shape = patterns.static_shape(node.outputs[0])
        if shape is None or (1,) * (len(shape) - content.ndim) + content.shape != tuple(
            channels if axis == 1 else 1 for axis in range(len(shape))
        ):
            return None
    return content.reshape(-1).astype(np.float64) if content.size else None


def _keeps_channels(node: ir.Node) -> bool:
    """Whether a Slice takes all channels."""
    rest = [constants.array(value) for value in node.inputs[1:]]
    if len(rest) < 3 or rest[2] is None:
        return False
    return 1 not in rest[2].reshape(-1).tolist() and bool((rest[2] > 0).all())


def padded(node: ir.Node, before: Moments) -> Moments | None:
    """Channels added by a Pad are constant; positions are not added."""
    pads = constants.array(node.inputs[1]) if len(node.inputs) > 1 else None
    axes = constants.array(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else None
    filler = constants.scalar(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else 0.0
    if pads is None or filler is None or node.attributes.get_string("mode", "constant") != "constant":
        return None
    ends = pads.reshape(2, -1)
    along = range(ends.shape[1]) if axes is None else axes.reshape(-1).tolist()
    added = {int(axis): ends[:, index] for index, axis in enumerate(along)}
    if any(axis != 1 and sizes.any() for axis, sizes in added.items()) or (ends < 0).any():
        return None
    sizes = added.get(1, np.zeros(2, np.int64))
    front, back = int(sizes[0]), int(sizes[1])
    return np.pad(before[0], (front, back), constant_values=float(filler)), np.pad(before[1], (front, back))


def _joined(node: ir.Node, known: dict[ir.Value, Moments]) -> Moments | None:
    parts = [None if value is None else known.get(value) for value in node.inputs]
    if patterns.has_type(node, "Concat"):
        if patterns.integer(node, "axis", 0) != 1 or any(part is None for part in parts):
            return None
        means, variances = zip(*(part for part in parts if part is not None), strict=True)
        return np.concatenate(means), np.concatenate(variances)
    given = [part for part in parts if part is not None]
    if len(given) == 2 and given[0][0].size == given[1][0].size:
        return given[0][0] + given[1][0], given[0][1] + given[1][1]
    if len(given) != 1:
        return None
    operands = (value for value in node.inputs if constants.is_constant(value))
    fixed = per_channel(node, next(operands, None), given[0][0].size)
    return None if fixed is None else (given[0][0] + fixed, given[0][1])


def _flattened(node: ir.Node, before: Moments) -> Moments | None:
    shape = patterns.static_shape(node.outputs[0])
    size = None if shape is None or len(shape) != 2 else shape[1]
    if size is None or size % before[0].size:
        return None
    return np.repeat(before[0], size // before[0].size), np.repeat(before[1], size // before[0].size)


def _linear(node: ir.Node, before: Moments) -> Moments | None:
    """A layer without statistics: inputs are taken as independent."""
    weight = constants.array(node.inputs[1]) if len(node.inputs) > 1 else None
    if weight is None or not patterns.has_type(node, "Conv", "Gemm"):
        return None
    if node.op_type == "Gemm":
        matrix = weight if patterns.integer(node, "transB", 0) else weight.T
        rows = matrix[None].astype(np.float64), np.square(matrix[None].astype(np.float64))
    else:
        groups = patterns.integer(node, "group", 1)
        taps = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1).astype(np.float64)
        rows = taps.sum(-1), np.square(taps).sum(-1)
    if rows[0].shape[0] * rows[0].shape[2] != before[0].size:
        return None
    bias = constants.array(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else np.zeros(1)
    mean, variance = (
        np.einsum("goi,gi->go", row, part.reshape(row.shape[0], -1)).ravel()
        for row, part in zip(rows, before, strict=True)
    )
    return None if bias is None or bias.size not in (1, mean.size) else (mean + bias.reshape(-1), variance)
