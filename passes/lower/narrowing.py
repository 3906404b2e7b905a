"""Give a layer coarser weights: fewer bits, a scale that is as many times doubled, a bias at the new scale."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir import constants
from qcompiler.ir.edit import Edit
from qcompiler.passes.lower.products import Product
from qcompiler.passes.lower.site import dequantizer
from qcompiler.quant.operators import BIAS_INPUT, WEIGHT_INPUT

__all__ = ["narrow"]


def narrow(product: Product, bits: NDArray[np.int64], edit: Edit) -> None:
    """Take ``bits`` bits from the weights behind each weight scale; other readers of the weight keep theirs.

    Codes are rounded ``half_even``, once, and lose their zero point. An integer bias is rounded to its new scale
    likewise; a float bias stays, and becomes codes at the new scale when it is lowered.
    """
    node = product.site.node
    _narrow_weight(product, bits, edit)
    bias = node.inputs[BIAS_INPUT] if len(node.inputs) > BIAS_INPUT else None
    source = dequantizer(bias)
    if source is not None:
        _narrow_bias(node, source, bits[product.scale_of], edit)


def _narrow_weight(product: Product, bits: NDArray[np.int64], edit: Edit) -> None:
    weight = product.weight
    rank = weight.codes.ndim
    along = [-1 if weight.axis is not None and index == weight.axis % rank else 1 for index in range(rank)]
    if weight.scale.size == 1:
        along = [1] * rank
    centred = weight.codes.astype(np.float64) - weight.zero_point.reshape(along)
    codes = np.clip(np.rint(np.ldexp(centred, -bits.reshape(along))), -128, 127).astype(np.int8)
    scale = np.ldexp(weight.scale, bits.reshape(weight.scale.shape)).astype(np.float32)
    old = dequantizer(product.site.node.inputs[WEIGHT_INPUT])
    if old is not None:
        _replace(product.site.node, WEIGHT_INPUT, old, [codes, scale, np.zeros(scale.shape, np.int8)], edit)


def _narrow_bias(node: ir.Node, old: ir.Node, bits: NDArray[np.int64], edit: Edit) -> None:
    codes, scale = constants.array(old.inputs[0]), constants.array(old.inputs[1])
    if codes is None or scale is None:
        return
    # One scale for all channels must stay fine enough for the channel that lost least.
    by = bits if scale.size == bits.size else np.full(scale.size, bits.min())
    narrowed = np.rint(np.ldexp(codes.astype(np.float64), -by.reshape(scale.shape))).astype(np.int32)
    wider = np.ldexp(scale.astype(np.float64), by.reshape(scale.shape)).astype(np.float32)
    _replace(node, BIAS_INPUT, old, [narrowed, wider], edit)


def _replace(node: ir.Node, index: int, old: ir.Node, arrays: list[NDArray[np.generic]], edit: Edit) -> None:
    """Let input ``index`` of ``node`` read new codes through a DequantizeLinear of its own."""
    base = str(old.outputs[0].name)
    endings = ("narrowed", "narrowed_scale", "narrowed_zero_point")
    inputs = [edit.constant(f"{base}_{ending}", array) for ending, array in zip(endings, arrays, strict=False)]
    axis = old.attributes.get("axis")
    new = edit.insert(
        "DequantizeLinear", inputs, attributes={} if axis is None else {"axis": axis.as_int()}, before=node,
        name=f"{base}_narrowed_DequantizeLinear", output_name=f"{base}_narrowed_dequantized",
    )  # fmt: skip
    new.outputs[0].shape, new.outputs[0].type = old.outputs[0].shape, old.outputs[0].type
    edit.set_input(node, index, new.outputs[0])
    edit.remove_unused(list(old.outputs))
