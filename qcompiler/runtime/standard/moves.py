"""Operators that move elements: whatever the element type, nothing is computed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from qcompiler.runtime.standard.kernel import Array, ElsewhereError, Inputs, Kernel, Node, given

__all__ = ["KERNELS"]


def _integers(inputs: Inputs, index: int) -> list[int] | None:
    """An optional operand that lists integers."""
    found = inputs[index] if index < len(inputs) else None
    return None if found is None else [int(item) for item in np.asarray(found).reshape(-1)]


def _axes(node: Node, inputs: Inputs) -> list[int] | None:
    """Axes: an attribute before operator set 13, an operand since."""
    return _integers(inputs, 1) if len(inputs) > 1 else node.integers("axes")


def _identity(node: Node, inputs: Inputs) -> Array:
    del node
    return given(inputs, 0)


def _reshape(node: Node, inputs: Inputs) -> Array:
    data = given(inputs, 0)
    wanted = _integers(inputs, 1)
    if wanted is None:
        wanted = node.integers("shape") or []
    if not node.integer("allowzero", 0):
        wanted = [data.shape[index] if size == 0 else size for index, size in enumerate(wanted)]
    return data.reshape(wanted)


def _flatten(node: Node, inputs: Inputs) -> Array:
    data = given(inputs, 0)
    axis = node.integer("axis", 1)
    axis += data.ndim if axis < 0 else 0
    return data.reshape(math.prod(data.shape[:axis]), math.prod(data.shape[axis:]))


def _transpose(node: Node, inputs: Inputs) -> Array:
    return np.transpose(given(inputs, 0), node.integers("perm"))


def _squeeze(node: Node, inputs: Inputs) -> Array:
    axes = _axes(node, inputs)
    return np.squeeze(given(inputs, 0), None if axes is None else tuple(axes))


def _unsqueeze(node: Node, inputs: Inputs) -> Array:
    return np.expand_dims(given(inputs, 0), tuple(_axes(node, inputs) or ()))


def _slice(node: Node, inputs: Inputs) -> Array:
    data = given(inputs, 0)
    if len(inputs) > 1:
        starts, ends, axes, steps = (_integers(inputs, index) for index in range(1, 5))
    else:
        starts, ends, axes, steps = node.integers("starts"), node.integers("ends"), node.integers("axes"), None
    starts, ends = starts or [], ends or []
    cuts = [slice(None)] * data.ndim
    for start, end, axis, step in zip(
        starts, ends, axes or range(len(starts)), steps or [1] * len(starts), strict=True
    ):
        size = data.shape[axis]
        # An end below -size means "past the first element" when walking backwards; Python would read it as such only
        # from None.
        cuts[axis] = slice(start, None if step < 0 and end < -size else end, step)
    return data[tuple(cuts)]


def _gather(node: Node, inputs: Inputs) -> Array:
    data, indices = given(inputs, 0), given(inputs, 1)
    return np.take(data, indices.astype(np.int64), axis=node.integer("axis", 0))


def _gather_elements(node: Node, inputs: Inputs) -> Array:
    data, indices = given(inputs, 0), given(inputs, 1).astype(np.int64)
    axis = node.integer("axis", 0) % data.ndim
    whole: list[Array] = list(np.indices(indices.shape, sparse=True))
    whole[axis] = indices
    return np.asarray(data[tuple(whole)])


def _gather_nd(node: Node, inputs: Inputs) -> Array:
    if node.integer("batch_dims", 0):
        raise ElsewhereError
    data, indices = given(inputs, 0), given(inputs, 1).astype(np.int64)
    return np.asarray(data[tuple(np.moveaxis(indices, -1, 0))])


def _expand(node: Node, inputs: Inputs) -> Array:
    del node
    data = given(inputs, 0)
    return np.broadcast_to(data, np.broadcast_shapes(data.shape, tuple(_integers(inputs, 1) or ())))


def _tile(node: Node, inputs: Inputs) -> Array:
    del node
    return np.tile(given(inputs, 0), _integers(inputs, 1) or [])


def _concat(node: Node, inputs: Inputs) -> Array:
    return np.concatenate([given(inputs, index) for index in range(len(inputs))], axis=node.integer("axis", 1))


def _split(node: Node, inputs: Inputs) -> Sequence[Array]:
    data = given(inputs, 0)
    axis = node.integer("axis", 0)
    sizes = _integers(inputs, 1) or node.integers("split")
    if sizes is None:
        part = math.ceil(data.shape[axis] / node.outputs)
        sizes = [part] * (node.outputs - 1)
    else:
        sizes = sizes[:-1]
    return np.split(data, list(itertools.accumulate(sizes)), axis=axis)


def _pad(node: Node, inputs: Inputs) -> Array:
    data = given(inputs, 0)
    mode = node.text("mode", "constant")
    amounts = (_integers(inputs, 1) if len(inputs) > 1 else node.integers("pads")) or []
    axes = _integers(inputs, 3) or list(range(data.ndim))
    widths = [(0, 0)] * data.ndim
    for index, axis in enumerate(axes):
        widths[axis] = (amounts[index], amounts[index + len(axes)])
    cropped = data[
        tuple(slice(max(0, -low), size + min(0, high)) for (low, high), size in zip(widths, data.shape, strict=True))
    ]
    widths = [(max(0, low), max(0, high)) for low, high in widths]
    if mode != "constant":
        return np.pad(cropped, widths, mode=mode)  # type: ignore[call-overload, no-any-return]
    value = inputs[2] if len(inputs) > 2 else None
    fill = node.attributes.get("value", 0) if value is None else np.asarray(value).reshape(-1)[0]
    return np.pad(cropped, widths, constant_values=fill)


def _where(node: Node, inputs: Inputs) -> Array:
    del node
    return np.where(given(inputs, 0), given(inputs, 1), given(inputs, 2))


def _depth_to_space(node: Node, inputs: Inputs) -> Array:
    data = given(inputs, 0)
    block = node.integer("blocksize", 1)
    count, channels, height, width = data.shape
    inner = channels // block**2
    if node.text("mode", "DCR") == "DCR":
        parts = data.reshape(count, block, block, inner, height, width).transpose(0, 3, 4, 1, 5, 2)
    else:
        parts = data.reshape(count, inner, block, block, height, width).transpose(0, 1, 4, 2, 5, 3)
    return parts.reshape(count, inner, height * block, width * block)


def _space_to_depth(node: Node, inputs: Inputs) -> Array:
    data = given(inputs, 0)
    block = node.integer("blocksize", 1)
    count, channels, height, width = data.shape
    parts = data.reshape(count, channels, height // block, block, width // block, block).transpose(0, 3, 5, 1, 2, 4)
    return parts.reshape(count, channels * block**2, height // block, width // block)


KERNELS: Final[dict[str, Kernel]] = {
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Identity": _identity,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
