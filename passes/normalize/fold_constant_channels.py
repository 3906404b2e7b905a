"""Channels that can hold one number only, and what they do to a per-tensor scale.

A channel whose values before Relu6 lie wholly below 0 or above 6 is constant whatever the image. Its weights, and the
weights that read it in the next layer, decide nothing, yet a scale per tensor is chosen for the largest weight of all:
one dead depthwise filter with a weight of 76 costs the live ones six bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.analysis.intervals import Intervals
from qcompiler.ir import constants, patterns
from qcompiler.passes.normalize._rewrite import own_constant
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves

__all__ = ["FoldConstantChannels"]

_LAYERS = ("Conv", "ConvTranspose", "Gemm")
_PROJECTIONS = ("Relu", "Clip")
"""Activations ``f`` with ``f(f(x)) = f(x)``: the constant itself serves as bias."""
_ACTIVATIONS = (*_PROJECTIONS, "HardSigmoid", "HardSwish")


@dataclass(frozen=True)
class FoldConstantChannels(Pass):
    """Fold channels proven constant by interval analysis into biases, and zero the weights that do not matter.

    * Output channel of Conv, ConvTranspose or Gemm, constant behind its Relu or Clip: its weights become 0, its bias
      that constant.
    * Input channel known to be constant: its column of the weight becomes 0, its contribution moves into the bias. Not
      where the layer pads and the constant is not 0: near the border it reads zeros instead.

    Nodes are taken in order, so what is folded in one layer is known in the next. Bounds hold for inputs within
    ``[input_low, input_high]``: a proof for real data of any normalisation, and an assumption that is named in the
    report where it was made. MatMul is not looked into: its layers come without channel-wise clipping.

    Attributes:
        input_low: Smallest number any floating-point graph input takes; ``-inf`` assumes nothing.
        input_high: Largest number any floating-point graph input takes; ``inf`` assumes nothing.
    """

    input_low: float = -65536.0
    input_high: float = 65536.0

    name: ClassVar[str] = "fold-constant-channels"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.CANONICAL, Fact.TYPED, Fact.SORTED})
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Apply; see the class."""
        if not any(patterns.has_type(node, *_LAYERS) for node in model.graph):
            return
        known = Intervals(model.graph, low=self.input_low, high=self.input_high, unknown={"MatMul"})
        outputs: dict[str, int] = {}
        inputs: dict[str, int] = {}
        visited: set[ir.Node] = set()
        for node in model.graph:
            if patterns.has_type(node, *_LAYERS):
                _note(inputs, node, _absorb(node, known, ctx))
                _note(outputs, node, _settle(node, known, visited, ctx))
            if node not in visited:
                known.visit(node)
        if outputs or inputs:
            _report(outputs, inputs, self._assumption(), ctx)

    def _assumption(self) -> str:
        if np.isinf(self.input_low) and np.isinf(self.input_high):
            return "for every finite input"
        return f"for inputs within [{self.input_low:g}, {self.input_high:g}]"


def _note(counts: dict[str, int], node: ir.Node, count: int) -> None:
    if count:
        counts[str(node.name)] = count


def _report(outputs: dict[str, int], inputs: dict[str, int], assumption: str, ctx: Context) -> None:
    """Say how many channels were folded, and where."""
    for counts, what in (
        (outputs, "output channels are constant"),
        (inputs, "constant input channels moved to biases"),
    ):
        if counts:
            places = ", ".join(f"{name} {count}" for name, count in counts.items())
            ctx.note(f"{sum(counts.values())} {what} (proven {assumption}): {places}")


# -- constant input channels -------------------------------------------------------------------------------------


def _absorb(node: ir.Node, known: Intervals, ctx: Context) -> int:
    """Move what constant input channels contribute into the bias; returns how many columns of weights vanished."""
    data = node.inputs[0]
    if data is None or known.of(data).axis != 1:
        return 0
    indices, values = known.constant_channels(data)
    if not indices.size or _why_not(node):
        return 0
    weight = _weight(node)
    if weight is None:
        return 0
    view = _view(node, weight)
    groups, depth = view.shape[0], view.shape[2]
    inside = indices < groups * depth
    indices, values = indices[inside], values[inside]
    used = view[indices // depth, :, indices % depth].any((1, 2))
    fixed = (values != 0) & used
    if fixed.any() and (reason := _why_not_shift(node)):
        ctx.skip(node, f"{int(fixed.sum())} input channels are constant and not zero, but {reason}")
        used &= values == 0
    indices, values = indices[used], values[used]
    if not indices.size:
        return 0
    if values.any():
        _add_contribution(node, view, indices, values, ctx)
    changed = weight.copy()
    _view(node, changed)[indices // depth, :, indices % depth] = 0
    ctx.edit.set_constant(own_constant(ctx.edit, node, 1), changed)
    return int(indices.size)


def _add_contribution(
    node: ir.Node, view: NDArray[Any], indices: NDArray[np.intp], values: NDArray[np.float64], ctx: Context
) -> None:
    """Add the products of constant inputs to the bias, in float64."""
    depth = view.shape[2]
    bias = _bias(node, view.shape[0] * view.shape[1]).reshape(view.shape[:2])
    for channel, value in zip(indices, values, strict=True):
        bias[channel // depth] += view[channel // depth, :, channel % depth].astype(np.float64).sum(-1) * value
    _set_bias(node, bias.ravel(), ctx)


def _why_not_shift(node: ir.Node) -> str:
    """Why a constant other than zero cannot move into the bias; empty where it can."""
    if node.op_type == "Gemm":
        return ""
    if node.op_type == "ConvTranspose":
        return "how many of them reach an output depends on its place"
    automatic = node.attributes.get("auto_pad")
    if any(patterns.integers(node, "pads") or ()) or (
        automatic is not None and automatic.as_string() not in ("NOTSET", "VALID")
    ):
        return "its zero padding is not"
    return ""


# -- constant output channels ------------------------------------------------------------------------------------


def _settle(node: ir.Node, known: Intervals, visited: set[ir.Node], ctx: Context) -> int:
    """Reduce constant output channels to their bias; returns how many changed.

    The layer and its activation are added to ``visited`` unless what is known about them has to be found anew.
    """
    output = node.outputs[0]
    activation = patterns.only_consumer(output, *_ACTIVATIONS)
    if activation is not None and activation.inputs[0] is not output:
        activation = None
    pair = [node] if activation is None else [node, activation]
    for each in pair:
        known.visit(each)
    changed = _settle_pair(node, activation, known, ctx)
    if not changed:
        visited.update(pair)
    return changed


def _settle_pair(node: ir.Node, activation: ir.Node | None, known: Intervals, ctx: Context) -> int:
    output = node.outputs[0]
    result = output if activation is None else activation.outputs[0]
    indices, values = known.constant_channels(result)
    if not indices.size or known.of(output).axis != 1:
        return 0
    if reason := _why_not(node):
        ctx.skip(node, f"{indices.size} output channels are constant, but {reason}")
        return 0
    if activation is not None and activation.op_type not in _PROJECTIONS:
        before = known.of(output)
        values = np.clip(0.0, before.low[indices], before.high[indices])
    return _reduce(node, indices, values, ctx)


def _reduce(node: ir.Node, indices: NDArray[np.intp], values: NDArray[np.float64], ctx: Context) -> int:
    weight = _weight(node)
    if weight is None:
        return 0
    view = _view(node, weight)
    per_group = view.shape[1]
    rows = indices // per_group, indices % per_group
    bias = _bias(node, view.shape[0] * per_group)
    heavy = view[rows].any((1, 2))
    changed = heavy | (bias[indices] != values)
    if not changed.any():
        return 0
    if heavy.any():
        copy = weight.copy()
        _view(node, copy)[rows] = 0
        ctx.edit.set_constant(own_constant(ctx.edit, node, 1), copy)
    if (bias[indices] != values).any():
        bias[indices] = values
        _set_bias(node, bias, ctx)
    return int(changed.sum())


# -- weights and biases of a layer -------------------------------------------------------------------------------


def _why_not(node: ir.Node) -> str:
    """Why constants of the layer cannot be changed; empty where they can."""
    if not constants.is_constant(node.inputs[1]):
        return "its weight is not constant"
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and (not constants.is_constant(bias) or patterns.rank(bias) != 1):
        return "its bias is not a constant of one number per channel"
    if node.op_type == "Gemm" and (
        patterns.integer(node, "transA", 0)
        or patterns.number(node, "alpha", 1.0) != 1.0
        or patterns.number(node, "beta", 1.0) != 1.0
    ):
        return "it is not canonical"
    return ""


def _weight(node: ir.Node) -> NDArray[Any] | None:
    weight = constants.array(node.inputs[1])
    least = 2 if node.op_type == "Gemm" else 3
    return weight if weight is not None and weight.ndim >= least and weight.size else None


def _view(node: ir.Node, weight: NDArray[Any]) -> NDArray[Any]:
    """The weight of a layer as ``[groups, outputs / group, inputs / group, taps]``, sharing its memory."""
    if node.op_type == "Gemm":
        return (weight if patterns.integer(node, "transB", 0) else weight.T)[None, :, :, None]
    groups = patterns.integer(node, "group", 1)
    split = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return split if node.op_type == "Conv" else split.transpose(0, 2, 1, 3)


def _bias(node: ir.Node, count: int) -> NDArray[np.float64]:
    """A copy of the bias, zeros where there is none."""
    bias = constants.array(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    return np.zeros(count) if bias is None else np.broadcast_to(bias, (count,)).astype(np.float64)


def _set_bias(node: ir.Node, bias: NDArray[np.float64], ctx: Context) -> None:
    weight = node.inputs[1]
    dtype = np.dtype(np.float32) if weight is None or weight.dtype is None else weight.dtype.numpy()
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        ctx.edit.set_constant(own_constant(ctx.edit, node, 2), bias.astype(dtype))
    else:
        ctx.edit.set_input(node, 2, ctx.edit.constant(f"{node.name}_bias", bias.astype(dtype)))
