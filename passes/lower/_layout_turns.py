"""What a node is once its images have their channels last, and what all rules share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import onnx_ir as ir

from qcompiler.ir.constants import array
from qcompiler.ir.edit import AttributeValue, Edit
from qcompiler.passes.lower._layout_axes import last_axis, to_last, turned_constant

__all__ = ["Rule", "StaysFirst", "Turn", "constants", "image_inputs", "image_rank", "mapped_axes", "turn_constants"]

_LEAST: Final = 3
"""Least rank of an image: batch, channels and one spatial axis."""


class StaysFirst(Exception):  # noqa: N818 - it is an answer, not a failure: the node keeps its layout
    """Why a node cannot have channels last; a sentence that goes to the report as it is."""


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """How a node works on channels-last codes.

    Attributes:
        reads: Inputs that must have channels last; the others are read as they are.
        writes: Whether its results have channels last; if not, they are the same tensors as before.
        apply: Changes attributes and constants of the node.
        inside: Whether the results are read by nothing but the next node of a group that is turned as a whole; they
            have neither layout, and ``apply`` sets their shapes.
    """

    reads: tuple[int, ...]
    writes: bool
    apply: Callable[[Edit], None]
    inside: bool = False


Rule: TypeAlias = Callable[[ir.Node], Turn]
"""Looks at a node and changes nothing; raises :class:`StaysFirst`."""


def image_rank(value: ir.Value | None) -> int:
    """The rank of codes that have a channel axis and spatial axes.

    Raises:
        StaysFirst: It is unknown or too small.
    """
    if value is None or value.shape is None:
        raise StaysFirst("the rank of its codes is not known")
    if len(value.shape) < _LEAST:
        raise StaysFirst(f"codes of rank {len(value.shape)} have no spatial axes")
    return len(value.shape)


def image_inputs(node: ir.Node, rank: int, indices: Iterable[int]) -> tuple[int, ...]:
    """Those of some inputs that are computed; each must have the rank of the image or be one number.

    Raises:
        StaysFirst: A computed operand is broadcast along axes that it does not have.
    """
    found = []
    for index in indices:
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None or array(value) is not None:
            continue
        if value.shape is None or len(value.shape) not in (0, rank):
            raise StaysFirst(f"its input {index} is computed and has not the rank {rank} of its result")
        if len(value.shape):
            found.append(index)
    return tuple(found)


def constants(node: ir.Node, indices: Iterable[int], *, most: int | None = None, rank: int = 0) -> tuple[int, ...]:
    """Those of some inputs that are there, all of them constant.

    Args:
        node: The node.
        indices: Inputs to look at.
        most: Axes that the constants may have once channels are last; ``None``: any number.
        rank: Rank of the codes.

    Raises:
        StaysFirst: One is computed, or varies along more axes.
    """
    found = []
    for index in indices:
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None:
            continue
        content = array(value)
        if content is None:
            raise StaysFirst(f"its input {index} is computed")
        if content.ndim > rank > 0:
            raise StaysFirst(f"its input {index} has more axes than its result")
        if most is not None and turned_constant(content, rank).ndim > most:
            raise StaysFirst(f"its input {index} varies from position to position")
        found.append(index)
    return tuple(found)


def turn_constants(node: ir.Node, indices: Iterable[int], rank: int, edit: Edit, *, digits: bool = False) -> None:
    """Let constants that broadcast against channels-first codes broadcast against channels-last ones.

    Args:
        node: The node.
        indices: Its constant inputs.
        rank: Rank of the codes.
        edit: The mutation interface.
        digits: Whether a last axis of the constants holds digits of factors.
    """
    for index in indices:
        value = node.inputs[index]
        content = array(value)
        if value is None or content is None:
            continue
        last = turned_constant(content, rank, behind=int(digits and content.ndim > 0))
        if last.shape != content.shape or not np.array_equal(last, content):
            edit.set_input(node, index, edit.constant(f"{value.name}_last", last))
            edit.remove_unused([value])


def mapped_axes(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Axes of channels-first codes, once channels are last; in ascending order."""
    return tuple(sorted(last_axis(axis, rank) for axis in axes))


def kept_axes(gone: Sequence[int], rank: int) -> bool:
    """Whether codes without some axes still have their channels last; if not, they are as before.

    Raises:
        StaysFirst: The axes left are in an order that is neither.
    """
    removed = {axis % rank for axis in gone}
    first = [axis for axis in range(rank) if axis not in removed]
    last = [axis for axis in to_last(rank) if axis not in removed]
    if first == last:
        return False
    if len(first) >= _LEAST and last == [first[axis] for axis in to_last(len(first))]:
        return True
    raise StaysFirst("the axes that it leaves are in no order that the graph knows")


def set_attributes(node: ir.Node, edit: Edit, attributes: dict[str, AttributeValue]) -> None:
    """Set several attributes."""
    for name, value in attributes.items():
        edit.set_attribute(node, name, value)
