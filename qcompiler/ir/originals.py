"""What constants were before a pass fitted them to their codes, and the float model they belong to.

Rounding writes grid values over a weight, and a correction writes over a bias; whatever measures an error afterwards
must measure it against the model that the user gave. The pass that fits keeps what it replaces (``keep``), the one that
measures asks for the model as it was (``restored``). Tensors are kept by reference: weights on disk stay there.
"""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from qcompiler.ir.copies import shared_copy

__all__ = ["is_kept", "keep", "original", "restored"]

_KEY: Final = "qcompiler.original"


def keep(value: ir.Value, tensor: ir.TensorProtocol | None = None) -> None:
    """Remember the content of a constant; what was kept first stays.

    Args:
        value: An initializer, before its content is replaced.
        tensor: What stands for it in the float model, where that is not its content now: zeros for a bias that the
            float model does not have.
    """
    value.meta.setdefault(_KEY, value.const_value if tensor is None else tensor)


def is_kept(value: ir.Value) -> bool:
    """Whether the content of ``value`` was replaced by a fitted one."""
    return _KEY in value.meta


def original(value: ir.Value) -> ir.TensorProtocol | None:
    """The content of a constant in the float model."""
    tensor: ir.TensorProtocol | None = value.meta.get(_KEY, value.const_value)
    return tensor


def restored(model: ir.Model) -> ir.Model:
    """The float model: ``model`` itself where nothing was fitted, else a copy with every original in its place."""
    if not any(is_kept(value) for graph in model.graphs() for value in graph.initializers.values()):
        return model
    copy = shared_copy(model)
    for graph in copy.graphs():
        for value in graph.initializers.values():
            value.const_value = original(value)
    return copy
