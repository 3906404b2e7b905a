"""fuse-clamp: a Clip, Relu, Min or Max of codes becomes part of the operator that wrote them.

Every operator of ours clips its result already; a clamp behind it only narrows the bounds:
``clip(clip(v, l, h), least, most) = clip(v, clip(l, least, most), clip(h, least, most))``, exactly. A clamp of
codes that lie within its bounds whatever happens vanishes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import onnx_ir as ir

from qcompiler.analysis.code_ranges import CodeRanges
from qcompiler.ir.constants import scalar
from qcompiler.ir.operators import has_type
from qcompiler.ir.uses import only_use
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves
from qcompiler.quant.annotations import annotate, annotation
from qcompiler.quant.functions.definition import DOMAIN

__all__ = ["FuseClamp"]

_CLAMPS: Final = ("Relu", "Clip", "Min", "Max")


@dataclass(frozen=True)
class FuseClamp(Pass):
    """Merge a clamp of codes into the bounds of the integer operator before it."""

    name: ClassVar[str] = "fuse-clamp"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.LOWERED})
    preserves: ClassVar[Preserves] = Preserves.EXACT

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Visit every clamp in graph order: a chain of them merges one by one."""
        for node in list(model.graph):
            if not has_type(node, *_CLAMPS) or (bounds := _bounds(node)) is None:
                continue
            if _changes_nothing(*bounds):
                _replace(node, bounds[0], ctx)
            else:
                _fuse(node, *bounds, ctx)


def _changes_nothing(source: ir.Value, least: int | None, most: int | None) -> bool:
    """Whether all codes that can come lie within the bounds: what was clamped before it was moved."""
    held = CodeRanges().of(source)  # anew, because what was fused before narrowed ranges
    return held is not None and (least is None or least <= held[0]) and (most is None or held[1] <= most)


def _bounds(node: ir.Node) -> tuple[ir.Value, int | None, int | None] | None:
    """What a node clamps, and its least and greatest result; ``None`` where it is no clamp by constants."""
    source = node.inputs[0]
    if has_type(node, "Relu"):
        return None if source is None else (source, 0, None)
    if has_type(node, "Clip"):
        given = [*node.inputs[1:], None, None][:2]
        ends = [None if item is None else scalar(item) for item in given]
        unknown = any(item is not None and end is None for item, end in zip(given, ends, strict=True))
        least, most = (None if end is None else int(end) for end in ends)
        return None if source is None or unknown else (source, least, most)
    if len(node.inputs) != 2:
        return None
    for value, other in (node.inputs, node.inputs[::-1]):
        end = scalar(other)
        if value is not None and end is not None and scalar(value) is None and not _widens(value, other):
            return (value, None, int(end)) if has_type(node, "Min") else (value, int(end), None)
    return None


def _widens(value: ir.Value, other: ir.Value | None) -> bool:
    """Whether a constant of one number has more dimensions than what it is compared with."""
    dimensions = 0 if other is None or other.shape is None else len(other.shape)
    return dimensions > 0 and (value.shape is None or dimensions > len(value.shape))


def _fuse(node: ir.Node, source: ir.Value, least: int | None, most: int | None, ctx: Context) -> None:
    writer = source.producer()
    if writer is None or writer.domain != DOMAIN or not {"low", "high"} <= set(writer.attributes):
        return
    if only_use(source) is None or source.is_graph_output():
        ctx.skip(node, f"other readers want the codes of {writer.name} without the clamp")
        return
    for name in ("low", "high"):
        code = writer.attributes[name].as_int()
        raised = code if least is None else max(code, least)
        ctx.edit.set_attribute(writer, name, raised if most is None else min(raised, most))
    _replace(node, source, ctx)


def _replace(node: ir.Node, source: ir.Value, ctx: Context) -> None:
    """Let readers of a clamp read what it clamps."""
    if (meaning := annotation(node.outputs[0])) is not None:
        annotate(source, meaning)
    ctx.edit.replace_uses(node.outputs[0], source)
    ctx.edit.remove_unused([node.outputs[0]])
