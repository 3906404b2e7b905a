"""Pooling: AveragePool, MaxPool, and the average of everything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from qcompiler.analysis.backward.rule import Array, Gradients, Inputs, Node, Pullback, Rule, UnknownFormError, given
from qcompiler.analysis.backward.windows import Windows, windows

__all__ = ["RULES"]


def _average_pool(node: Node, inputs: Inputs) -> tuple[Array, Pullback]:
    data = given(inputs, 0)
    place = windows(node, data.shape[2:], node.integers("kernel_shape") or [])
    share = 1 / _counted(node, place, data)
    total = np.zeros((*data.shape[:2], *place.counts), data.dtype)
    for view in place.views(place.padded(data)):
        total += view

    def pullback(gradient: Array, wanted: Sequence[bool]) -> Gradients:
        del wanted
        spread = np.zeros_like(place.padded(np.zeros_like(data)))
        part = gradient * share
        for view in place.views(spread):
            view += part
        return [place.unpadded(spread, data.shape)]

    return total * share, pullback


def _counted(node: Node, place: Windows, data: Array) -> Array:
    """By how many elements each window divides: padding counts only where the node says so, and never beyond it."""
    ones = np.ones((1, 1, *data.shape[2:]), data.dtype)
    pads = node.integers("pads") or [0] * (2 * len(place.kernel))
    if node.integer("count_include_pad", 0):
        behind = pads[len(place.kernel) :]
        reach = [min(end, pad) for end, pad in zip(place.ends, behind, strict=True)]
        ones = np.pad(ones, [(0, 0), (0, 0), *((b, max(0, e)) for b, e in zip(place.begins, reach, strict=True))],
                      constant_values=1)  # fmt: skip
        missing = [max(0, end - max(0, near)) for end, near in zip(place.ends, reach, strict=True)]
        ones = np.pad(ones, [(0, 0), (0, 0), *((0, size) for size in missing)])
    else:
        ones = place.padded(ones)
    return np.asarray(sum(place.views(ones)))


def _max_pool(node: Node, inputs: Inputs) -> tuple[Array, Pullback]:
    """The first element that is the greatest of its window gets the gradient."""
    data = given(inputs, 0)
    if node.outputs > 1 or node.integer("storage_order", 0):
        raise UnknownFormError("indices of the greatest elements")
    place = windows(node, data.shape[2:], node.integers("kernel_shape") or [])
    padded = place.padded(data, -np.inf)
    result = np.full((*data.shape[:2], *place.counts), -np.inf, data.dtype)
    chosen = np.zeros(result.shape, np.int32)
    for tap, view in enumerate(place.views(padded)):
        chosen[view > result] = tap
        np.maximum(result, view, out=result)

    def pullback(gradient: Array, wanted: Sequence[bool]) -> Gradients:
        del wanted
        spread = np.zeros_like(padded)
        for tap, view in enumerate(place.views(spread)):
            view += gradient * (chosen == tap)
        return [place.unpadded(spread, data.shape)]

    return result, pullback


def _global_average_pool(node: Node, inputs: Inputs) -> tuple[Array, Pullback]:
    del node
    data = given(inputs, 0)
    axes = tuple(range(2, data.ndim))
    share = data.dtype.type(data[0, 0].size)

    def pullback(gradient: Array, wanted: Sequence[bool]) -> Gradients:
        del wanted
        return [np.broadcast_to(gradient / share, data.shape)]

    return data.mean(axis=axes, keepdims=True), pullback


RULES: Final[dict[str, Rule]] = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average_pool,
    "MaxPool": _max_pool,
}
