"""equalize-channels: move factors between consecutive layers, so that one scale per weight tensor suits all channels.

Where the weights of a layer share one scale, the channel with the largest weight decides for all. A factor per channel
can move through the activation between two layers: the first is divided by it, the second multiplied, and the model
computes what it did. See ``_balance`` for the factors and ``_pairs`` for what lets them pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.errors import UsageError
from qcompiler.ir import patterns
from qcompiler.ir.edit import Edit
from qcompiler.passes.equalize._balance import Link, balance, output_channels, peaks
from qcompiler.passes.equalize._pairs import LAYERS, Bound, Pair, pair_after, why_not_layer
from qcompiler.passes.normalize._affine import Affine, keep_statistics
from qcompiler.passes.normalize._linear import absorb_after, absorb_before
from qcompiler.passes.normalize._rewrite import replace_node
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves
from qcompiler.target.legality import rule_for
from qcompiler.target.schema import Granularity, Target

__all__ = ["EqualizeChannels"]

_NEARLY_ONE = 1.05
"""A pair whose factors all lie this close to 1 is balanced: nothing is changed."""
_SUFFIX = "_equalized"
_APPLIED = "qcompiler.equalized"
"""Key in the meta of a layer's result: the factors it was divided by, from which ``growth`` counts."""


@dataclass(frozen=True)
class EqualizeChannels(Pass):
    """Equalize weights across channels of Conv, ConvTranspose and Gemm chains.

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
    """

    when: Literal["per-tensor", "always"] = "per-tensor"
    growth: float = 1.0

    name: ClassVar[str] = "equalize-channels"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.TYPED, Fact.SORTED, Fact.CANONICAL})
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Apply; see the class."""
        if not self.growth > 0:
            raise UsageError(f"growth is {self.growth}", where=self.name, hint="a factor above 0, usually 1 or more")
        nodes = [node for node in model.graph if patterns.has_type(node, *LAYERS)]
        if self.when == "per-tensor" and not any(_one_scale(node, ctx.target) for node in nodes):
            ctx.note("nothing to equalize: no weight has to share one scale among its channels")
            return
        pairs = [pair for pair in _pairs(nodes, ctx) if self.when == "always" or _pays(pair, ctx.target)]
        changed = 0
        for pair, factors in zip(pairs, self._factors(pairs), strict=True):
            if max(factors.max(), 1 / factors.min()) > _NEARLY_ONE:
                _move(pair, factors, ctx.edit)
                changed += 1
        if pairs:
            ctx.note(f"equalized the channels between {changed} of {len(pairs)} pairs of layers")

    def _factors(self, pairs: list[Pair]) -> list[NDArray[np.float64]]:
        members = list(dict.fromkeys(node for pair in pairs for node in (pair.first, pair.second)))
        order = {node: index for index, node in enumerate(members)}
        layers = [peaks(node) for node in members]
        links = []
        for pair in pairs:
            first = order[pair.first]
            done = pair.first.outputs[0].meta.get(_APPLIED)
            applied = np.ones(output_channels(layers[first])) if done is None else np.asarray(done, np.float64)
            links.append(Link(first, order[pair.second], pair.spread, applied))
        return balance(layers, links, growth=self.growth)


def _one_scale(node: ir.Node, target: Target | None) -> bool:
    """Whether the target has only one scale for the weight of ``node``."""
    rule = None if target is None else rule_for(target, node)
    return rule is not None and rule.granularity == (Granularity.TENSOR,)


def _pays(pair: Pair, target: Target | None) -> bool:
    return _one_scale(pair.first, target) or _one_scale(pair.second, target)


def _pairs(nodes: list[ir.Node], ctx: Context) -> list[Pair]:
    """Every pair of layers of the main graph that can trade factors."""
    found: list[Pair] = []
    for node in nodes:
        pair: Pair | str = why_not_layer(node)
        if not pair:
            pair = pair_after(node, output_channels(peaks(node)))
        if isinstance(pair, Pair):
            pair = _why_not_bounds(pair, ctx.target) or pair
        if isinstance(pair, str):
            ctx.skip(node, pair)
        else:
            found.append(pair)
    return found


def _why_not_bounds(pair: Pair, target: Target | None) -> str:
    """Why bounds per channel would leave the integer kernel of the first layer; empty where they do not."""
    rule = None if target is None else rule_for(target, pair.first)
    if not pair.bounds or target is None or rule is None:
        return ""
    if not {"Relu", "Min"} <= set(rule.fuse):
        return f"{target.name} absorbs no bound per channel (Relu, Min) behind {pair.first.op_type}"
    for bound in pair.bounds:
        source = bound.node.inputs[bound.index]
        if patterns.skip_back(source, ("Relu", "Min")) is not pair.first.outputs[0]:
            return f"{bound.node.name} is not right behind it, so {target.name} does not absorb its bounds"
    return ""


def _move(pair: Pair, factors: NDArray[np.float64], edit: Edit) -> None:
    """Divide the first layer by the factors, multiply the second; what lies between shrinks by them."""
    shrink = Affine(1 / factors, np.zeros(factors.size))
    spread = np.repeat(factors, pair.spread)
    absorb_after(pair.first, shrink, edit)
    absorb_before(pair.second, Affine(spread, np.zeros(spread.size)), edit)
    keep_statistics(pair.first.outputs[0], shrink)
    for bound in pair.bounds:
        _divide_bound(bound, factors, edit)
    value = pair.first.outputs[0]
    value.meta[_APPLIED] = value.meta.get(_APPLIED, 1.0) * factors
    while True:
        # A name stands for a content: under the old one, the tensor would be compared with what it was.
        if not str(value.name).endswith(_SUFFIX):
            edit.rename(value, f"{value.name}{_SUFFIX}")
        reader = value.consumers()[0]
        if reader is pair.second:
            return
        value = reader.outputs[0]


def _divide_bound(bound: Bound, factors: NDArray[np.float64], edit: Edit) -> None:
    """Give an activation its bounds divided by the factors; a Clip becomes Relu and Min."""
    node = bound.node
    values = bound.values / factors
    if node.op_type == "Min":
        constant = node.inputs[1 - bound.index]
        if constant is not None and constant.shape is not None:
            edit.set_constant(constant, values.astype(np.float32).reshape(constant.shape.numpy()))
        return
    data = node.inputs[0]
    if data is None or data.shape is None:
        raise ValueError(f"the input of {node.name} has no rank")
    relu = edit.insert("Relu", [data], before=node, name=f"{node.name}_relu", output_name=f"{data.name}_relu")
    relu.outputs[0].shape, relu.outputs[0].type = data.shape, data.type
    shape = 1, values.size, *[1] * (len(data.shape) - 2)
    bounds = edit.constant(f"{node.name}_bounds", values.astype(np.float32).reshape(shape))
    replace_node(edit, node, "Min", [relu.outputs[0], bounds])
