"""Activation codes of 4 bits become bytes: int8 between the least and the greatest code of 4 bits.

Q/DQ form says 4 bits with ONNX's own types, INT4 and UINT4. Integer operators read and write bytes: kernels multiply
bytes, and half the memory traffic would not pay for taking two codes out of each. So ``q4 = clip(v, -8, 7)`` becomes
``clip(clip(v, -128, 127), -8, 7)``, which is the same number for every ``v``: QuantizeLinear writes int8 and a Clip of
codes follows it, which ``fuse-clamp`` makes the bounds of whatever operator takes the place of the QuantizeLinear.
Unsigned codes are moved by -8, as ``signed_codes`` does with bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx_ir as ir

from qcompiler.ir import constants
from qcompiler.ir.edit import Edit
from qcompiler.ir.operators import has_type
from qcompiler.passes.lower.signed_codes import code_type

__all__ = ["make_bytes"]

_LEAST: Final = -8
_GREATEST: Final = 7
_OFFSETS: Final = {ir.DataType.INT4: 0, ir.DataType.UINT4: 8}
"""What is subtracted from a code and its zero point."""


def make_bytes(graph: ir.Graph, edit: Edit) -> int:
    """Let every QuantizeLinear that writes 4 bits write bytes in their range.

    Codes that leave the graph, that an operator other than DequantizeLinear reads, or that have several scales keep
    their type.

    Returns:
        The number of tensors that changed.
    """
    changed = 0
    for node in list(graph):
        if not has_type(node, "QuantizeLinear") or code_type(node) not in _OFFSETS:
            continue
        readers = [use.node for use in node.outputs[0].uses()]
        if node.outputs[0].is_graph_output() or not all(has_type(reader, "DequantizeLinear") for reader in readers):
            continue
        if all(_one_scale(item) for item in (node, *readers)):
            _widen(node, readers, edit)
            changed += 1
    return changed


def _one_scale(node: ir.Node) -> bool:
    parameters = [constants.array(value) for value in node.inputs[1:]]
    return all(item is not None and item.size == 1 for item in parameters)


def _widen(node: ir.Node, readers: Sequence[ir.Node], edit: Edit) -> None:
    codes, offset = node.outputs[0], _OFFSETS[code_type(node)]
    for item in (node, *readers):
        stored = constants.array(item.inputs[2]) if len(item.inputs) > 2 else None
        zero = np.zeros((), np.int64) if stored is None else stored.astype(np.int64).reshape(())
        edit.set_input(item, 2, edit.constant(f"{codes.name}_zero_point", (zero - offset).astype(np.int8)))
    if "output_dtype" in node.attributes:
        edit.set_attribute(node, "output_dtype", None)
    codes.type = ir.TensorType(ir.DataType.INT8)
    ends = [edit.constant(f"{codes.name}_{name}", np.array(code, np.int8))
            for name, code in (("least", _LEAST), ("greatest", _GREATEST))]  # fmt: skip
    name = f"{codes.name}_clip"
    clipped = edit.insert("Clip", [codes, *ends], after=node, name=name, output_name=f"{name}ped").outputs[0]
    clipped.type, clipped.shape = ir.TensorType(ir.DataType.INT8), codes.shape
    for reader in readers:
        edit.set_input(reader, 0, clipped)
