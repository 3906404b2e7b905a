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

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.errors import DataError
from qcompiler.ir.edit import Edit
from qcompiler.passes.equalize import _channels, _orthogonal
from qcompiler.passes.equalize._producers import linear
from qcompiler.passes.equalize._residual import NORMS, Residual, follow
from qcompiler.passes.equalize._turning import Head, heads, turn_head, turn_stream, why_not_fold
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves

__all__ = ["Rotate"]

_SUFFIX: Final = "_rotated"
_DONE: Final = "qcompiler.rotated"
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
        seen: set[ir.Node] = set()
        found: list[Residual] = []
        for node in model.graph:
            if node.op_type not in NORMS or node.domain or node in seen:
                continue
            stream = follow(node)
            if isinstance(stream, Residual):
                seen |= set(stream.norms)
                turned |= {layer.node for products in stream.norms.values() for layer in products}
                turned |= {layer.node for layer in stream.readers}
                if any(item.meta.get(_DONE) for item in stream.norms):
                    continue
                stream_reason = why_not_fold(stream)
                if not stream_reason:
                    found.append(stream)
                    continue
                stream = stream_reason
            ctx.skip(node, f"its stream is not turned: {stream}")
        norms = [node for stream in found for node in stream.norms]
        moments = self._moments(model, [str(node.inputs[0].name) for node in norms if node.inputs[0] is not None], ctx)
        for stream in found:
            names = [str(node.inputs[0].name) for node in stream.norms if node.inputs[0] is not None]
            turn = self._matrix(stream.size, [moments[name][0] for name in names if name in moments])
            turn_stream(stream, _orthogonal.keeping_ones(turn) if stream.centred else turn, ctx.edit)
            for node in stream.norms:
                node.meta[_DONE] = True
            _rename([*stream.axes, *(node.outputs[0] for node in stream.norms)], ctx.edit)
        if found:
            sizes = ", ".join(str(stream.size) for stream in found)
            ctx.note(f"turned {len(found)} residual streams of {sizes} channels ({self.kind})")

    def _heads(self, model: ir.Model, ctx: Context, turned: set[ir.Node]) -> None:
        channels = _channels.find(model.graph)
        found: list[Head] = []
        for head in heads(channels):
            if not isinstance(head, Head):
                ctx.skip(*head)
                continue
            turned |= {reader.layer.node for reader in head.readers}
            if not head.product.meta.get(_DONE):
                found.append(head)
        names = dict.fromkeys(str(head.product.inputs[1].name) for head in found if head.product.inputs[1])
        moments = self._moments(model, list(names), ctx)
        for head in found:
            seen = moments.get(str(head.product.inputs[1].name)) if head.product.inputs[1] else None
            turn = self._matrix(head.labels.size, [] if seen is None else [seen[head.index % len(seen)]])
            turn_head(head, turn, ctx.edit)
            head.product.meta[_DONE] = True
        labels = np.unique(np.concatenate([head.labels for head in found])) if found else np.zeros(0, np.int64)
        _rename((value for value, at in channels.layouts.items() if np.isin(at.all(), labels).any()), ctx.edit)
        if found:
            ctx.note(f"turned the values of {len(found)} attention heads ({self.kind})")

    def _online(self, model: ir.Model, ctx: Context, turned: set[ir.Node]) -> None:
        """Add products with Hadamard matrices before linear layers that are not turned otherwise."""
        work = count = 0
        for node in list(model.graph):
            layer = linear(node) if node.op_type in ("MatMul", "Gemm") and not node.domain else ""
            source = node.inputs[0] if node.inputs else None
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

    def _matrix(self, size: int, moments: list[_Floats]) -> _Floats:
        if self.kind == "hadamard":
            return _orthogonal.random_hadamard(size, self.seed)
        vectors = _orthogonal.principal(sum(moments, np.zeros((size, size))))
        return vectors if self.kind == "klt" else vectors @ _orthogonal.random_hadamard(size, self.seed)

    def _moments(self, model: ir.Model, names: list[str], ctx: Context) -> dict[str, list[_Floats]]:
        """Second moments of channels, of one matrix per head or of all rows, each with trace 1."""
        if self.kind == "hadamard" or not names:
            return {}
        if ctx.calibration is None or not len(ctx.calibration):
            hint = "give --calibration DATA, or take kind=hadamard"
            raise DataError(f"rotate{{kind={self.kind}}} needs calibration samples", hint=hint)
        from qcompiler.calibration import engine, row_weights

        few = ctx.calibration.subset(range(min(self.samples, len(ctx.calibration))))
        weights = row_weights.of(few, model.graph)
        total: dict[str, _Floats] = {}
        for number, (feed, tensors) in enumerate(engine.stream(model, few, names, threads=ctx.jobs)):
            rows = None if weights is None else weights.of_feed(feed, number)
            for name in names:
                array = tensors[name].astype(np.float64)
                mask = None if rows is None else rows.of(name, array.shape)
                array = array if mask is None else array * np.sqrt(mask)
                stacked = array[None] if array.ndim < 4 else np.moveaxis(array, 1, 0)
                flat = stacked.reshape(stacked.shape[0], -1, stacked.shape[-1])
                total[name] = total.get(name, 0.0) + np.swapaxes(flat, 1, 2) @ flat
            tensors.clear()
        return {name: [item / max(float(np.trace(item)), 1e-30) for item in sums] for name, sums in total.items()}


def _rename(values: Iterable[ir.Value], edit: Edit) -> None:
    """A name stands for a content: under the old one, a tensor would be compared with what it was."""
    for value in values:
        if not str(value.name).endswith(_SUFFIX) and not value.is_graph_output():
            edit.rename(value, f"{value.name}{_SUFFIX}")
