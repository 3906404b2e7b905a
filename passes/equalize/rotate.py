"""rotate: turn the channels of a residual stream and of attention values by orthogonal matrices, folded into weights.

``(x Q) (Q^T W) = x W``: a stream that is turned where it is written and turned back where it is read computes the same,
and RMSNormalization does not notice, because ``|x Q| = |x|``. A Hadamard matrix with random signs spreads what a few
loud channels hold over all of them, so that blocks of weights and tensors of activations have shorter ranges (QuaRot,
arXiv 2404.00456, section 4). LayerNormalization takes the mean out as well; with ``Q 1 = 1`` it does not notice either,
and nothing has to be folded into what writes the stream (``_orthogonal.keeping_ones``). Eigenvectors of the second
moments (Karhunen-Loeve, SliceGPT, arXiv 2401.15024) gather what is there in few channels, which alone suits no common
scale; with a Hadamard matrix behind them all channels get the same variance (MambaQuant, arXiv 2501.13484, section 4).

Values of attention are turned head by head between their product and the output projection.

What lies between two activations cannot be turned by changing constants. ``online`` adds a product with a Hadamard
matrix before a linear layer there, whose weight takes the inverse: it costs nodes and work, which a warning counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.errors import DataError
from qcompiler.ir import constants, regions
from qcompiler.passes.equalize import _channel_walk, _orthogonal
from qcompiler.passes.equalize._moments import moments
from qcompiler.passes.equalize._names import rename
from qcompiler.passes.equalize._producers import linear
from qcompiler.passes.equalize._residual import NORMS, Residual, follow
from qcompiler.passes.equalize._turning import Head, heads, turn_head, turn_stream, why_not_fold
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves

__all__ = ["Rotate"]

_SUFFIX: Final = "_rotated"
_DONE: Final = "qcompiler.rotated"
_IN_PARTS: Final = "its stream is not turned: it is written in parts (fuse-norms joins them where the target has it)"
_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rotate(Pass):
    """Turn residual streams and attention values.

    Attributes:
        kind: Which matrix; those with ``klt`` need calibration samples.
        stream: Whether residual streams are turned.
        heads: Whether values of attention are turned.
        online: Whether products with a Hadamard matrix are added before linear layers that nothing else can reach.
        seed: Of the random signs.
        samples: Calibration samples for second moments.
    """

    kind: Literal["hadamard", "klt", "klt-hadamard"] = "hadamard"
    stream: bool = True
    heads: bool = True
    online: bool = False
    seed: int = 0
    samples: int = 16

    name: ClassVar[str] = "rotate"
    before: ClassVar[frozenset[Fact]] = frozenset({Fact.QDQ})
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.TYPED, Fact.SORTED, Fact.CANONICAL})
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Apply; see the module."""
        turned: set[ir.Node] = set()
        if self.stream:
            self._streams(model, ctx, turned)
        if self.heads:
            self._heads(model, ctx, turned)
        if self.online:
            self._online(model, ctx, turned)

    def _streams(self, model: ir.Model, ctx: Context, turned: set[ir.Node]) -> None:
        found = _free_streams(model, ctx, turned)
        read = [[str(node.inputs[0].name) for node in stream.norms if node.inputs[0] is not None] for stream in found]
        for stream, moment in zip(found, self._moments(model, read, ctx, heads=False), strict=True):
            turn = self._matrix(stream.size, None if moment is None else moment[0])
            turn_stream(stream, _orthogonal.keeping_ones(turn) if stream.centred else turn, ctx.edit)
            for node in stream.norms:
                node.meta[_DONE] = True
            for value in (*stream.axes, *(node.outputs[0] for node in stream.norms)):
                rename(value, _SUFFIX, ctx.edit)
        if found:
            sizes = ", ".join(str(stream.size) for stream in found)
            ctx.note(f"turned {len(found)} residual streams of {sizes} channels ({self.kind})")

    def _heads(self, model: ir.Model, ctx: Context, turned: set[ir.Node]) -> None:
        channels = _channel_walk.find(model.graph)
        found: list[Head] = []
        for head in heads(channels):
            if not isinstance(head, Head):
                ctx.skip(*head)
                continue
            turned |= {reader.layer.node for reader in head.readers}
            if not head.product.meta.get(_DONE):
                found.append(head)
        products = list(dict.fromkeys(head.product for head in found))
        read = [[str(product.inputs[1].name)] for product in products if product.inputs[1] is not None]
        seen = dict(zip(products, self._moments(model, read, ctx, heads=True), strict=True))
        for head in found:
            moment = seen[head.product]
            turn = self._matrix(head.labels.size, None if moment is None else moment[head.index % len(moment)])
            turn_head(head, turn, ctx.edit)
            head.product.meta[_DONE] = True
        labels = np.unique(np.concatenate([head.labels for head in found])) if found else np.zeros(0, np.int64)
        for value, layout in channels.layouts.items():
            if np.isin(layout.all(), labels).any():
                rename(value, _SUFFIX, ctx.edit)
        if found:
            ctx.note(f"turned the values of {len(found)} attention heads ({self.kind})")

    def _online(self, model: ir.Model, ctx: Context, turned: set[ir.Node]) -> None:
        """Add products with Hadamard matrices before linear layers that are not turned otherwise."""
        work = count = 0
        for node in list(model.graph):
            layer = linear(node) if node.op_type in ("MatMul", "Gemm") and not node.domain else ""
            source = node.inputs[0] if node.inputs else None
            if isinstance(layer, str) and layer and constants.is_constant(node.inputs[1]):
                ctx.skip(node, f"no product is added before it: {layer}")
            if isinstance(layer, str) or node in turned or node.meta.get(_DONE) or source is None:
                continue
            size = layer.size[0]
            turn = _orthogonal.random_hadamard(size, self.seed)
            layer.turn(turn.T, None, ctx.edit)
            matrix = ctx.edit.constant(f"{node.name}_rotation", turn.astype(np.float32))
            added = ctx.edit.insert("MatMul", [source, matrix], before=node, name=f"{node.name}_rotate")
            added.outputs[0].shape, added.outputs[0].type = source.shape, source.type
            ctx.edit.set_input(node, 0, added.outputs[0])
            added.meta[_DONE] = node.meta[_DONE] = True
            count, work = count + 1, work + size * size
        if count:
            ctx.warn(f"added {count} products with Hadamard matrices: {work} multiply-accumulates for a row of each")

    def _matrix(self, size: int, moment: _Floats | None) -> _Floats:
        if moment is None:
            return _orthogonal.random_hadamard(size, self.seed)
        vectors = _orthogonal.principal(moment)
        return vectors if self.kind == "klt" else vectors @ _orthogonal.random_hadamard(size, self.seed)

    def _moments(
        self, model: ir.Model, groups: list[list[str]], ctx: Context, *, heads: bool
    ) -> Sequence[_Floats | None]:
        """Second moments of each group of tensors (``_moments``); ``None`` where the matrix does not ask for them."""
        if self.kind == "hadamard" or not groups:
            return [None] * len(groups)
        if ctx.calibration is None or not len(ctx.calibration):
            hint = "give --calibration DATA, or take kind=hadamard"
            raise DataError(f"rotate{{kind={self.kind}}} needs calibration samples", hint=hint)
        few = ctx.calibration.subset(range(min(self.samples, len(ctx.calibration))))
        return moments(model, groups, few, ctx, heads=heads)


def _free_streams(model: ir.Model, ctx: Context, turned: set[ir.Node]) -> list[Residual]:
    """Streams that can be turned and are not yet; the layers that read any join ``turned``."""
    for region in regions.regions(model):
        if region.kind in ("layer-norm", "rms-norm") and len(region.nodes) > 1:
            ctx.skip(region.nodes[-1], _IN_PARTS)
    seen: set[ir.Node] = set()
    found: list[Residual] = []
    for node in model.graph:
        if node.op_type not in NORMS or node.domain or node in seen:
            continue
        stream = follow(node)
        reason = stream if isinstance(stream, str) else why_not_fold(stream)
        if isinstance(stream, Residual):
            seen |= set(stream.norms)
            turned |= {layer.node for products in stream.norms.values() for layer in products}
            turned |= {layer.node for layer in stream.readers}
            if any(item.meta.get(_DONE) for item in stream.norms):
                continue
            if not reason:
                found.append(stream)
                continue
        ctx.skip(node, f"its stream is not turned: {reason}")
    return found
