"""Bit operations: products of multiply-accumulates and the bits of both operands."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from qcompiler.analysis.bit_operations import bit_operations
from qcompiler.analysis.work import macs
from qcompiler.ir.edit import Edit
from qcompiler.ir.shapes import infer
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.pipeline.base import Context
from qcompiler.target.load import load


@pytest.mark.parametrize(
    ("target", "form", "bits"),
    [("edge-npu", "w4a8", 4 * 8), ("edge-npu", "w8a16", 8 * 16), ("lowbit-cpu", "w3", 3 * 32)],
)
def test_bits_are_those_of_the_formats(small_cnn: ir.Model, target: str, form: str, bits: int) -> None:
    infer(small_cnn)
    AssignFormats().run(small_cnn, Context(Edit(small_cnn), target=load(target), format=form))
    gemm = next(node for node in small_cnn.graph if node.op_type == "Gemm")
    assert bit_operations(small_cnn)[str(gemm.name)] == macs(gemm) * bits


def test_what_stays_float_counts_32_by_32(small_cnn: ir.Model) -> None:
    infer(small_cnn)
    found = bit_operations(small_cnn)
    assert found == {str(node.name): macs(node) * 1024 for node in small_cnn.graph if macs(node)}
    assert bit_operations(small_cnn, {"N": 2}) == {name: 2 * count for name, count in found.items()}
