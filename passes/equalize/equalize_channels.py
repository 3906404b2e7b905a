"""equalize-channels: move factors between consecutive layers, so that one scale per weight tensor suits all channels.

Where the weights of a layer share one scale, the channel with the largest weight decides for all. A factor per channel
can move through what lies between layers: those before are divided by it, those behind multiplied, and the model
computes what it did. See ``_balance`` for the factors and ``_scaling`` for what lets them pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.errors import UsageError
from qcompiler.ir import constants, patterns
from qcompiler.ir.dataflow import ties
from qcompiler.passes.equalize._apply import APPLIED, divide
from qcompiler.passes.equalize._balance import Side, Stream, balance
from qcompiler.passes.equalize._labels import Labels, Names
from qcompiler.passes.equalize._layers import LAYERS, peaks
from qcompiler.passes.equalize._scaling import Scaling, analyse
from qcompiler.passes.equalize._upper_bounds import why_no_bounds
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves
from qcompiler.target.rules import rule_for
from qcompiler.target.schema import Granularity, Target

__all__ = ["EqualizeChannels"]

_NEARLY_ONE = 1.05
"""A stream whose factors all lie this close to 1 is balanced: nothing is changed."""


@dataclass(frozen=True)
class EqualizeChannels(Pass):
    """Equalize weights across channels of Conv, ConvTranspose, Gemm and MatMul chains.

    ``Clip(x, 0, b)`` between two layers becomes ``Min(Relu(x), bounds)`` with a bound per channel, where the target
    absorbs Min behind the first layer. A pair whose channels are alike already is left as it is.

    A factor below 1 makes a channel of the activation larger, and the activation has one scale too. By default none
    grows: only channels that stand out are divided. Measured on edge-npu-per-tensor (weights by mse, 128 samples,
    single runs), KL to the float model without this pass, then with ``growth`` 1, 2 and without limit:
    mobilenetv1_025 1.54, 0.064, 0.068, 0.154; dscnn_kws 0.0033, 0.0020, 0.0029, 0.0033; resnet20_cifar10 0.0048,
    0.0050, 0.0045, 0.0045.

    Attributes:
        when: ``per-tensor`` only where the target has one scale for a whole weight; ``always``.
        growth: How much larger a channel of an activation may become at most, ``inf`` for no limit.
        residual: Whether channels are followed through sums of branches, which ties all layers of a residual stream.
            Off, because one factor for many layers suits none of them well: resnet20_cifar10 on edge-npu-per-tensor (64
            samples, KL, ``growth`` 1 and 2) 0.0048 and 0.0044 without, 0.0051 and 0.0062 with it.
    """

    when: Literal["per-tensor", "always"] = "per-tensor"
    growth: float = 1.0
    residual: bool = False

    name: ClassVar[str] = "equalize-channels"
    before: ClassVar[frozenset[Fact]] = frozenset({Fact.QDQ})
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.TYPED, Fact.SORTED, Fact.CANONICAL})
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Apply; see the class."""
        if not self.growth > 0:
            raise UsageError(f"growth is {self.growth}", where=self.name, hint="a factor above 0, usually 1 or more")
        layers = [node for node in model.graph if patterns.has_type(node, *LAYERS, "MatMul")]
        shared = {node for node in layers if _one_scale(node, ctx.target)}
        if self.when == "per-tensor" and not shared:
            ctx.note("nothing to equalize: no weight has to share one scale among its channels")
            return

        def why_not_bound(node: ir.Node) -> str:
            return why_no_bounds(node, ctx.target)

        found = analyse(model.graph, residual=self.residual, why_not_bound=why_not_bound)
        _say_where_chains_break(found, ctx)
        groups = [group for group in _groups(found) if self.when == "always" or _touches(group, shared)]
        if not groups:
            return
        factors: dict[int, float] = {}
        changed = 0
        for group, values in zip(groups, self._factors(groups, found), strict=True):
            if max(values.max(), 1 / values.min()) > _NEARLY_ONE:
                factors |= dict(zip(group.roots, values.tolist(), strict=True))
                changed += 1
        divide(found, factors, ctx.edit)
        ctx.note(f"equalized the channels of {changed} of {len(groups)} streams between layers")

    def _factors(self, groups: list[_Group], found: Scaling) -> list[NDArray[np.float64]]:
        members = list(dict.fromkeys(node for group in groups for node in (*group.makers, *group.readers)))
        order = {node: index for index, node in enumerate(members)}
        streams = []
        for group in groups:
            places = {root: index for index, root in enumerate(group.roots)}

            def sides(nodes: list[ir.Node], names: dict[ir.Node, Names], places: dict[int, int] = places) -> list[Side]:
                return [Side(order[node], _places(found.labels.roots(names[node]), places)) for node in nodes]

            makers, readers = sides(group.makers, found.makers), sides(group.readers, found.readers)
            streams.append(Stream(makers, readers, _applied(group, makers)))
        return balance([peaks(node) for node in members], streams, growth=self.growth)


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Free channels that the same layers make, and everything that touches them.

    Attributes:
        roots: Their labels.
        makers: Layers that make any of them.
        readers: Layers that read any of them.
    """

    roots: list[int]
    makers: list[ir.Node]
    readers: list[ir.Node]


def _groups(found: Scaling) -> list[_Group]:
    """Free channels that some layer makes and some layer reads, those that meet in a layer's outputs together."""
    made = {node: _free_roots(names, found.labels) for node, names in found.makers.items()}
    read = {node: _free_roots(names, found.labels) for node, names in found.readers.items()}
    known = {root for roots in read.values() for root in roots}
    pairs = [(roots[0], root) for roots in made.values() for root in roots if root in known]
    groups = []
    for members in ties(pairs):
        roots = [root for root in members if root in known]
        inside = set(roots)
        makers = [node for node, names in made.items() if inside & set(names)]
        readers = [node for node, names in read.items() if inside & set(names)]
        groups.append(_Group(roots, makers, readers))
    return groups


def _free_roots(names: Names, labels: Labels) -> list[int]:
    return list(dict.fromkeys(int(root) for root in labels.roots(names)[labels.free(names)]))


def _say_where_chains_break(found: Scaling, ctx: Context) -> None:
    """Every layer none of whose output channels is free, with the reason."""
    for node, reason in found.refused.items():
        if constants.is_constant(node.inputs[1]):  # else it is a product of two activations, not a layer
            ctx.skip(node, reason)
    read = {int(root) for names in found.readers.values() for root in found.labels.roots(names)}
    for node, names in found.makers.items():
        free = found.labels.free(names)
        if not free.any():
            ctx.skip(node, found.labels.reason(int(names[0])))
        elif not any(int(root) in read for root in found.labels.roots(names)):
            ctx.skip(node, "no layer reads its result")


def _places(roots: Names, places: dict[int, int]) -> Names:
    return np.array([places.get(int(root), -1) for root in roots], np.intp)


def _applied(group: _Group, makers: list[Side]) -> NDArray[np.float64]:
    """Factors that an earlier run moved."""
    applied = np.ones(len(group.roots))
    for node, side in zip(group.makers, makers, strict=True):
        done = node.outputs[0].meta.get(APPLIED)
        if done is not None:
            inside = side.channels >= 0
            applied[side.channels[inside]] = np.asarray(done, np.float64)[inside]
    return applied


def _one_scale(node: ir.Node, target: Target | None) -> bool:
    """Whether the target has only one scale for the weight of ``node``."""
    rule = None if target is None or not constants.is_constant(node.inputs[1]) else rule_for(target, node)
    return rule is not None and rule.granularity == (Granularity.TENSOR,)


def _touches(group: _Group, shared: set[ir.Node]) -> bool:
    return not shared.isdisjoint((*group.makers, *group.readers))
