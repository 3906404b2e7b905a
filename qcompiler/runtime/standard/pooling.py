"""MaxPool: a comparison, so it means the same for codes as for numbers."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from qcompiler.runtime.standard.kernel import Array, ElsewhereError, Inputs, Kernel, Node, given

__all__ = ["KERNELS"]


def _max_pool(node: Node, inputs: Inputs) -> Array:
    """Padding never wins: it is the least number of the type."""
    data = given(inputs, 0)
    kernel = node.integers("kernel_shape") or []
    if node.outputs > 1 or node.integer("storage_order", 0):
        raise ElsewhereError
    rank = len(kernel)
    strides = node.integers("strides") or [1] * rank
    dilations = node.integers("dilations") or [1] * rank
    extents = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    pads = _pads(node, data.shape[2:], extents, strides)
    windows = _windows(node, data.shape[2:], extents, strides, pads)
    # Windows may reach beyond the padding at the end (ceil_mode): whatever is missing there is padding, too.
    ends = [
        max(0, (count - 1) * stride + extent - before - size)
        for count, stride, extent, before, size in zip(
            windows, strides, extents, pads[:rank], data.shape[2:], strict=True
        )
    ]
    widths = [(0, 0), (0, 0), *zip(pads[:rank], ends, strict=True)]
    padded = np.pad(data, widths, constant_values=_least(data.dtype))
    view = sliding_window_view(padded, extents, axis=tuple(range(2, 2 + rank)))
    places = tuple(slice(0, (count - 1) * stride + 1, stride) for count, stride in zip(windows, strides, strict=True))
    taken = view[(slice(None), slice(None), *places, *(slice(None, None, dilation) for dilation in dilations))]
    return np.asarray(taken.max(axis=tuple(range(-rank, 0))))


def _least(dtype: np.dtype[Any]) -> Any:
    return np.iinfo(dtype).min if np.issubdtype(dtype, np.integer) else -np.inf


def _pads(node: Node, sizes: tuple[int, ...], extents: list[int], strides: list[int]) -> list[int]:
    """Padding at the beginnings, then at the ends."""
    auto = node.text("auto_pad", "NOTSET")
    if auto in ("NOTSET", "VALID"):
        return (node.integers("pads") if auto == "NOTSET" else None) or [0] * (2 * len(sizes))
    totals = [
        (math.ceil(size / stride) - 1) * stride + extent - size
        for size, stride, extent in zip(sizes, strides, extents, strict=True)
    ]
    if min(totals, default=0) < 0:  # windows that skip elements: runtimes differ in which
        raise ElsewhereError
    less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return [*less, *more] if auto == "SAME_UPPER" else [*more, *less]


def _windows(node: Node, sizes: tuple[int, ...], extents: list[int], strides: list[int], pads: list[int]) -> list[int]:
    """Windows along each axis; none begins in the padding at the end."""
    rank = len(sizes)
    found = []
    for axis, (size, extent, stride) in enumerate(zip(sizes, extents, strides, strict=True)):
        before = pads[axis]
        room = size + before + pads[axis + rank] - extent
        count = (-(-room // stride) if node.integer("ceil_mode", 0) else room // stride) + 1
        found.append(count - 1 if (count - 1) * stride >= size + before else count)
    return found


KERNELS: Final[dict[str, Kernel]] = {"MaxPool": _max_pool}
