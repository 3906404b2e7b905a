"""Unsigned codes become signed ones: ``u - 128`` at zero point ``z - 128`` stands for the same number.

Operators of ``ai.qcompiler`` take signed codes only. Graphs quantized for x86 hold unsigned ones; the recoding is
exact, because QuantizeLinear adds the zero point after it has rounded and saturates to the same numbers.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from qcompiler.ir import constants
from qcompiler.ir.edit import Edit

__all__ = ["make_signed"]

_SIGNED: Final = {ir.DataType.UINT8: ir.DataType.INT8, ir.DataType.UINT16: ir.DataType.INT16}
_MIDDLE: Final = {ir.DataType.UINT8: 1 << 7, ir.DataType.UINT16: 1 << 15}
_MOVERS: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})


def make_signed(model: ir.Model, edit: Edit) -> int:
    """Recode every unsigned activation, and every unsigned constant with one scale.

    Codes that enter or leave the graph, or that an operator other than Q/DQ reads, keep their type.

    Returns:
        The number of tensors recoded.
    """
    tensors: dict[ir.Value, list[ir.Node]] = {}
    for node in model.graph:
        if node.op_type not in _MOVERS or node.domain or _dtype(node) not in _SIGNED:
            continue
        codes = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0]
        if codes is not None:
            tensors.setdefault(codes, []).append(node)
    recoded = [codes for codes, nodes in tensors.items() if _may(codes, nodes)]
    for codes in recoded:
        _recode(codes, tensors[codes], edit)
    return len(recoded)


def _dtype(node: ir.Node) -> ir.DataType:
    """The type of the codes of a Q/DQ node: its zero point's, else its codes', else that of QuantizeLinear."""
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    codes = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0]
    for value in (zero, codes):
        if value is not None and value.dtype is not None and value.dtype is not ir.DataType.UNDEFINED:
            return value.dtype
    declared = node.attributes.get_int("output_dtype", 0)
    return ir.DataType(declared or ir.DataType.UINT8.value)


def _may(codes: ir.Value, nodes: list[ir.Node]) -> bool:
    if codes.is_graph_input() or codes.is_graph_output():
        return False
    readers = {use.node for use in codes.uses()}
    one_scale = all((scale := constants.array(node.inputs[1])) is not None and scale.size == 1 for node in nodes)
    return one_scale and readers <= set(nodes)


def _recode(codes: ir.Value, nodes: list[ir.Node], edit: Edit) -> None:
    unsigned = _dtype(nodes[0])
    signed, middle = _SIGNED[unsigned], _MIDDLE[unsigned]
    for node in nodes:
        old = constants.array(node.inputs[2]) if len(node.inputs) > 2 else None
        zero = np.zeros((), np.int64) if old is None else old.astype(np.int64)
        name = f"{codes.name}_zero_point"
        edit.set_input(node, 2, edit.constant(name, (zero - middle).astype(signed.numpy())))
        if "output_dtype" in node.attributes:
            edit.set_attribute(node, "output_dtype", None)
    content = constants.array(codes) if codes.producer() is None else None
    if content is not None:
        recoded = edit.constant(f"{codes.name}_signed", (content.astype(np.int64) - middle).astype(signed.numpy()))
        for node in nodes:
            edit.set_input(node, 0, recoded)
        edit.remove_unused([codes])
    else:
        codes.type = ir.TensorType(signed)
