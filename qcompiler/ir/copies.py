"""Copies of a model to try things on."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["shared_copy"]


def shared_copy(model: ir.Model) -> ir.Model:
    """A copy of the graph, quantization state included, that shares its weights with ``model``.

    Weights that lie in mapped files stay there: what the model knows of those files goes along.
    """
    copy = model.clone()
    copy.meta.update(model.meta)
    return copy
