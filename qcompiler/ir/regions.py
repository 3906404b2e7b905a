"""Names for what several nodes do together, and for tensors that carry an additive mask.

Both are annotations in ``meta``: nothing in the graph changes, and they are never saved with the model. A region is
written on every node that belongs to it, so it survives edits around it; ``regions`` reads back what is still there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from qcompiler.ir import constants

__all__ = ["MaskInfo", "Region", "clear", "mask", "masked_values", "region", "regions", "set_mask", "set_region"]

_REGION = "qcompiler.region"
_MASK = "qcompiler.mask"


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """Nodes that together compute something with a name.

    Attributes:
        kind: ``layer-norm``, ``rms-norm``, ``gelu``, ``silu`` or ``softmax-attention``.
        nodes: Its nodes in the order of the graph.
        inputs: What it reads from outside, constants left out.
        outputs: What others read of it, outputs of the graph included.
        id: Unique in the model, ``layer-norm:3``.
    """

    kind: str
    nodes: tuple[ir.Node, ...]
    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]
    id: str


@dataclass(frozen=True, slots=True)
class MaskInfo:
    """What an additive mask puts into a tensor: elements near ``constant`` mean "not this one" and nothing else.

    Attributes:
        constant: The number added to what is masked out, as it appears in this tensor; large and negative, or ``-inf``.
        role: ``operand``: the mask itself. ``sum``: scores with the mask in them, up to the Softmax.
    """

    constant: float
    role: Literal["operand", "sum"]


# -- regions -----------------------------------------------------------------------------------------------------


def set_region(kind: str, number: int, nodes: Iterable[ir.Node]) -> Region:
    """Write a region on its nodes, which come in the order of the graph."""
    found = _region(kind, f"{kind}:{number}", tuple(nodes))
    for node in found.nodes:
        node.meta[_REGION] = found
    return found


def region(node: ir.Node) -> Region | None:
    """The region a node was put into."""
    found = node.meta.get(_REGION)
    return found if isinstance(found, Region) else None


def regions(model: ir.Model) -> list[Region]:
    """All regions of the main graph in the order of their first nodes, with the nodes and borders they have now."""
    members: dict[str, list[ir.Node]] = {}
    kinds: dict[str, str] = {}
    for node in model.graph:
        found = region(node)
        if found is not None:
            members.setdefault(found.id, []).append(node)
            kinds[found.id] = found.kind
    return [_region(kinds[name], name, tuple(nodes)) for name, nodes in members.items()]


def _region(kind: str, name: str, nodes: tuple[ir.Node, ...]) -> Region:
    inside = set(nodes)
    inputs = dict.fromkeys(
        value
        for node in nodes
        for value in node.inputs
        if value is not None and value.producer() not in inside and not constants.is_constant(value)
    )
    outputs = [value for node in nodes for value in node.outputs if _leaves(value, inside)]
    return Region(kind, nodes, tuple(inputs), tuple(outputs), name)


def _leaves(value: ir.Value, inside: Collection[ir.Node]) -> bool:
    return value.is_graph_output() or any(node not in inside for node in value.consumers())


# -- masks -------------------------------------------------------------------------------------------------------


def set_mask(value: ir.Value, info: MaskInfo) -> None:
    """Mark a tensor as a mask or as masked scores."""
    value.meta[_MASK] = info


def mask(value: ir.Value | None) -> MaskInfo | None:
    """The mask in a tensor, if it was recognised."""
    found = None if value is None else value.meta.get(_MASK)
    return found if isinstance(found, MaskInfo) else None


def masked_values(graph: ir.Graph) -> Iterator[tuple[ir.Value, MaskInfo]]:
    """Every marked tensor of a graph: initializers and inputs first, then in the order of the nodes."""
    produced = (value for node in graph for value in node.outputs)
    for value in (*graph.inputs, *graph.initializers.values(), *produced):
        info = mask(value)
        if info is not None:
            yield value, info


def clear(graph: ir.Graph, *, masks: bool = False, regions: bool = False) -> None:
    """Forget annotations, so that recognising again starts from nothing."""
    if regions:
        for node in graph:
            node.meta.pop(_REGION, None)
    if masks:
        for value, _ in list(masked_values(graph)):
            value.meta.pop(_MASK, None)
