"""Where the windows of a convolution or pooling lie, as one strided view of the padded data per kernel element.

A loop over the few kernel elements with whole-tensor operations inside is how NumPy does this fast, and its transpose
(adding into the same views) is the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from qcompiler.analysis.backward.rule import Array, Node, UnknownFormError

__all__ = ["Windows", "windows"]


@dataclass(frozen=True, slots=True)
class Windows:
    """Geometry over the spatial axes of ``N × C × …``.

    Attributes:
        kernel: Kernel size per axis.
        strides: Steps from window to window.
        dilations: Steps inside a window.
        begins: Padding before the data.
        ends: Padding behind it, as far as windows reach; negative where they leave elements out.
        counts: Windows per axis.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def taps(self) -> int:
        """Elements of the kernel."""
        return math.prod(self.kernel)

    @property
    def pointwise(self) -> bool:
        """Whether window and element are the same thing."""
        return self.taps == 1 and not any((*self.begins, *self.ends)) and set(self.strides) <= {1}

    def padded(self, data: Array, fill: float = 0.0) -> Array:
        """The data with its padding."""
        if not any(size > 0 for size in (*self.begins, *self.ends)):
            return data
        behind = (max(0, size) for size in self.ends)
        return np.pad(data, [(0, 0), (0, 0), *zip(self.begins, behind, strict=True)], constant_values=fill)

    def views(self, padded: Array) -> Iterator[Array]:
        """Per kernel element (row-major) the elements it meets: ``N × C × counts``, views of ``padded``."""
        for offset in np.ndindex(*self.kernel):
            places = (
                slice(index * dilation, index * dilation + (count - 1) * stride + 1, stride)
                for index, dilation, stride, count in zip(
                    offset, self.dilations, self.strides, self.counts, strict=True
                )
            )
            yield padded[(slice(None), slice(None), *places)]

    def unpadded(self, padded: Array, shape: tuple[int, ...]) -> Array:
        """The part of a padded tensor that is data of ``shape``."""
        inside = (slice(begin, begin + size) for begin, size in zip(self.begins, shape[2:], strict=True))
        return padded[(slice(None), slice(None), *inside)]


def windows(node: Node, sizes: Sequence[int], kernel: Sequence[int]) -> Windows:
    """The windows of a node over data of so many elements per spatial axis.

    Raises:
        UnknownFormError: The padding is automatic in a way that runtimes disagree about.
    """
    rank = len(kernel)
    strides = node.integers("strides") or [1] * rank
    dilations = node.integers("dilations") or [1] * rank
    extents = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    pads = _pads(node, sizes, extents, strides)
    counts, ends = [], []
    for axis in range(rank):
        room = sizes[axis] + pads[axis] + pads[axis + rank] - extents[axis]
        count = (-(-room // strides[axis]) if node.integer("ceil_mode", 0) else room // strides[axis]) + 1
        # No window begins in the padding behind the data.
        if node.integer("ceil_mode", 0) and (count - 1) * strides[axis] >= sizes[axis] + pads[axis]:
            count -= 1
        counts.append(count)
        ends.append((count - 1) * strides[axis] + extents[axis] - pads[axis] - sizes[axis])
    return Windows(tuple(kernel), tuple(strides), tuple(dilations), tuple(pads[:rank]), tuple(ends), tuple(counts))


def _pads(node: Node, sizes: Sequence[int], extents: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Padding at the beginnings, then at the ends."""
    auto = node.text("auto_pad", "NOTSET")
    if auto in ("NOTSET", "VALID"):
        return (node.integers("pads") if auto == "NOTSET" else None) or [0] * (2 * len(sizes))
    totals = [
        (math.ceil(size / stride) - 1) * stride + extent - size
        for size, stride, extent in zip(sizes, strides, extents, strict=True)
    ]
    if min(totals, default=0) < 0:
        raise UnknownFormError(f"auto_pad {auto} with windows that skip elements")
    less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return [*less, *more] if auto == "SAME_UPPER" else [*more, *less]
