"""Marks on nodes that follow another format request than the rest of the model: how mixed precision is written down.

``choose-formats`` marks, ``assign-formats`` reads. What a mark asks for is decided by the operator's rule, as any
request is: a node that cannot follow keeps its least-loss legal format, and says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import onnx_ir as ir

from qcompiler.target.formats import FormatRequest

__all__ = ["ALLOCATION", "followed", "mark_format", "marked"]

ALLOCATION: Final = "qcompiler.allocation"
"""Key of the record of an allocation (``analysis/allocation/record.py``) in the meta of a model."""

_FORMAT: Final = "qcompiler.format"


def mark_format(node: ir.Node, request: FormatRequest | None) -> None:
    """Let a node follow ``request``; ``None`` lets it follow the model's again."""
    if request is None:
        node.meta.pop(_FORMAT, None)
    else:
        node.meta[_FORMAT] = request


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
