"""What a rotation does to the constants around a residual stream, and around the values of attention heads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir import constants
from qcompiler.ir.edit import Edit
from qcompiler.passes.equalize._channels import Channels, Reader, Source
from qcompiler.passes.equalize._layout import Labels
from qcompiler.passes.equalize._producers import Linear, change
from qcompiler.passes.equalize._residual import Residual
from qcompiler.passes.normalize._rewrite import own_constant

__all__ = ["Head", "heads", "turn_head", "turn_stream", "why_not_fold"]

_Floats = NDArray[np.float64]
_SINGLE = ("Relu", "LeakyRelu", "PRelu", "Mul", "Div", "Add", "Sub")
_NEXT_TO_NOTHING = 1e-3
"""Share of a norm's largest factor below which its shift cannot be divided by it."""


def why_not_fold(found: Residual) -> str:
    """Why factors and shifts of the norms cannot move into the products behind; empty where they can."""
    for node, products in found.norms.items():
        beta = _vector(node, 2)
        gamma = np.abs(_vector(node, 1, 1.0, found.size))
        taken = all(layer.bias_node is not None for layer in products)
        if beta.any() and not taken and gamma.min() < _NEXT_TO_NOTHING * gamma.max():
            return f"{node.name} has channels whose factor is almost 0, and a product behind it has no bias"
    return ""


def _vector(node: ir.Node, index: int, default: float = 0.0, size: int = 0) -> _Floats:
    value = node.inputs[index] if index < len(node.inputs) else None
    content = constants.array(value)
    return np.full(size, default) if content is None else content.astype(np.float64)


def turn_stream(found: Residual, turn: _Floats, edit: Edit) -> None:
    """Let the stream hold ``x Q`` where it held ``x``.

    What writes it is multiplied by ``Q`` from the right. A norm's factor ``gamma`` and shift ``beta`` act on channels,
    so they go into the products behind, ``W`` becomes ``Q^T diag(gamma) W`` and their biases gain ``beta W``; where one
    has no bias, the norm keeps the shift ``(beta / gamma) Q``.
    """
    for layer in found.writers:
        layer.turn(None, turn, edit, bias=layer.node.op_type == "Gemm")  # the Add behind a MatMul is in ``constants``
    for node in found.convolutions:
        for index in range(1, len(node.inputs)):
            if node.inputs[index] is not None:
                change(own_constant(edit, node, index), lambda data: np.tensordot(turn, data, ((0,), (0,))), edit)
    for node in found.tables:
        change(own_constant(edit, node, 0), lambda data: data @ turn, edit)
    for node, index, axis in found.constants:
        _turn_constant(own_constant(edit, node, index), axis, turn, edit)
    for layer in found.readers:
        layer.turn(turn.T, None, edit)
    for node, products in found.norms.items():
        _turn_norm(node, products, turn, edit)


def _turn_constant(value: ir.Value, axis: int, turn: _Floats, edit: Edit) -> None:
    change(value, lambda data: np.moveaxis(np.moveaxis(data, axis, -1) @ turn, -1, axis), edit)


def _turn_norm(node: ir.Node, products: list[Linear], turn: _Floats, edit: Edit) -> None:
    gamma = _vector(node, 1)
    beta = _vector(node, 2, size=gamma.size)
    rest = np.zeros(gamma.size)
    if beta.any():
        if all(layer.bias_node is not None for layer in products):
            for layer in products:
                layer.add_to_bias(beta @ layer.matrix(), edit)
        else:
            rest = (beta / gamma) @ turn
    for layer in products:
        layer.turn(turn.T * gamma, None, edit)
    factor = node.inputs[1]
    if factor is not None:
        change(factor, lambda data: np.ones_like(data), edit)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        change(node.inputs[2], lambda _: rest, edit)


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """Channels of the values of one attention head.

    Attributes:
        labels: Their labels, in order.
        source: The product that makes them.
        readers: The projections that read what attention gives.
        product: The MatMul that averages them.
        index: Which head of that product it is.
    """

    labels: Labels
    source: Source
    readers: tuple[Reader, ...]
    product: ir.Node
    index: int


def heads(found: Channels) -> Iterator[Head | tuple[ir.Node, str]]:
    """Every head whose values can be turned, or the product and why not."""
    done: set[int] = set()
    passed: dict[int, list[ir.Value]] = {}
    for value, layout in found.layouts.items():
        for label in layout.all().tolist():
            passed.setdefault(label, []).append(value)
    for node, layout in found.averages:
        rank = len(layout.parts)
        rows = layout.labels(*range(rank - 2), -1)
        for index, labels in enumerate(rows.reshape(-1, rows.shape[-1])):
            if int(labels[0]) in done:
                continue
            done.add(int(labels[0]))
            head = _head(found, passed, node, index, labels)
            if isinstance(head, str):
                yield node, head
                break
            yield head


def _head(
    found: Channels, passed: Mapping[int, Sequence[ir.Value]], node: ir.Node, index: int, labels: Labels
) -> Head | str:
    """The head, or why it is not turned; ``passed`` has the tensors in which each label occurs."""
    stuck = next((found.stuck[label] for label in labels.tolist() if label in found.stuck), "")
    if stuck:
        return f"its values are not turned: {stuck}"
    source = next((item for item in found.sources if np.isin(labels, item.labels).all()), None)
    if source is None or not isinstance(source.maker, Linear):
        return "its values are not turned: no linear layer makes them"
    for value in dict.fromkeys(value for label in labels.tolist() for value in passed.get(label, ())):
        other = next((use.node for use in value.uses() if use.node.op_type in _SINGLE), None)
        if other is not None and other is not source.maker.bias_node:
            return f"its values are not turned: {other.name} ({other.op_type}) acts on single channels"
    readers = tuple(reader for reader in found.readers if np.isin(reader.labels, labels).any())
    if not readers or labels.size < 2:
        return "its values are not turned: no linear layer reads what it gives"
    return Head(labels, source, readers, node, index)


def turn_head(head: Head, turn: _Floats, edit: Edit) -> None:
    """Let the values of a head be ``v R``, and rows of the projection ``R^T W``."""
    maker = head.source.maker
    if not isinstance(maker, Linear):
        return
    after = np.eye(head.source.count)
    own = head.labels - head.source.first
    after[np.ix_(own, own)] = turn
    maker.turn(None, after, edit)
    for reader in head.readers:
        before = np.eye(reader.labels.size)
        places = [np.flatnonzero(reader.labels == label) for label in head.labels.tolist()]
        for copy in zip(*(place.tolist() for place in places), strict=True):
            before[np.ix_(copy, copy)] = turn.T
        reader.layer.turn(before, None, edit)
