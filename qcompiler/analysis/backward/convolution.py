"""Conv: as a matrix product over gathered windows (im2col), and tap by tap where every channel is on its own.

With ``K`` taps and ``P`` output positions, ``Y[g] = W[g] · X[g]`` per group ``g``: ``W`` of ``O/G × (C/G · K)``, ``X``
of ``(C/G · K) × P`` holding what each tap meets. So ``∂W = ∂Y · Xᵀ`` summed over samples, and ``∂X = Wᵀ · ∂Y``, which
is added back to where the elements came from. With one channel per group the products are scalar multiples of the
views themselves, and gathering them would cost more than computing with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from qcompiler.analysis.backward.rule import Array, Gradients, Inputs, Node, Pullback, Rule, given, optional
from qcompiler.analysis.backward.windows import Windows, windows

__all__ = ["RULES", "gathered"]


def _conv(node: Node, inputs: Inputs) -> tuple[Array, Pullback]:
    data, weight, bias = given(inputs, 0), given(inputs, 1), optional(inputs, 2)
    place = windows(node, data.shape[2:], weight.shape[2:])
    groups = node.integer("group", 1)
    compute = _channelwise if weight.shape[1] == 1 and groups > 1 else _grouped
    result, pull = compute(data, weight, place, groups)
    if bias is not None:
        result += bias.reshape(-1, *(1 for _ in place.counts))
    spatial = tuple(range(2, data.ndim))

    def pullback(gradient: Array, wanted: Sequence[bool]) -> Gradients:
        found = list(pull(gradient, wanted))
        if bias is not None:
            found.append(gradient.sum(axis=(0, *spatial)) if wanted[2] else None)
        return found

    return result, pullback


def gathered(data: Array, place: Windows) -> Array:
    """What every tap meets: ``N × C × K × P``; a view of ``data`` where window and element are the same."""
    count, channels = data.shape[:2]
    if place.pointwise:
        return data.reshape(count, channels, 1, -1)
    columns = np.empty((count, channels, place.taps, *place.counts), data.dtype)
    for tap, view in enumerate(place.views(place.padded(data))):
        columns[:, :, tap] = view
    return columns.reshape(count, channels, place.taps, -1)


def _spread(columns: Array, place: Windows, shape: tuple[int, ...]) -> Array:
    """The transpose of ``gathered``: columns ``N × C × K × P`` added to where they were taken from."""
    if place.pointwise:
        return columns.reshape(shape)
    parts = columns.reshape(*columns.shape[:3], *place.counts)
    total = np.zeros_like(place.padded(np.zeros(shape, columns.dtype)))
    for tap, view in enumerate(place.views(total)):
        view += parts[:, :, tap]
    return place.unpadded(total, shape)


def _grouped(data: Array, weight: Array, place: Windows, groups: int) -> tuple[Array, Pullback]:
    count, rows = data.shape[0], weight.shape[0]
    columns = gathered(data, place).reshape(count, groups, -1, int(np.prod(place.counts)))
    matrix = weight.reshape(groups, rows // groups, -1)
    result = np.matmul(matrix, columns).reshape(count, rows, *place.counts)

    def pullback(gradient: Array, wanted: Sequence[bool]) -> Gradients:
        flat = gradient.reshape(count, groups, rows // groups, -1)
        into_data = into_weight = None
        if wanted[0]:
            spread = np.matmul(matrix.transpose(0, 2, 1), flat).reshape(count, data.shape[1], place.taps, -1)
            into_data = _spread(spread, place, data.shape)
        if wanted[1]:
            total = np.zeros_like(matrix)
            for sample in range(count):  # a stack of all products would be larger than the columns
                total += np.matmul(flat[sample], columns[sample].transpose(0, 2, 1))
            into_weight = total.reshape(weight.shape)
        return into_data, into_weight

    return result, pullback


def _channelwise(data: Array, weight: Array, place: Windows, groups: int) -> tuple[Array, Pullback]:
    """One input channel per group, ``M`` results each: ``y[n, g, m] = Σ_k w[g, m, k] · x_k[n, g]``."""
    count, spatial = data.shape[0], len(place.counts)
    taps = weight.reshape(groups, -1, place.taps)
    padded = place.padded(data)
    result = np.zeros((count, groups, taps.shape[1], *place.counts), data.dtype)
    for tap, view in enumerate(place.views(padded)):
        result += view[:, :, None] * _factors(taps, tap, spatial)

    def pullback(gradient: Array, wanted: Sequence[bool]) -> Gradients:
        parts = gradient.reshape(result.shape)
        into_data = into_weight = None
        if wanted[1]:
            sums = [_sums(view, parts) for view in place.views(padded)]
            into_weight = np.stack(sums, axis=-1).reshape(weight.shape)
        if wanted[0]:
            total = np.zeros_like(padded)
            for tap, view in enumerate(place.views(total)):
                view += (parts * _factors(taps, tap, spatial)).sum(axis=2)
            into_data = place.unpadded(total, data.shape)
        return into_data, into_weight

    return result.reshape(count, weight.shape[0], *place.counts), pullback


def _factors(taps: Array, tap: int, spatial: int) -> Array:
    return taps[:, :, tap].reshape(*taps.shape[:2], *(1 for _ in range(spatial)))


def _sums(view: Array, parts: Array) -> Array:
    """Sums over samples and positions of ``x · ∂y``: ``G × M``."""
    axes = (0, *range(2, view.ndim))
    return np.stack([(view * parts[:, :, index]).sum(axis=axes) for index in range(parts.shape[2])], axis=-1)


RULES: Final[dict[str, Rule]] = {"Conv": _conv}
