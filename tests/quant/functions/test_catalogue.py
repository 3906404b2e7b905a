from __future__ import annotations

import onnx
import pytest

from qcompiler.quant.functions import catalogue
from qcompiler.quant.functions.definition import DOMAIN, Operator, broadcast

OPERATORS = list(catalogue.operators().values())
FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}


def every_node(graph: onnx.FunctionProto | onnx.GraphProto) -> list[onnx.NodeProto]:
    nodes = list(graph.node)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                nodes += every_node(attribute.g)
    return nodes


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.name)
class TestEveryOperator:
    @pytest.mark.parametrize("opset", [18, 21, 25])
    def test_its_body_is_made_of_standard_operators(self, operator: Operator, opset: int) -> None:
        for node in operator.function(opset).node:
            if node.domain == DOMAIN:
                assert node.op_type in operator.calls
            else:
                assert onnx.defs.has(node.op_type, opset), node.op_type

    def test_its_body_divides_nothing_and_holds_no_float(self, operator: Operator) -> None:
        if operator.real:
            pytest.skip("its activations are real numbers and become integers inside")
        for node in every_node(operator.function(21)):
            assert node.op_type not in ("Div", "Mod", "Reciprocal", "DequantizeLinear", "QuantizeLinear")
            for attribute in node.attribute:
                assert attribute.type not in (onnx.AttributeProto.FLOAT, onnx.AttributeProto.FLOATS)
                assert attribute.t.data_type not in FLOATS
                assert not (attribute.name == "to" and attribute.i in FLOATS)

    def test_what_it_says_of_itself_fits_its_function(self, operator: Operator) -> None:
        function = operator.function(21)
        assert tuple(function.input) == operator.inputs
        assert set(operator.types) == set(operator.inputs)
        assert set(function.attribute) == set(operator.attributes)
        assert set(operator.attributes.values()) <= {"int", "ints"}
        assert operator.formula
        assert operator.bound

    def test_attributes_are_used(self, operator: Operator) -> None:
        used = {item.ref_attr_name for node in every_node(operator.function(21)) for item in node.attribute}
        assert set(operator.attributes) <= used


def test_shapes_broadcast_as_in_numpy() -> None:
    assert broadcast((2, "N", 4), (4,)) == (2, "N", 4)
    assert broadcast(("N", 1), (1, 5)) == ("N", 5)
    assert broadcast(("N", 3), ("M", 3)) == (None, 3)
    assert broadcast((2,), None) is None
