"""Padding as an attribute of the convolution or pooling that needs it, in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from qcompiler.ir.constants import array, scalar
from qcompiler.ir.edit import Edit
from qcompiler.ir.operators import has_type
from qcompiler.ir.patterns import rank
from qcompiler.passes.normalize._rewrite import consumers, integers
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves

__all__ = ["FoldPad"]

_WINDOWED = ("Conv", "MaxPool", "AveragePool", "LpPool", "ConvTranspose")
_NOT_NEGATIVE = ("Relu", "Sigmoid", "Softmax", "Abs", "HardSigmoid", "Softplus")


@dataclass(frozen=True)
class FoldPad(Pass):
    """Fold Pad into Conv, AveragePool and MaxPool where that is the same; turn ``auto_pad`` into explicit pads.

    Zeros go into Conv and AveragePool (which then counts them). MaxPool ignores its own padding, so only -inf goes
    into it, or 0 where its input is proven non-negative.
    """

    name: ClassVar[str] = "fold-pad"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.CANONICAL, Fact.TYPED})
    preserves: ClassVar[Preserves] = Preserves.FLOAT

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Apply; see the class."""
        for node in list(model.graph):
            if has_type(node, *_WINDOWED):
                _make_explicit(node, ctx)
        for node in list(model.graph):
            if has_type(node, "Pad"):
                _fold(node, ctx)


# -- auto_pad ------------------------------------------------------------------------------------------------------


def _make_explicit(node: ir.Node, ctx: Context) -> None:
    """Replace ``auto_pad`` by the numbers it stands for."""
    mode = node.attributes.get_string("auto_pad", "NOTSET")
    if mode == "NOTSET":
        if "auto_pad" in node.attributes:
            ctx.edit.set_attribute(node, "auto_pad", None)
        return
    pads = [] if mode == "VALID" else _same_pads(node, upper=mode == "SAME_UPPER")
    reason = _why_not_explicit(node, pads) if mode != "VALID" else ""
    if reason or pads is None:
        ctx.skip(node, f"auto_pad={mode} {reason}")
        return
    for attribute in ("auto_pad", "ceil_mode"):  # SAME and VALID fix the output size: ceil_mode is ignored with them
        if attribute in node.attributes:
            ctx.edit.set_attribute(node, attribute, None)
    if any(pads):
        ctx.edit.set_attribute(node, "pads", pads)
    elif "pads" in node.attributes:
        ctx.edit.set_attribute(node, "pads", None)


def _why_not_explicit(node: ir.Node, pads: list[int] | None) -> str:
    """Why SAME padding cannot be written in numbers; empty where it can."""
    if node.op_type == "ConvTranspose":
        return "of a transposed convolution is read differently by different runtimes"
    if node.op_type != "Conv" and any(step != 1 for step in integers(node, "dilations")):
        return "of a pooling with dilations is read differently by different runtimes"
    return "needs the spatial size of the input, which is not known" if pads is None else ""


def _kernel(node: ir.Node) -> list[int] | None:
    """Spatial size of the window."""
    if sizes := integers(node, "kernel_shape"):
        return sizes
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    if weight is None or weight.shape is None or not all(isinstance(size, int) for size in weight.shape[2:]):
        return None
    return [int(size) for size in weight.shape[2:] if isinstance(size, int)]


def _same_pads(node: ir.Node, *, upper: bool) -> list[int] | None:
    """Pads so that ``output = ceil(input / stride)``; the odd one goes to the end (upper) or the beginning."""
    kernel, source = _kernel(node), node.inputs[0]
    if kernel is None:
        return None
    strides = integers(node, "strides") or [1] * len(kernel)
    dilations = integers(node, "dilations") or [1] * len(kernel)
    begins, ends = [], []
    for axis, (size, stride, dilation) in enumerate(zip(kernel, strides, dilations, strict=True)):
        window = (size - 1) * dilation + 1
        length = source.shape[axis + 2] if source is not None and source.shape is not None else None
        if stride == 1:
            total = window - 1
        elif isinstance(length, int):
            total = max(0, (-(-length // stride) - 1) * stride + window - length)
        else:
            return None
        begins.append(total // 2 if upper else total - total // 2)
        ends.append(total - begins[-1])
    return begins + ends


# -- Pad nodes -----------------------------------------------------------------------------------------------------


def _fold(node: ir.Node, ctx: Context) -> None:
    """Fold one Pad into each of its consumers that can take it."""
    pads, reason = _spatial_pads(node)
    if pads is None:
        ctx.skip(node, reason)
        return
    source, result = node.inputs[0], node.outputs[0]
    if source is None:
        return
    if not any(pads) and not result.is_graph_output():
        ctx.edit.replace_uses(result, source)
    value = 0.0 if len(node.inputs) < 3 or node.inputs[2] is None else scalar(node.inputs[2])
    for consumer, index in consumers(result):
        reason = _why_not(consumer, index, value, pads, source)
        if reason:
            ctx.skip(node, f"{consumer.name}: {reason}")
            continue
        _merge(consumer, pads, ctx.edit)
        ctx.edit.set_input(consumer, 0, source)
    ctx.edit.remove_unused([result])


def _spatial_pads(node: ir.Node) -> tuple[list[int] | None, str]:
    """Begins and ends of the spatial axes, or why there are none that could be folded."""
    if node.attributes.get_string("mode", "constant") != "constant":
        return None, "only padding with a constant can be folded"
    found, dimensions = array(node.inputs[1]), rank(node.inputs[0])
    if found is None or dimensions is None:
        return None, "its pads or the rank of its input are not known"
    full = [0] * (2 * dimensions)
    axes = array(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else range(dimensions)
    if axes is None:
        return None, "its axes are not known"
    amounts = [int(amount) for amount in found.reshape(-1)]
    chosen = [int(axis) % dimensions for axis in axes]
    for position, axis in enumerate(chosen):
        full[axis], full[dimensions + axis] = amounts[position], amounts[len(chosen) + position]
    begins, ends = full[:dimensions], full[dimensions:]
    if any(begins[:2] + ends[:2]):
        return None, "it pads the batch or the channels"
    if min(full) < 0:
        return None, "it crops"
    return begins[2:] + ends[2:], ""


def _why_not(node: ir.Node, index: int, value: float | None, pads: list[int], source: ir.Value) -> str:
    """Why this consumer cannot take the padding; empty where it can."""
    if index != 0 or not has_type(node, "Conv", "AveragePool", "MaxPool"):
        return f"{node.op_type} has no padding of its own with this meaning"
    if node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return "its own padding is automatic"
    if has_type(node, "Conv"):
        return "" if value == 0 else f"a convolution pads with 0, not with {value}"
    if node.attributes.get_int("ceil_mode", 0):
        return "with ceil_mode the windows at the end would differ"
    if has_type(node, "AveragePool"):
        if value != 0:
            return f"a pooling pads with 0, not with {value}"
        if any(integers(node, "pads")) and not _counts_padding(node):
            return "it does not count its own padding"
        return _too_wide(node, pads)
    return _why_not_max(node, value, pads, source)


def _why_not_max(node: ir.Node, value: float | None, pads: list[int], source: ir.Value) -> str:
    """The same for MaxPool, whose own padding is never the maximum."""
    harmless = value == float("-inf") or (value == 0 and _not_negative(source))
    if not harmless:
        return "the padding could become the maximum"
    if any(step != 1 for step in integers(node, "dilations")):
        return "with dilations a window could hold padding alone"
    return _too_wide(node, pads)


def _too_wide(node: ir.Node, pads: list[int]) -> str:
    """Runtimes refuse a pooling whose padding reaches the size of its window."""
    kernel = _kernel(node)
    if kernel is None:
        return "the size of its window is not known"
    own = integers(node, "pads") or [0] * len(pads)
    fits = all(pad + mine < size for pad, mine, size in zip(pads, own, kernel * 2, strict=True))
    return "" if fits else "the padding is as wide as the window"


def _counts_padding(node: ir.Node) -> bool:
    return node.attributes.get_int("count_include_pad", 0) == 1


def _not_negative(value: ir.Value) -> bool:
    """Whether the operator before says so: a Relu and its like, or a Clip at 0 or above."""
    producer = value.producer()
    if has_type(producer, *_NOT_NEGATIVE):
        return True
    if producer is None or not has_type(producer, "Clip") or len(producer.inputs) < 2:
        return False
    low = scalar(producer.inputs[1])
    return low is not None and low >= 0


def _merge(node: ir.Node, pads: list[int], edit: Edit) -> None:
    """Add to the consumer's own pads."""
    own = integers(node, "pads") or [0] * len(pads)
    total = [mine + more for mine, more in zip(own, pads, strict=True)]
    edit.set_attribute(node, "pads", total)
    if has_type(node, "AveragePool") and not _counts_padding(node):
        edit.set_attribute(node, "count_include_pad", 1)
