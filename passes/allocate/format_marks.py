"""Marks on nodes that follow another format request than the rest of the model: how mixed precision is written down.

``choose-formats`` marks, ``assign-formats`` reads. What a mark asks for is decided by the operator's rule, as any
request is: a node that cannot follow keeps its least-loss legal format, and says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import onnx_ir as ir

from qcompiler.target.formats import FormatRequest

__all__ = ["ALLOCATION", "followed", "kept_table", "mark_format", "marked"]

ALLOCATION: Final = "qcompiler.allocation"
"""Key of the record of an allocation (``analysis/allocation/record.py``) in the meta of a model."""

_FORMAT: Final = "qcompiler.format"


def mark_format(node: ir.Node, request: FormatRequest | None) -> None:
    """Let a node follow ``request``; ``None`` lets it follow the model's again."""
    if request is None:
        node.meta.pop(_FORMAT, None)
    else:
        node.meta[_FORMAT] = request


def kept_table(node: ir.Node, request: FormatRequest, kept: int) -> str:
    """What to say of a look-up whose table keeps more bits than the model's format has; empty where it does not.

    Args:
        node: The look-up.
        request: The model's format.
        kept: Bits of the table.
    """
    if _FORMAT in node.meta or kept <= request.weight_bits:
        return ""
    return (
        f"{node.name}: the table that it looks up keeps {kept} bits; --candidates, or a plan that names it in its "
        "'formats', gives it fewer"
    )


def followed(node: ir.Node, request: FormatRequest) -> FormatRequest:
    """The request that a node follows: its own, else the model's."""
    own: FormatRequest | None = node.meta.get(_FORMAT)
    return request if own is None else own


def marked(graph: ir.Graph) -> Iterator[tuple[ir.Node, FormatRequest]]:
    """Nodes that follow a request of their own, in graph order."""
    for node in graph:
        own: FormatRequest | None = node.meta.get(_FORMAT)
        if own is not None:
            yield node, own
