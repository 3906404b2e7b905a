"""Matrix products and convolutions with constant weights, seen as rows: one output channel each.

An output of ``Conv``, ``ConvTranspose``, ``Gemm`` or ``MatMul`` is ``bias + sum(x * w)`` over the weights of its
channel. The operator set computes on codes whose zero point is not subtracted; what it contributes is folded into
the bias: ``sum((x - z) * w) + bias = sum(x * w) + (bias - z * sum(w))``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.analysis.code_ranges import CodeRanges, limits
from qcompiler.analysis.ranges import order_free_bounds
from qcompiler.ir import constants
from qcompiler.ir.patterns import integer, integers
from qcompiler.passes.lower.site import Codes, Site, Weight, dequantizer
from qcompiler.quant.operators import BIAS_INPUT, WEIGHT_INPUT

__all__ = ["STORED", "Product", "exact_real", "product_of", "rows_of"]

STORED: Final = frozenset({ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT4, ir.DataType.UINT4})
"""Element types of weights."""


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """A linear operator with constant weights.

    Attributes:
        site: The Q/DQ group.
        weight: Its weight as stored.
        rows: Weight codes less their zero point, ``(channels, depth)``.
        scale_of: Per channel the index of its weight scale.
        bias: Least and greatest bias per channel in real numbers, float64 ``(2, channels)``; both are the same where
            the bias belongs to the channel alone.
        low: Least activation code, padding included.
        high: Greatest activation code, padding included.
    """

    site: Site
    weight: Weight
    rows: NDArray[np.int16]
    scale_of: NDArray[np.intp]
    bias: NDArray[np.float64]
    low: int
    high: int

    @property
    def data(self) -> Codes:
        """The activation."""
        return self.site.codes(0)

    @property
    def width(self) -> int:
        """Bits of the target's accumulator for this activation."""
        arithmetic = self.site.arithmetic
        return arithmetic.accumulator_bits if self.data.dtype is ir.DataType.INT8 else arithmetic.wide_accumulator_bits

    def narrowed_rows(self, bits: NDArray[np.int64]) -> NDArray[np.int16]:
        """The rows with ``bits`` fewer bits per weight scale, rounded ``half_even``, kept inside 8 bits."""
        by = bits[self.scale_of][:, None]
        if not by.any():
            return self.rows
        return np.clip(np.rint(np.ldexp(self.rows.astype(np.float64), -by)), -128, 127).astype(np.int16)

    def bounds(self, bits: NDArray[np.int64] | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Least and greatest partial sum per channel, in any order, folded bias included.

        Args:
            bits: Per weight scale by how many bits the weights are narrowed; by default none.
        """
        lost = np.zeros(self.weight.scale.size, np.int64) if bits is None else bits
        rows = self.narrowed_rows(lost)
        scale = self.data.scale * np.ldexp(self.weight.scale.reshape(-1), lost)[self.scale_of]
        folded = self.data.zero_point * rows.sum(axis=1, dtype=np.int64)
        least, most = (np.rint(bias / scale).astype(np.int64) - folded for bias in self.bias)
        low, high = order_free_bounds(rows, least, self.low, self.high)
        if most is not least:
            above = order_free_bounds(rows, most, self.low, self.high)
            low, high = np.minimum(low, above[0]), np.maximum(high, above[1])
        return low, high


def product_of(site: Site, ranges: CodeRanges) -> Product | None:
    """The group as a product with constant weights; ``None`` where it is none or empty, or weights come in blocks."""
    weight = site.weight(WEIGHT_INPUT)
    data = site.inputs[0]
    if weight is None or data is None or weight.block or not weight.codes.size or not _stored_as_codes(site):
        return None
    axis = _scale_axis(weight)
    codes = weight.codes.astype(np.int16) - _spread(weight.zero_point, axis, weight.codes.ndim).astype(np.int16)
    rows = rows_of(site.node, codes)
    scale_of = _scale_of(site.node, weight, axis)
    if scale_of is None or scale_of.size != rows.shape[0]:
        return None
    low, high = _codes_read(site.node, data, ranges)
    return Product(site, weight, rows, scale_of, _bias(site, rows.shape[0]), low, high)


def rows_of(node: ir.Node, codes: NDArray[Any]) -> NDArray[Any]:
    """A weight as ``(channels, depth)``: what one output channel multiplies, in one row."""
    if node.op_type == "Conv":
        return codes.reshape(codes.shape[0], -1)
    if node.op_type == "ConvTranspose":
        group = integer(node, "group", 1)
        split = codes.reshape(group, codes.shape[0] // group, codes.shape[1], -1)
        return split.transpose(0, 2, 1, 3).reshape(group * codes.shape[1], -1)
    if node.op_type == "Gemm":
        return codes if integer(node, "transB", 0) else codes.T
    moved = np.moveaxis(codes, -2, -1) if codes.ndim > 1 else codes
    return moved.reshape(-1, moved.shape[-1])


def _stored_as_codes(site: Site) -> bool:
    source = dequantizer(site.node.inputs[WEIGHT_INPUT])
    return source is not None and source.inputs[0] is not None and source.inputs[0].dtype in STORED


def _scale_axis(weight: Weight) -> int | None:
    return None if weight.axis is None or weight.scale.size == 1 else weight.axis % weight.codes.ndim


def _spread(parameter: NDArray[Any], axis: int | None, rank: int) -> NDArray[Any]:
    """A parameter in a shape that broadcasts against the weight."""
    if axis is None:
        return parameter.reshape(-1)[:1].reshape((1,) * rank)
    return parameter.reshape([-1 if index == axis else 1 for index in range(rank)])


def _scale_of(node: ir.Node, weight: Weight, axis: int | None) -> NDArray[np.intp] | None:
    """Per channel the index of its scale; ``None`` where scales do not belong to output channels."""
    shape = weight.codes.shape
    if axis is None:
        indices = np.zeros(shape, np.intp)
    else:
        indices = np.broadcast_to(_spread(np.arange(shape[axis]), axis, len(shape)), shape)
    rows = rows_of(node, indices)
    if rows.shape[1] == 0:
        return np.zeros(rows.shape[0], np.intp)
    return rows[:, 0] if (rows == rows[:, :1]).all() else None


def _codes_read(node: ir.Node, data: Codes, ranges: CodeRanges) -> tuple[int, int]:
    """Codes of the activation; padding, and what a transposed convolution puts between them, is its zero point."""
    low, high = ranges.of(data.value) or limits(data.dtype) or (data.low, data.high)
    automatic = node.attributes.get("auto_pad")
    pads = integers(node, "pads") or ()
    same = automatic is not None and automatic.as_string().startswith("SAME")
    if any(pads) or same or node.op_type == "ConvTranspose":
        return min(low, data.zero_point), max(high, data.zero_point)
    return low, high


def _bias(site: Site, channels: int) -> NDArray[np.float64]:
    """Least and greatest real bias per channel: the operator's own and what absorbed Add nodes add."""
    total = np.zeros((2, channels))
    operands = [site.node.inputs[BIAS_INPUT]] if len(site.node.inputs) > BIAS_INPUT else []
    for node in site.absorbed:
        if node.op_type == "Add":
            operands += [item for item in node.inputs if exact_real(item) is not None]
    for operand in operands:
        content = exact_real(operand)
        if content is None or not content.size:
            continue
        if content.size in (1, channels):
            total += content.reshape(-1)
        elif content.ndim and content.shape[-1] == channels:
            rows = content.reshape(-1, channels)
            total += np.stack([rows.min(axis=0), rows.max(axis=0)])
        else:
            total += np.array([[content.min()], [content.max()]])
    return total


def exact_real(value: ir.Value | None) -> NDArray[np.float64] | None:
    """A constant as float64; integer codes are scaled in 64 bits, so that a bias keeps all of its 32."""
    node = dequantizer(value)
    if node is None:
        content = constants.array(value)
        return None if content is None else np.asarray(content, np.float64)
    codes, scale = constants.array(node.inputs[0]), constants.array(node.inputs[1])
    if codes is None or scale is None:
        return None
    zero = constants.array(node.inputs[2]) if len(node.inputs) > 2 else None
    axis = None if scale.ndim == 0 or codes.ndim == 0 else node.attributes.get_int("axis", 1) % codes.ndim
    offset = 0.0 if zero is None else _spread(zero.astype(np.float64), axis, codes.ndim)
    real: NDArray[np.float64] = (codes.astype(np.float64) - offset) * _spread(scale, axis, codes.ndim)
    return real
