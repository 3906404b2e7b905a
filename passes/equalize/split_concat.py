"""split-concat: what a Concat joins keeps scales of its own where a convolution or product reads it.

A skip connection puts tensors of very different size beside each other, and the joined tensor has one scale: the small
one is left with few codes. ``Conv([a, b], [A, B]) = Conv(a, A) + Conv(b, B)``, so the layer is split instead, and both
keep the scale they like (Li et al., "Q-Diffusion: Quantizing Diffusion Models", 2023, section 4.2). Targets that
rescale codes on the way into a Concat (``QConcat``) lose the same: what is lost is lost in its result. The sums cost a
layer and an Add for every part but the first; where the parts are alike nothing is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import numpy as np
import onnx_ir as ir

from qcompiler.errors import UsageError
from qcompiler.ir import constants, patterns
from qcompiler.passes.equalize._layers import channels, why_not_layer
from qcompiler.passes.normalize._rewrite import replace_node
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves

__all__ = ["SplitConcat"]

_READERS: Final = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True, slots=True, eq=False)
class _Joint:
    """A Concat all of whose readers can be split.

    Attributes:
        node: The Concat.
        parts: What it joins.
        sizes: Channels of each part.
        readers: Layers that read it.
    """

    node: ir.Node
    parts: list[ir.Value]
    sizes: list[int]
    readers: list[ir.Node]


@dataclass(frozen=True)
class SplitConcat(Pass):
    """Split the layers behind a Concat whose parts differ in size.

    Attributes:
        when: ``measured`` where calibration samples show that the largest of a part is ``ratio`` times that of another;
            ``always`` everywhere.
        ratio: See ``when``: 4 means that the smallest part loses two bits.
    """

    when: Literal["measured", "always"] = "measured"
    ratio: float = 4.0

    name: ClassVar[str] = "split-concat"
    before: ClassVar[frozenset[Fact]] = frozenset({Fact.QDQ})
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.TYPED, Fact.SORTED, Fact.CANONICAL})
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Apply; see the class."""
        if not self.ratio >= 1:
            raise UsageError(f"ratio is {self.ratio}", where=self.name, hint="a number from 1")
        joints: list[_Joint] = []
        for node in model.graph:
            if patterns.has_type(node, "Concat"):
                found = _joint(node)
                if isinstance(found, _Joint):
                    joints.append(found)
                else:
                    ctx.skip(node, found)
        sizes = self._sizes(model, joints, ctx)
        split = added = 0
        for joint in joints:
            if sizes is not None and (reason := _why_alike(joint, sizes, self.ratio)):
                ctx.skip(joint.node, reason)
                continue
            before = len(model.graph)
            for reader in joint.readers:  # with the last of them goes the Concat
                _split_layer(reader, joint, ctx)
            split, added = split + 1, added + len(model.graph) - before
        ctx.note(f"split the layers behind {split} of {len(joints)} Concat nodes; {added} nodes added")

    def _sizes(self, model: ir.Model, joints: list[_Joint], ctx: Context) -> Mapping[str, float] | None:
        """Largest absolute value of every part; ``None`` where it does not matter."""
        if self.when == "always" or not joints:
            return None
        found: dict[str, float] = {}
        names = {str(part.name): constants.array(part) for joint in joints for part in joint.parts}
        for name, content in names.items():
            if content is not None:
                found[name] = float(np.abs(content).max(initial=0.0))
        if ctx.calibration is not None:
            from qcompiler.calibration import engine, row_weights
            from qcompiler.calibration.minmax import MinMax

            seen = {name: MinMax() for name, content in names.items() if content is None}
            engine.collect(model, ctx.calibration, seen, ctx=ctx, row_weights=row_weights.of(ctx.calibration))
            found |= {name: float(max(-observer.low, observer.high)) for name, observer in seen.items()}
        return found


def _joint(node: ir.Node) -> _Joint | str:
    """The parts and readers of a Concat, or why it cannot be split."""
    result = node.outputs[0]
    uses = list(result.uses())
    rank, shapes = patterns.rank(result), [patterns.static_shape(value) for value in node.inputs]
    if result.is_graph_output():
        return "its result is an output of the model"
    if not uses or rank is None or len(node.inputs) < 2:
        return "nothing reads it" if not uses else "it joins nothing, or its rank is not known"
    axis = patterns.integer(node, "axis", 0) % rank
    sizes = [None if shape is None else shape[axis] for shape in shapes]
    if None in sizes:
        return "the size of a part is not known"
    for use in uses:
        reader = use.node
        if use.idx != 0 or reader.graph is not node.graph or not patterns.has_type(reader, *_READERS):
            return f"{reader.name} ({reader.op_type}) reads it as a whole"
        if reason := why_not_layer(reader):
            return f"{reader.name} behind it: {reason}"
        if channels(reader).axis % rank != axis:
            return f"{reader.name} behind it does not sum over axis {axis}"
        if patterns.has_type(reader, "Conv") and patterns.integer(reader, "group", 1) != 1:
            return f"{reader.name} behind it sums over groups of channels"
    parts = [value for value in node.inputs if value is not None]
    return _Joint(node, parts, [int(size or 0) for size in sizes], [use.node for use in uses])


def _why_alike(joint: _Joint, sizes: Mapping[str, float], ratio: float) -> str:
    """Why the parts need no scales of their own; empty where they do."""
    known = [sizes[str(part.name)] for part in joint.parts if str(part.name) in sizes]
    if len(known) < len(joint.parts):
        return "no calibration sample tells how large its parts are"
    live = [size for size in known if size > 0]
    if len(live) < 2 or max(live) < ratio * min(live):
        listed = ", ".join(f"{size:.3g}" for size in known)
        return f"its parts are alike (largest {listed}): below a ratio of {ratio:g}"
    return ""


def _split_layer(reader: ir.Node, joint: _Joint, ctx: Context) -> None:
    """One layer per part, added up; the last Add takes the layer's place and name, the first layer its bias."""
    edit, output = ctx.edit, reader.outputs[0]
    weight, content = reader.inputs[1], constants.array(reader.inputs[1])
    if weight is None or content is None:
        raise ValueError(f"the weight of {reader.name} is not constant")
    over_rows = patterns.has_type(reader, "MatMul") or (
        patterns.has_type(reader, "Gemm") and not patterns.integer(reader, "transB", 0)
    )
    pieces = np.split(content, np.cumsum(joint.sizes)[:-1], axis=0 if over_rows else 1)
    bias = reader.inputs[2] if len(reader.inputs) > 2 else None
    total: ir.Value | None = None
    for index, (part, piece) in enumerate(zip(joint.node.inputs, pieces, strict=True)):
        inputs = [part, edit.constant(f"{weight.name}_part{index}", np.ascontiguousarray(piece))]
        if index == 0 and bias is not None:
            inputs.append(bias)
        name = f"{reader.name}_part{index}"
        layer = edit.insert(reader.op_type, inputs, before=reader, name=name, output_name=f"{output.name}_part{index}")
        for attribute in reader.attributes.values():
            layer.attributes[attribute.name] = attribute
        product = layer.outputs[0]
        product.shape, product.type = output.shape, output.type
        if total is None:
            total = product
        elif index < len(pieces) - 1:
            partial = edit.insert("Add", [total, product], before=reader, name=f"{name}_sum")
            total = partial.outputs[0]
            total.shape, total.type = output.shape, output.type
        else:
            replace_node(edit, reader, "Add", [total, product])
