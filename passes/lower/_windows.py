"""The windows of a pooling operator, with everything that its attributes leave implicit worked out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.passes.lower.site import NoIntegerForm

__all__ = ["Windows", "sizes_of", "windows_of"]


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows over the spatial axes, one entry of each list per axis.

    Attributes:
        sizes: Sizes of the input; ``None`` where unknown.
        kernel: Sizes of the window.
        strides: Its steps.
        dilations: Distances of its elements.
        begins: Padding before the first element.
        ends: Padding behind the last, with what ``ceil_mode`` reads beyond it.
        counted_ends: Padding behind the last that counts as elements where padding counts at all.
    """

    sizes: tuple[int | None, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    counted_ends: tuple[int, ...]

    @property
    def pads(self) -> tuple[int, ...]:
        """Begins and ends as ONNX writes them."""
        return (*self.begins, *self.ends)

    @property
    def covers_all(self) -> bool:
        """Whether there is one window and it is the whole input."""
        return self.sizes == self.kernel and not any(self.pads) and max(self.dilations) == 1

    def counts(self, *, padding: bool) -> NDArray[np.int64]:
        """Elements that each window counts: over the output positions, or ``()`` where all count the same.

        Args:
            padding: Whether padding counts (``count_include_pad``).

        Raises:
            NoIntegerForm: They depend on sizes that are not known.
        """
        full = np.asarray(np.prod(self.kernel, dtype=np.int64))
        if self.ends == self.counted_ends and (padding or not any(self.pads)):
            return full
        counts = np.ones((), np.int64)
        for axis in range(len(self.kernel)):
            counts = counts[..., None] * self._counts_along(axis, padding=padding)
        return full if (counts == full).all() else counts

    def _counts_along(self, axis: int, *, padding: bool) -> NDArray[np.int64]:
        size, begin, end = self.sizes[axis], self.begins[axis], self.ends[axis]
        if size is None:
            raise NoIntegerForm("how many elements its windows count depends on sizes that are not known")
        reach = (self.kernel[axis] - 1) * self.dilations[axis] + 1
        starts = np.arange(0, size + begin + end - reach + 1, self.strides[axis])
        places = starts[:, None] + np.arange(self.kernel[axis]) * self.dilations[axis]
        first, last = (0, begin + size + self.counted_ends[axis]) if padding else (begin, begin + size)
        return np.asarray(((places >= first) & (places < last)).sum(axis=1), np.int64)


def sizes_of(value: ir.Value | None) -> tuple[int | None, ...]:
    """Sizes of all axes of a value; ``None`` where unknown.

    Raises:
        NoIntegerForm: Not even their number is known.
    """
    if value is None or value.shape is None:
        raise NoIntegerForm("the rank of its input is not known")
    return tuple(size if isinstance(size, int) else None for size in value.shape)


def windows_of(node: ir.Node, sizes: Sequence[int | None]) -> Windows:
    """The windows of a pooling node over spatial axes of ``sizes``.

    Raises:
        NoIntegerForm: They depend on sizes that are not known.
    """
    rank = len(sizes)
    kernel = tuple(node.attributes.get_ints("kernel_shape", ()))
    strides = tuple(node.attributes.get_ints("strides", (1,) * rank))
    dilations = tuple(node.attributes.get_ints("dilations", (1,) * rank))
    pads = tuple(node.attributes.get_ints("pads", (0,) * (2 * rank)))
    if not len(kernel) == len(strides) == len(dilations) == rank or len(pads) != 2 * rank:
        raise NoIntegerForm(f"its attributes do not fit {rank} spatial axes")
    mode = node.attributes.get_string("auto_pad", "NOTSET")
    reach = tuple((size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True))
    begins, ends = pads[:rank], pads[rank:]
    if mode == "VALID":
        begins = ends = (0,) * rank
    elif mode in ("SAME_UPPER", "SAME_LOWER"):
        totals = tuple(_same(*axis) for axis in zip(sizes, reach, strides, strict=True))
        less, more = tuple(total // 2 for total in totals), tuple(total - total // 2 for total in totals)
        begins, ends = (less, more) if mode == "SAME_UPPER" else (more, less)
    beyond = (0,) * rank
    if node.attributes.get_int("ceil_mode", 0) and mode == "NOTSET":
        beyond = tuple(_beyond(*axis) for axis in zip(sizes, reach, strides, begins, ends, strict=True))
    read = tuple(end + more for end, more in zip(ends, beyond, strict=True))
    return Windows(tuple(sizes), kernel, strides, dilations, begins, read, ends)


def _same(size: int | None, reach: int, stride: int) -> int:
    """Padding of an axis that gives ``ceil(size / stride)`` windows."""
    if stride == 1:
        return reach - 1
    if size is None:
        raise NoIntegerForm("its padding depends on sizes that are not known")
    return max((-(-size // stride) - 1) * stride + reach - size, 0)


def _beyond(size: int | None, reach: int, stride: int, begin: int, end: int) -> int:
    """What the last window of an axis reads behind the padding when their number is rounded up."""
    if stride == 1:
        return 0
    if size is None:
        raise NoIntegerForm("the number of its windows is rounded up and depends on sizes that are not known")
    count = -(-(size + begin + end - reach) // stride) + 1
    if (count - 1) * stride >= size + begin:  # a window that starts in the padding at the end is left out
        count -= 1
    return max((count - 1) * stride + reach - size - begin - end, 0)
