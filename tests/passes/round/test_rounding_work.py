"""What fitting codes takes: counted over weights of linear nodes, and what the recipe makes of it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from qcompiler.passes.recipe._candidates import mostly_few_bits, roundings
from qcompiler.passes.round.rounding_work import AFFORDABLE, affordable, rounding_work
from qcompiler.quant import state
from qcompiler.quant.format import QFormat
from qcompiler.quant.state import TensorQuant


def network(width: int = 4) -> ir.Model:
    """A convolution of 3 to ``width`` channels, a matrix product, and one of two activations."""
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[1,3,5,5] x) => (float[1,W,3,3] z) {
       c = Conv (x, w)
       m = MatMul (c, v)
       z = MatMul (m, m) }""".replace("W", str(width))
    proto = onnx.parser.parse_model(text)
    for name, shape in {"w": (width, 3, 3, 3), "v": (3, 3)}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def test_every_weight_is_multiplied_by_all_inputs_of_its_sum() -> None:
    assert rounding_work(network().graph) == 4 * 27**2 + 3 * 3**2
    assert rounding_work(list(network().graph)[2:]) == 0  # a product of activations has no weight


def test_turns_are_left_out_where_they_take_minutes() -> None:
    small, large = network(), network()
    conv = large.graph.node(0)
    weight = conv.inputs[1]
    assert weight is not None
    weight.shape = ir.Shape([int(AFFORDABLE) // 27**2 + 1, 3, 3, 3])
    assert affordable(small.graph)
    assert not affordable(large.graph)
    assert not affordable(list(small.graph)[2:])  # nothing to fit
    assert any(text.startswith("round-alternating") for text in roundings("normal", 4))
    assert not any(text.startswith("round-alternating") for text in roundings("normal", 4, turns=False))
    assert any(text.startswith("round-alternating") for text in roundings("high", 4, turns=False))


def test_gradients_take_half_of_the_weights_in_few_bits() -> None:
    model = network()
    conv, product, _ = model.graph
    state.set_edge_quant(product, 1, TensorQuant(QFormat.parse("i2/sym")))
    state.set_edge_quant(conv, 1, TensorQuant(QFormat.parse("i4/sym/axis=0")))
    assert not mostly_few_bits(model.graph)  # 9 of 117 numbers
    state.set_edge_quant(conv, 1, TensorQuant(QFormat.parse("i2/sym/axis=0")))
    assert mostly_few_bits(model.graph)
    assert any("reconstruct" in text for text in roundings("normal", 2))
    assert not any("reconstruct" in text for text in roundings("normal", 2, gradients=False))
