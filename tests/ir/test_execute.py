"""Sessions on models in memory give what the graph says, whatever ONNX Runtime makes of it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from qcompiler.ir.execute import Runner

DEPTH, WIDTH, BLOCK = 128, 64, 32


def weight_only() -> ir.Model:
    """A product of real numbers with 4-bit weights in blocks, which ONNX Runtime fuses."""
    rng = np.random.default_rng(0)
    codes = rng.integers(-8, 8, (DEPTH, WIDTH)).astype(np.int8)
    scale = rng.uniform(0.01, 0.02, (DEPTH // BLOCK, WIDTH)).astype(np.float32)
    nodes = [
        helper.make_node("DequantizeLinear", ["codes", "scale"], ["w"], axis=0, block_size=BLOCK),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    packed = helper.make_tensor("codes", TensorProto.INT4, codes.shape, codes.flatten().tolist())
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, DEPTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, WIDTH])],
        [packed, numpy_helper.from_array(scale, "scale")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return ir.from_proto(model)


def test_real_operands_of_products_with_few_bits_stay_real() -> None:
    feed = {"x": np.random.default_rng(1).normal(size=(3, DEPTH)).astype(np.float32)}
    fused, plain = (Runner(weight_only(), optimize=optimize).run(feed)["y"] for optimize in (True, False))
    assert np.abs(fused - plain).max() <= 1e-5 * np.abs(plain).max()
