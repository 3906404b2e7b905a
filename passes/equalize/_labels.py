"""Labels: which element of which tensor belongs to which channel, followed through whatever only moves channels.

A linear layer makes channels: each gets a label of its own. A tensor's labels are an array that broadcasts to the
tensor: ``(1, C, 1, 1)`` behind a convolution, ``(1, 1, D)`` behind a product in a transformer, ``(1, H, 1, D / H)``
once it is split into heads, ``(1, C * H * W)`` behind a Flatten. What moves elements is applied to the labels as it is
to the tensor. Labels that must be treated alike (both sides of a residual Add) are tied; a label that cannot be
treated at all is frozen, with the reason. Label 0 stands for what no layer made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir import constants, patterns

__all__ = ["MOVERS", "Labels", "Names", "move", "vector"]

Names = NDArray[np.intp]
"""Labels of a tensor, broadcastable to it."""
_LARGEST: Final = 1 << 24
"""Elements of the largest label array that is followed."""
_FOREIGN: Final = "no layer with constants of its own made it"


class Labels:
    """Ties between labels, and the labels of every tensor seen so far.

    Attributes:
        met: Arrays of labels that were tied to each other.
    """

    def __init__(self) -> None:
        self._parent: list[int] = [0]
        self._reasons: dict[int, str] = {0: _FOREIGN}
        self._of: dict[ir.Value, Names] = {}
        self.met: list[tuple[Names, Names]] = []
        self._members: dict[int, list[int]] = {}

    @property
    def count(self) -> int:
        """Number of labels, 0 included."""
        return len(self._parent)

    def fresh(self, count: int) -> Names:
        """``count`` labels that nothing has yet."""
        start = len(self._parent)
        self._members = {}
        self._parent.extend(range(start, start + count))
        return np.arange(start, start + count)

    def of(self, value: ir.Value | None) -> Names:
        """Labels of a tensor; all 0 where none were set."""
        if value is None:
            return np.zeros((), np.intp)
        found = self._of.get(value)
        return np.zeros((1,) * (patterns.rank(value) or 0), np.intp) if found is None else found

    def put(self, value: ir.Value, names: Names) -> None:
        """Set the labels of a tensor; an axis along which they are the same shrinks to 1."""
        for axis in range(names.ndim):
            first = names.take([0], axis=axis) if names.shape[axis] else names
            if names.shape[axis] > 1 and (names == first).all():
                names = first
        self._of[value] = names

    def values(self) -> list[ir.Value]:
        """Tensors with labels, in the order in which they were met."""
        return list(self._of)

    def root(self, label: int) -> int:
        """The label that stands for everything tied to ``label``."""
        while self._parent[label] != label:
            self._parent[label] = self._parent[self._parent[label]]
            label = self._parent[label]
        return label

    def members(self) -> dict[int, list[int]]:
        """The labels behind each root, in order; label 0 left out."""
        if not self._members:
            for label in range(1, self.count):
                self._members.setdefault(self.root(label), []).append(label)
        return self._members

    def roots(self, names: Names) -> Names:
        """``root`` of every element."""
        unique, inverse = np.unique(names, return_inverse=True)
        found = np.array([self.root(int(label)) for label in unique], np.intp)
        return np.asarray(found[inverse].reshape(names.shape))

    def tie(self, first: Names, second: Names, reason: str) -> None:
        """Let each label share the fate of the one it is broadcast to; what meets 0 is frozen for ``reason``."""
        try:
            one, two = np.broadcast_arrays(first, second)
        except ValueError:
            self.freeze(first, reason)
            self.freeze(second, reason)
            return
        self.met.append((first, second))
        for a, b in np.unique(np.stack([one.ravel(), two.ravel()]), axis=1).T:
            self._union(int(a), int(b), reason)

    def _union(self, first: int, second: int, reason: str) -> None:
        a, b = self.root(first), self.root(second)
        if a == b:
            return
        if 0 in (a, b):
            self._reasons.setdefault(max(a, b), reason)
            return
        self._members = {}
        low, high = min(a, b), max(a, b)
        self._parent[high] = low
        if high in self._reasons:
            self._reasons.setdefault(low, self._reasons[high])

    def freeze(self, names: Names, reason: str) -> None:
        """Leave these labels alone; the first reason stays."""
        for label in np.unique(names):
            self._reasons.setdefault(self.root(int(label)), reason)

    def reason(self, label: int) -> str:
        """Why a label is frozen; empty where it is free."""
        return self._reasons.get(self.root(label), "")

    def free(self, names: Names) -> NDArray[np.bool_]:
        """Which labels are free."""
        unique, inverse = np.unique(names, return_inverse=True)
        found = np.array([not self.reason(int(label)) for label in unique], np.bool_)
        return np.asarray(found[inverse].reshape(names.shape))


def vector(names: Names, axis: int, size: int) -> Names | None:
    """Labels along one axis, shape ``(size,)``; ``None`` where they differ along another one too."""
    if names.ndim == 0:
        return np.broadcast_to(names, (size,))
    axis %= names.ndim
    if names.size != names.shape[axis] or names.size not in (1, size):
        return None
    return np.broadcast_to(names.reshape(-1), (size,))


def move(node: ir.Node, labels: Labels) -> list[Names] | str:
    """Labels of the results of a node in ``MOVERS``, or why they are not known."""
    return MOVERS[node.op_type](node, labels)


def _shaped(node: ir.Node, labels: Labels) -> list[Names] | str:
    """Reshape and its kin: elements keep their order, so labels do, over the trailing axes that hold the same."""
    names = labels.of(node.inputs[0])
    before, after = patterns.static_shape(node.inputs[0]), patterns.static_shape(node.outputs[0])
    if before is None or after is None or names.ndim != len(before):
        return "its shape is not known"
    if names.size == 1:
        return [names.reshape((1,) * len(after))]
    first = next(axis for axis, size in enumerate(names.shape) if size > 1)
    ends = {_product(after[axis:]): axis for axis in reversed(range(len(after)))}
    for start in range(first, -1, -1):
        count = _product(before[start:])
        if count is None or count > _LARGEST:
            break
        if count in ends:
            tail = [int(size or 0) for size in before[start:]]
            whole = np.broadcast_to(names.reshape(names.shape[start:]), tail)
            end = ends[count]
            return [np.asarray(whole.reshape((1,) * end + tuple(int(size or 0) for size in after[end:])))]
    return "it mixes channels with other axes"


def _product(sizes: Sequence[int | None]) -> int | None:
    return None if None in sizes else math.prod(int(size or 0) for size in sizes)


def _transposed(node: ir.Node, labels: Labels) -> list[Names] | str:
    names = labels.of(node.inputs[0])
    order = patterns.integers(node, "perm") or tuple(reversed(range(names.ndim)))
    return [names.transpose(order)] if len(order) == names.ndim else "its shape is not known"


def _same(node: ir.Node, labels: Labels) -> list[Names] | str:
    return [labels.of(node.inputs[0])]


def _joined(node: ir.Node, labels: Labels) -> list[Names] | str:
    """Concat: label arrays side by side; where no array changes along the axis, they must agree instead."""
    axis = patterns.integer(node, "axis", 0)
    parts = []
    for value in node.inputs:
        names, shape = labels.of(value), patterns.static_shape(value)
        size = None if shape is None else shape[axis]
        if shape is None or size is None or names.ndim != len(shape):
            return "the size of a part is not known"
        axis %= len(shape)
        parts.append(np.broadcast_to(names, [size if i == axis else n for i, n in enumerate(names.shape)]))
    wide = np.broadcast_shapes(*(tuple(1 if i == axis else n for i, n in enumerate(part.shape)) for part in parts))
    full = [np.broadcast_to(part, [part.shape[axis] if i == axis else n for i, n in enumerate(wide)]) for part in parts]
    return [np.concatenate(full, axis)] if sum(part.size for part in full) <= _LARGEST else "it is too large"


def _cut(node: ir.Node, labels: Labels) -> list[Names] | str:
    """Slice with constant bounds; axes along which labels do not change stay as they are."""
    names = labels.of(node.inputs[0])
    bounds = [constants.array(value) for value in node.inputs[1:]]
    if len(bounds) < 2 or any(item is None for item in bounds) or not names.ndim:
        return "its bounds are not constant" if names.size > 1 else [names]
    numbers = [[int(i) for i in np.asarray(item).ravel()] for item in bounds]
    axes = numbers[2] if len(numbers) > 2 else list(range(len(numbers[0])))
    steps = numbers[3] if len(numbers) > 3 else [1] * len(axes)
    index: list[slice] = [slice(None)] * names.ndim
    for axis, start, end, step in zip(axes, numbers[0], numbers[1], steps, strict=True):
        if names.shape[axis] > 1:
            lowest = step < 0 and end < -names.shape[axis]
            index[axis] = slice(start, None if lowest else end, step)
    return [names[tuple(index)]]


def _split(node: ir.Node, labels: Labels) -> list[Names] | str:
    names, axis = labels.of(node.inputs[0]), patterns.integer(node, "axis", 0)
    if not names.ndim or names.shape[axis] == 1:
        return [names] * len(node.outputs)
    shapes = [patterns.static_shape(value) for value in node.outputs]
    sizes = [None if shape is None else shape[axis] for shape in shapes]
    if None in sizes:
        return "the sizes of its parts are not known"
    return np.split(names, np.cumsum([int(size or 0) for size in sizes])[:-1], axis)


def _padded(node: ir.Node, labels: Labels) -> list[Names] | str:
    """Pad with zeros or with what is there; channels of zeros that are added get labels that nobody makes."""
    names, pads = labels.of(node.inputs[0]), constants.array(node.inputs[1] if len(node.inputs) > 1 else None)
    fill = node.inputs[2] if len(node.inputs) > 2 else None
    zeros = node.attributes.get_string("mode", "constant") == "constant"
    if pads is None or len(node.inputs) > 3 or pads.size != 2 * names.ndim:
        return "its padding is not constant"
    if zeros and fill is not None and constants.scalar(fill) != 0:
        return "it pads with other numbers than 0"
    widths = [(int(pads[axis]), int(pads[axis + names.ndim])) for axis in range(names.ndim)]
    for axis, width in enumerate(widths):
        if names.shape[axis] == 1 or not any(width):
            continue
        if not zeros or min(width) < 0:
            return "it pads channels with others"
        shapes = [[n if i == axis else size for i, size in enumerate(names.shape)] for n in width]
        before, after = (labels.fresh(math.prod(shape)).reshape(shape) for shape in shapes)
        names = np.concatenate([before, names, after], axis)
    return [names]


def _spatial(node: ir.Node, labels: Labels) -> list[Names] | str:
    """Pools and Resize: what acts on each channel of axis 1 for itself."""
    names = labels.of(node.inputs[0])
    if any(size > 1 for axis, size in enumerate(names.shape) if axis != 1):
        return "its channels are not on axis 1"
    if any(value.is_graph_output() or list(value.uses()) for value in node.outputs[1:]):
        return "it gives indices too"
    before, after = patterns.static_shape(node.inputs[0]), patterns.static_shape(node.outputs[0])
    same = before is not None and after is not None and len(after) > 1 and after[1] == before[1]
    if not patterns.has_type(node, "Resize"):
        return [names]
    crops = node.attributes.get_string("coordinate_transformation_mode", "") == "tf_crop_and_resize"
    return [names] if same and not crops else "it resizes channels, or fills what it adds"


def _reduced(node: ir.Node, labels: Labels) -> list[Names] | str:
    """ReduceMean and its kin over axes without channels."""
    names, keep = labels.of(node.inputs[0]), patterns.integer(node, "keepdims", 1)
    listed = constants.array(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else None
    stated = patterns.integers(node, "axes") if listed is None else tuple(int(i) for i in listed)
    if not stated or not names.ndim or any(names.shape[axis] > 1 for axis in stated):
        return "it reduces channels" if names.size > 1 else "its axes are not constant"
    gone = {axis % names.ndim for axis in stated}
    kept = [size for axis, size in enumerate(names.shape) if keep or axis not in gone]
    return [names.reshape(kept)]


MOVERS: Final[dict[str, Callable[[ir.Node, Labels], list[Names] | str]]] = {
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _shaped),
    **dict.fromkeys(("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Resize"), _spatial),
    **dict.fromkeys(("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum"), _reduced),
    "Transpose": _transposed,
    "Identity": _same,
    "Concat": _joined,
    "Slice": _cut,
    "Split": _split,
    "Pad": _padded,
}
"""Operators that move, average or compare elements of one channel; each commutes with a positive factor per channel."""
