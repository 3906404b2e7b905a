"""A materialised copy of a model that is still being decided on, to be run as a simulation."""

from __future__ import annotations

import onnx_ir as ir

from qcompiler.ir.copies import shared_copy
from qcompiler.ir.edit import Edit
from qcompiler.passes.finalize.finalize import Finalize
from qcompiler.passes.place.place_qdq import place
from qcompiler.pipeline.base import Context

__all__ = ["materialized"]


def materialized(model: ir.Model) -> ir.Model:
    """The model with its decisions turned into Q/DQ nodes; weights are shared with ``model``, which stays as it is."""
    copy = shared_copy(model)
    ctx = Context(Edit(copy))
    place(copy, ctx.edit)
    Finalize().run(copy, ctx)  # some element types need a later operator set
    return copy
