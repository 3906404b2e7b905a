"""fuse-norms: a normalisation written in elementary operators becomes one operator, where the target has it.

In parts, every intermediate result (squares, their mean, the root) needs codes of its own, and squares span more
binades than 16 bits have. As one operator only its input and its output have codes.

RMSNormalization exists from opset 23 on, so a model that gets one is raised to it: between 21 and 23 operators only
learned more element types.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir import constants, patterns, regions
from qcompiler.ir.edit import AttributeValue
from qcompiler.passes.normalize._match_norms import Normalisation, normalisation
from qcompiler.passes.normalize._opset import require
from qcompiler.passes.normalize._rewrite import replace_node
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves

__all__ = ["FuseNorms"]

_OPERATORS: Final = {"layer-norm": ("LayerNormalization", 17), "rms-norm": ("RMSNormalization", 23)}
"""Operator and the opset it came with, by kind of region."""

_ANCHORS: Final = ("Sqrt", "Pow")


@dataclass(frozen=True)
class FuseNorms(Pass):
    """Turn recognized layer-norm and rms-norm regions into LayerNormalization and RMSNormalization."""

    name: ClassVar[str] = "fuse-norms"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.CANONICAL, Fact.TYPED, Fact.SORTED})
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Apply; see the class."""
        for region in regions.regions(model):
            if region.kind not in _OPERATORS or len(region.nodes) == 1:
                continue
            op_type, opset = _OPERATORS[region.kind]
            if ctx.target is None or op_type not in ctx.target.operators or ctx.target.opset < opset:
                continue
            reason = _fuse(region, op_type, ctx)
            if reason is not None:
                ctx.skip(region.nodes[-1], f"stays in parts: {reason}")
            else:
                require(model, opset, ctx.edit)


def _fuse(region: regions.Region, op_type: str, ctx: Context) -> str | None:
    """Write the region as one operator; why not where it cannot be."""
    found = next((norm for node in region.nodes if (norm := _matched(node)) is not None), None)
    if found is None or found.kind != region.kind:
        return "an earlier pass changed it"
    last, shift = _last(found)
    inside = {node for node in found.nodes if node is not found.result.producer()} | {last}
    for node in inside - {last}:
        for value in node.outputs:
            if value.is_graph_output() or any(reader not in inside for reader in value.consumers()):
                return f"its inner result '{value.name}' is used elsewhere"
    if found.source.dtype is not ir.DataType.FLOAT:
        return "it is not computed in float32"
    gamma = _per_row(found.factor, found, 1.0)
    beta = None if shift is None else _per_row(shift, found, 0.0)
    if gamma is None or (shift is not None and beta is None):
        return "the shape of what it normalises, or of its factor, is not known"
    operands = [found.source, ctx.edit.constant(f"{last.name}_factor", gamma)]
    if beta is not None:
        operands.append(ctx.edit.constant(f"{last.name}_shift", beta))
    attributes: dict[str, AttributeValue] = {"axis": -len(found.axes), "epsilon": found.epsilon}
    replace_node(ctx.edit, last, op_type, operands, attributes)
    return None


def _matched(node: ir.Node) -> Normalisation | None:
    return normalisation(node) if patterns.has_type(node, *_ANCHORS) else None


def _last(found: Normalisation) -> tuple[ir.Node, ir.Value | None]:
    """The node that is replaced, and the shift that goes into the operator: RMSNormalization takes none."""
    last = found.result.producer()
    if found.kind == "rms-norm" and found.shift is not None and last is not None:
        before = patterns.other_operand(last, found.shift)
        last = before.producer() if before is not None else None
    if last is None:
        raise ValueError("a normalisation ends with a node")
    return last, None if found.kind == "rms-norm" else found.shift


def _per_row(value: ir.Value | None, found: Normalisation, default: float) -> NDArray[np.float32] | None:
    """A factor or shift in the shape of a row; ``None`` where a shape is not known or it would widen the result."""
    content = np.full((), default, np.float32) if value is None else constants.array(value)
    shape = patterns.static_shape(found.source)
    if content is None:
        return None
    dimensions = len(found.axes)
    if shape is None or None in shape[-dimensions:]:
        # without the shape only a factor that has every size tells it
        return content if content.ndim == dimensions and 1 not in content.shape else None
    row = tuple(int(size) for size in shape[-dimensions:] if size is not None)
    if content.ndim > len(shape):
        return None
    trailing = content.reshape(content.shape[-dimensions:]) if content.ndim > dimensions else content
    return np.ascontiguousarray(np.broadcast_to(trailing, row))
