"""lower-weight-only: a matrix product with a dequantized constant weight becomes QMatMulWeightOnly.

What ``place-qdq`` wrote, ``DequantizeLinear(codes) -> MatMul`` with real activations, says which codes the weight has.
The operator keeps them packed in as few bits as hold them, and multiplies integers: each row of activations is
quantized to 8 bits where it is used (``quant/integer/weight_only.py``). That is the one thing the Q/DQ form does not
do, and the only difference in the numbers. A bias of Gemm is added behind.

A table of codes that is looked up, ``DequantizeLinear(codes) -> Gather``, would be dequantized as a whole in each run.
Rows and their scales are looked up instead, and multiplied: the same numbers, bit for bit. Standard operators do that
with 8 bits; of fewer, which they cannot take apart, QGatherWeightOnly keeps the packed rows.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.errors import PassError
from qcompiler.ir.constants import is_constant
from qcompiler.ir.operators import has_type
from qcompiler.passes.lower.gather import Table, table_of
from qcompiler.pipeline.base import Context, Fact, Pass
from qcompiler.quant import packing, weight_scales
from qcompiler.quant.format import BYTE
from qcompiler.quant.functions import catalogue
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.quant.integer.weight_only import blocks
from qcompiler.quant.operators import LOOKUP
from qcompiler.target.axes import block_axis
from qcompiler.target.qdq import Codes, codes_read

__all__ = ["LowerWeightOnly"]


@dataclass(frozen=True)
class LowerWeightOnly(Pass):
    """Turn products of real activations and dequantized weights into QMatMulWeightOnly."""

    name: ClassVar[str] = "lower-weight-only"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.QDQ})
    provides: ClassVar[frozenset[Fact]] = frozenset({Fact.LOWERED})
    # Decisions are about nodes that are gone.
    invalidates: ClassVar[frozenset[Fact]] = frozenset({Fact.FORMATS, Fact.CALIBRATED, Fact.QDQ})

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Lower every such product of the main graph."""
        for node in list(model.graph):
            if has_type(node, "MatMul", "Gemm") and (weight := _weight(node)) is not None:
                _lower(node, weight, ctx)
            elif has_type(node, LOOKUP):
                _lower_table(node, ctx)
        catalogue.attach(model)
        ctx.edit.touch()


def _weight(node: ir.Node) -> Codes | None:
    """The stored codes of a node's weight, where its activation is real and its weight a dequantized constant."""
    data, value = node.inputs[0], node.inputs[1]
    codes = None if value is None else codes_read(value)
    if data is None or codes is None or codes.scale is None or not is_constant(codes.value):
        return None
    return codes if codes_read(data) is None else None


def _lower_table(node: ir.Node, ctx: Context) -> None:
    table = table_of(node)
    if table is not None and table.stored.dtype.bitwidth < BYTE:
        _look_up_packed(node, table, ctx)
    elif table is not None:
        _look_up(node, table, ctx)


def _look_up_packed(node: ir.Node, table: Table, ctx: Context) -> None:
    found = node.outputs[0]
    rows = ctx.edit.insert(
        "QGatherWeightOnly",
        [node.inputs[1], table.packed(ctx.edit), ctx.edit.constant(f"{table.name}_row_scale", table.scale)],
        attributes={"bits": table.bits, "weight_shape": table.shape},
        domain=DOMAIN,
        name=f"{node.name}_QGatherWeightOnly",
        output_name=f"{found.name}_rows",
        before=node,
    ).outputs[0]
    rows.type, rows.shape = ir.TensorType(ir.DataType.FLOAT), found.shape
    _replace(node, rows, ctx)


def _look_up(node: ir.Node, table: Table, ctx: Context) -> None:
    """Look up codes and scales, then multiply."""
    base, found, indices = str(table.codes.name), node.outputs[0], node.inputs[1]
    scale = ctx.edit.constant(f"{base}_row_scale", table.scale.reshape(-1, 1))

    def emit(op_type: str, inputs: list[ir.Value | None], name: str, dtype: ir.DataType, **attributes: int) -> ir.Value:
        made = ctx.edit.insert(
            op_type, inputs, attributes=attributes, name=f"{node.name}_{name}", output_name=f"{found.name}_{name}",
            before=node,
        ).outputs[0]  # fmt: skip
        made.type, made.shape = ir.TensorType(dtype), found.shape
        return made

    codes = emit(LOOKUP, [table.codes, indices], "codes", table.stored.dtype, axis=0)
    real = emit("Cast", [codes], "cast", ir.DataType.FLOAT, to=ir.DataType.FLOAT.value)
    scales = emit(LOOKUP, [scale, indices], "scale", ir.DataType.FLOAT, axis=0)
    scales.shape = None if found.shape is None else ir.Shape([*found.shape[:-1], 1])
    _replace(node, emit("Mul", [real, scales], "rows", ir.DataType.FLOAT), ctx)


@dataclass(frozen=True, slots=True)
class _Rows:
    """A weight with one row per output channel.

    Attributes:
        tensor: Stored codes; read when they are needed, a large weight is not kept.
        turned: Whether rows are the second axis of what is stored.
        scale: float32 ``[N, B]``.
        zero_point: int64 ``[N, B]``.
        block: Codes per block; a whole row where there is one.
        depth: Codes of a row.
    """

    tensor: ir.TensorProtocol
    turned: bool
    scale: NDArray[np.float32]
    zero_point: NDArray[np.int64]
    block: int
    depth: int

    def array(self) -> NDArray[np.int8]:
        """The codes ``[N, K]``."""
        stored = np.asarray(self.tensor.numpy()).astype(np.int8)
        return np.ascontiguousarray(stored.T) if self.turned else stored

    @property
    def bits(self) -> int:
        """The narrowest width that holds all codes and zero points."""
        found = [packing.least_bits(item) for item in (self.array(), self.zero_point)]
        return max(BYTE if bits is None else bits for bits in found)


def _rows(node: ir.Node, weight: Codes) -> _Rows:
    """The weight as the operator wants it: blocks along the second axis."""
    summed = block_axis(node) or 0
    shape = [size for size in weight.value.shape or () if isinstance(size, int)]
    rows, depth = shape[1 - summed], shape[summed]
    block = weight.block or depth
    scale = _per_block(np.asarray(weight.scale, np.float32), summed, rows, blocked=bool(weight.block))
    zero = _per_block(np.asarray(weight.zero_point, np.int64), summed, rows, blocked=bool(weight.block))
    tensor = weight.value.const_value
    axis = summed if weight.block else 1 - summed
    if tensor is None or weight.axis % 2 != axis or scale.shape != (rows, blocks(depth, block)):
        raise PassError(
            f"its weight {shape} has scales along axis {weight.axis}, {scale.size} of them",
            where=node.name,
            hint=f"blocks lie along the axis that is summed over: axis={summed}; without blocks: axis={1 - summed}",
        )
    return _Rows(tensor, summed == 0, scale, zero, block, depth)


def _per_block(parameter: NDArray[Any], summed: int, rows: int, *, blocked: bool) -> NDArray[Any]:
    """Scales or zero points ``[N, B]``."""
    if blocked:
        return np.moveaxis(parameter, summed, -1)
    return np.ascontiguousarray(np.broadcast_to(parameter.reshape(-1, 1), (rows, 1)))


def _lower(node: ir.Node, weight: Codes, ctx: Context) -> None:
    rows, edit = _rows(node, weight), ctx.edit
    base = str(weight.value.name).removesuffix("_quantized")
    scale, multiplier = weight_scales.split(rows.scale)
    symmetric = not rows.zero_point.any()
    zero = np.zeros((1, 1), np.int8) if symmetric else rows.zero_point.astype(np.int8)
    bits, count = rows.bits, rows.scale.shape[0]
    packed = ir.LazyTensor(
        functools.partial(_packed, rows, bits),
        dtype=ir.DataType.UINT8,
        shape=ir.Shape((count, packing.packed_width(rows.depth, bits))),
        cache=False,
        name=f"{base}_packed",
    )
    constants = [
        edit.constant(f"{base}_{name}", content)
        for name, content in (("packed", packed), ("block_multiplier", multiplier), ("scale", scale), ("zero", zero))
    ]
    product = edit.insert(
        "QMatMulWeightOnly",
        [node.inputs[0], *constants],
        attributes={"bits": bits, "block": rows.block, "weight_shape": [count, rows.depth]},
        domain=DOMAIN,
        name=f"{node.name}_QMatMulWeightOnly",
        output_name=f"{node.outputs[0].name}_product",
        before=node,
    ).outputs[0]
    product.type, product.shape = ir.TensorType(ir.DataType.FLOAT), node.outputs[0].shape
    _replace(node, _biased(node, product, ctx), ctx)


def _packed(rows: _Rows, bits: int) -> ir.Tensor[Any]:
    return ir.Tensor(packing.pack(rows.array(), bits))


def _biased(node: ir.Node, product: ir.Value, ctx: Context) -> ir.Value:
    """The product with Gemm's bias."""
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None:
        return product
    add = ctx.edit.insert(
        "Add", [product, bias], name=f"{node.name}_bias", output_name=f"{product.name}_biased", before=node
    )
    add.outputs[0].type, add.outputs[0].shape = product.type, node.outputs[0].shape
    return add.outputs[0]


def _replace(node: ir.Node, result: ir.Value, ctx: Context) -> None:
    old, name = node.outputs[0], node.outputs[0].name
    ctx.edit.replace_uses(old, result)
    ctx.edit.remove_unused([old])
    result.name = name  # under its name it is compared with the float one
