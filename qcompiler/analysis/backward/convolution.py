"""Conv: as a matrix product over gathered windows (im2col), and tap by tap where every channel is on its own.

With ``K`` taps and ``P`` output positions, ``Y[g] = W[g] · X[g]`` per group ``g``: ``W`` of ``O/G × (C/G · K)``, ``X``
of ``(C/G · K) × P`` holding what each tap meets. So ``∂W = ∂Y · Xᵀ`` summed over samples, and ``∂X = Wᵀ · ∂Y``, which
is added back to where the elements came from. ``X`` is ``K`` times as large as the data: it is gathered for a few
samples at a time, and gathered again on the way back, so that a tape holds the data alone. With one channel per group
the products are scalar multiples of the views themselves, and gathering them would cost more than computing with them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from qcompiler.analysis.backward.rule import Array, Gradients, Inputs, Node, Pullback, Rule, given, optional
from qcompiler.analysis.backward.windows import Windows, windows

__all__ = ["RULES"]

GATHERED: Final = 1 << 20
"""Bytes of gathered windows that exist at once: as many samples as fit, but at least one."""


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


def _gathered(data: Array, place: Windows) -> Array:
    """What every tap meets: ``N × C × K × P``; a view of ``data`` where window and element are the same."""
    count, channels = data.shape[:2]
    if place.pointwise:
        return data.reshape(count, channels, 1, -1)
    columns = np.empty((count, channels, place.taps, *place.counts), data.dtype)
    for tap, view in enumerate(place.views(place.padded(data))):
        columns[:, :, tap] = view
    return columns.reshape(count, channels, place.taps, -1)


def _spread(columns: Array, place: Windows, shape: tuple[int, ...]) -> Array:
    """The transpose of ``_gathered``: columns ``N × C × K × P`` added to where they were taken from."""
    if place.pointwise:
        return columns.reshape(shape)
    parts = columns.reshape(*columns.shape[:3], *place.counts)
    total = np.zeros_like(place.padded(np.zeros(shape, columns.dtype)))
    for tap, view in enumerate(place.views(total)):
        view += parts[:, :, tap]
    return place.unpadded(total, shape)


def _parts(data: Array, place: Windows) -> Iterator[slice]:
    """Samples whose windows are gathered together."""
    each = data.itemsize * data.shape[1] * place.taps * math.prod(place.counts)
    step = max(1, GATHERED // max(each, 1))
    return (slice(start, start + step) for start in range(0, data.shape[0], step))


def _grouped(data: Array, weight: Array, place: Windows, groups: int) -> tuple[Array, Pullback]:
    count, rows, positions = data.shape[0], weight.shape[0] // groups, math.prod(place.counts)
    matrix = weight.reshape(groups, rows, -1)
    sizes = (count, groups, rows, positions)
    result = np.empty(sizes, np.result_type(data, weight))
    for part in _parts(data, place):
        np.matmul(matrix, _columns(data[part], place, groups), out=result[part])

    def pullback(gradient: Array, wanted: Sequence[bool]) -> Gradients:
        flat = gradient.reshape(sizes)
        into_data = np.empty_like(data) if wanted[0] else None
        total = np.zeros_like(matrix) if wanted[1] else None
        for part in _parts(data, place):
            if into_data is not None:
                moved = np.matmul(matrix.transpose(0, 2, 1), flat[part])
                shape = into_data[part].shape
                into_data[part] = _spread(moved.reshape(*shape[:2], place.taps, -1), place, shape)
            if total is not None:
                columns = _columns(data[part], place, groups)
                for own, found in zip(flat[part], columns, strict=True):  # a stack of products would be large
                    total += np.matmul(own, found.transpose(0, 2, 1))
        return into_data, None if total is None else total.reshape(weight.shape)

    return result.reshape(count, weight.shape[0], *place.counts), pullback


def _columns(data: Array, place: Windows, groups: int) -> Array:
    """Windows by group: ``N × G × (C/G · K) × P``."""
    return _gathered(data, place).reshape(data.shape[0], groups, -1, math.prod(place.counts))


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
