"""A Q/DQ pair behind nodes that move signed 8-bit codes as real numbers, where runtimes need it to load the file.

From operator set 21 on ONNX Runtime moves the pair in front of such a node behind it, with an ``output_dtype`` that its
own rewriting of int8 to uint8 then contradicts (see "Traps" in ``targets/README.md``). A pair that stands there already
keeps it from that. It changes no number: what was moved are numbers that codes stand for, and they become the very same
codes again.
"""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from qcompiler.ir.constants import is_constant
from qcompiler.ir.edit import Edit
from qcompiler.ir.operators import has_type
from qcompiler.ir.uses import only_use

__all__ = ["FIRST_OPSET", "pair_moved_codes"]

FIRST_OPSET: Final = 21
"""First operator set in which QuantizeLinear has ``output_dtype``."""
_MOVERS: Final = ("MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
"""What ONNX Runtime (1.24 to 1.32) moves a DequantizeLinear through; each gives nothing but numbers it was given."""


def pair_moved_codes(graph: ir.Graph, edit: Edit) -> None:
    """Quantize again what a mover makes of dequantized int8 codes, where nothing behind it does."""
    for node in list(graph):  # what is inserted is read by movers further on
        if has_type(node, *_MOVERS) and (reader := _int8_reader(node.inputs[0])) is not None and not _requantized(node):
            _insert_pair(node, reader, edit)


def _int8_reader(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear with one scale that makes ``value`` of int8 codes of an activation."""
    node = value.producer() if value is not None else None
    if node is None or not has_type(node, "DequantizeLinear") or len(node.inputs) < 3:
        return None
    codes, scale, zero = node.inputs
    one = scale is not None and scale.shape is not None and len(scale.shape) == 0
    int8 = zero is not None and zero.dtype is ir.DataType.INT8
    return node if one and int8 and not is_constant(codes) else None


def _requantized(node: ir.Node) -> bool:
    """Whether codes are made of a mover's result, or of what further movers alone make of it.

    Behind further movers ONNX Runtime gives up only where QuantizeLinear alone reads: what also leaves there as numbers
    is refused (1.32), though behind the first mover it is not.
    """
    if any(has_type(use.node, "QuantizeLinear") for use in node.outputs[0].uses()):
        return True
    use = _next(node)
    while use is not None and has_type(use[0], *_MOVERS) and use[1] == 0:
        use = _next(use[0])
    return use is not None and has_type(use[0], "QuantizeLinear")


def _next(node: ir.Node) -> tuple[ir.Node, int] | None:
    """What alone reads a node's result."""
    return None if node.outputs[0].is_graph_output() else only_use(node.outputs[0])


def _insert_pair(node: ir.Node, reader: ir.Node, edit: Edit) -> None:
    moved = node.outputs[0]
    parameters, name = list(reader.inputs[1:3]), str(moved.name)
    quantize = edit.insert(
        "QuantizeLinear", [moved, *parameters], after=node, name=f"{name}_QuantizeLinear",
        output_name=f"{name}_quantized",
    )  # fmt: skip
    codes = quantize.outputs[0]
    codes.type, codes.shape = ir.TensorType(ir.DataType.INT8), moved.shape
    dequantize = edit.insert(
        "DequantizeLinear", [codes, *parameters], after=quantize, name=f"{name}_DequantizeLinear",
        output_name=f"{name}_dequantized",
    )  # fmt: skip
    dequantize.outputs[0].type, dequantize.outputs[0].shape = moved.type, moved.shape
    edit.replace_uses(moved, dequantize.outputs[0])
    edit.set_input(quantize, 0, moved)
