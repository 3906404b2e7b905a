"""New names for tensors whose content a transform changes.

A name stands for a content: under the old one, a tensor would be compared with what it was in the float model.
"""

from __future__ import annotations

import onnx_ir as ir

from qcompiler.ir.edit import Edit

__all__ = ["rename"]


def rename(value: ir.Value, suffix: str, edit: Edit) -> None:
    """Let the name end with ``suffix``, once; names of the graph's outputs are public and stay."""
    if not str(value.name).endswith(suffix) and not value.is_graph_output():
        edit.rename(value, f"{value.name}{suffix}")
