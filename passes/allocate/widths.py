"""Marks on nodes that read narrow activations although the profile would keep them wide."""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

__all__ = ["is_narrow", "mark_narrow"]

_NARROW: Final = "qcompiler.narrow"


def mark_narrow(node: ir.Node) -> None:
    """Let formats be assigned as if the profile did not want this node wide: its loss was measured."""
    node.meta[_NARROW] = True


def is_narrow(node: ir.Node) -> bool:
    """Whether the node was measured to lose nothing worth 16 bits."""
    return bool(node.meta.get(_NARROW))
