"""Mean squares of what each weight of a linear layer is multiplied with, while samples stream by.

With ``y = sum_k w_k x_k`` an error ``d`` of the weights adds ``d^T H d`` to the sum of squared output errors, ``H = sum
x x^T``. Its diagonal says how much one weight's error costs when the others are right: ``h_k = sum x_k^2``. The Hessian
of the squared output error is ``2 H``.

A convolution multiplies each weight by a shifted image, whose padding is zero: the sum of squares is taken per channel
and tap. Nothing but these sums is kept, so memory is that of one kernel per input channel.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.collectors import State, broadcast
from qcompiler.calibration.histogram import NotFiniteError

__all__ = ["Layout", "SecondMoments", "Window"]


@dataclass(frozen=True, slots=True)
class Window:
    """Where the taps of a convolution lie; attributes as in ONNX."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a layer reads its input.

    Attributes:
        axis: The axis along which products are summed.
        window: Taps of a convolution, whose channels lie along axis 1.
    """

    axis: int
    window: Window | None = None


class SecondMoments:
    """Sums of squares of one tensor, for each way in which layers read it, accumulated in float64.

    Args:
        layouts: How it is read.
    """

    def __init__(self, layouts: Iterable[Layout]) -> None:
        self.layouts = tuple(dict.fromkeys(layouts))
        self._sums: dict[Layout, NDArray[np.float64]] = {}

    def update(self, array: NDArray[Any], weights: NDArray[Any] | None = None) -> None:
        """Add a tensor; rows count by their weight."""
        squares = np.square(array, dtype=np.float32)
        if weights is not None:
            full = broadcast(array, weights)
            squares = np.where(full > 0, squares, 0) * full
        for layout in self.layouts:
            total = _per_slice(squares, layout.axis) if layout.window is None else _per_tap(squares, layout.window)
            if not np.isfinite(total).all():
                raise NotFiniteError("NaN, infinity or numbers whose squares overflow")
            self._sums[layout] = self._sums[layout] + total if layout in self._sums else total

    def sums(self, layout: Layout) -> NDArray[np.float64] | None:
        """Sums of squares ``[channels]``, or ``[channels, *kernel]`` of a convolution; ``None`` if nothing was seen."""
        return self._sums.get(layout)

    def settings(self) -> str:
        """How the tensor is read."""
        return f"second moments {self.layouts}"

    def state(self) -> State:
        """The sums, by position of their layout."""
        return {str(self.layouts.index(layout)): total for layout, total in self._sums.items()}

    def restore(self, state: State) -> None:
        """Set the sums."""
        self._sums = {self.layouts[int(index)]: total for index, total in state.items()}


def _per_slice(squares: NDArray[Any], axis: int) -> NDArray[np.float64]:
    kept = axis % squares.ndim
    total: NDArray[np.float64] = squares.sum(tuple(i for i in range(squares.ndim) if i != kept), dtype=np.float64)
    return total


def _per_tap(squares: NDArray[Any], window: Window) -> NDArray[np.float64]:
    """Sums over batch and positions of what each tap reads, ``[channels, *kernel]``."""
    rank = len(window.kernel)
    padded = np.pad(squares, [(0, 0), (0, 0), *zip(window.pads[:rank], window.pads[rank:], strict=True)])
    total = np.empty((squares.shape[1], *window.kernel))
    for tap in itertools.product(*map(range, window.kernel)):
        where: tuple[slice, ...] = (slice(None), slice(None), *_positions(padded.shape[2:], tap, window))
        place: tuple[slice | int, ...] = (slice(None), *tap)
        total[place] = padded[where].sum((0, *range(2, 2 + rank)), dtype=np.float64)
    return total


def _positions(sizes: Sequence[int], tap: tuple[int, ...], window: Window) -> list[slice]:
    """The elements that a tap reads along each axis of a padded image."""
    found = []
    for size, at, kernel, stride, dilation in zip(
        sizes, tap, window.kernel, window.strides, window.dilations, strict=True
    ):
        outputs = max((size - dilation * (kernel - 1) - 1) // stride + 1, 0)
        start = at * dilation
        found.append(slice(start, start + stride * outputs, stride))
    return found
