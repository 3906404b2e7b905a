"""Every fact has a checker that can say no."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.ir.facts import check
from qcompiler.pipeline.base import Fact
from qcompiler.quant import state
from qcompiler.quant.format import QFormat
from qcompiler.quant.params import params_from_range
from qcompiler.quant.state import NodeDecision, TensorQuant

U8 = QFormat.parse("u8")
HEAD = '<ir_version: 10, opset_import: ["" : 21, "custom" : 1]>'


def nodes(model: ir.Model) -> dict[str, ir.Node]:
    return {str(node.name): node for node in model.graph}


def test_every_fact_has_a_checker(small_cnn: ir.Model) -> None:
    for fact in Fact:
        assert isinstance(check(fact, small_cnn), list)


@pytest.mark.parametrize("fact", [Fact.TYPED, Fact.SORTED, Fact.CANONICAL, Fact.CALIBRATED, Fact.QDQ])
def test_holds_on_a_clean_model(small_cnn: ir.Model, fact: Fact) -> None:
    assert check(fact, small_cnn) == []


def test_typed(small_cnn: ir.Model) -> None:
    nodes(small_cnn)["relu"].outputs[0].type = None
    (said,) = check(Fact.TYPED, small_cnn)
    assert "'relu', output of relu (Relu)" in said


def test_typed_forgives_what_depends_on_unknown_operators(parse: Callable[[str], ir.Model]) -> None:
    model = parse(HEAD + "m (float[2] x) => (float[2] y) { a = custom.Magic(x)  b = Relu(a)  y = Neg(b) }")
    assert check(Fact.TYPED, model) == []


def test_sorted(small_cnn: ir.Model) -> None:
    relu, pool = nodes(small_cnn)["relu"], nodes(small_cnn)["pool"]
    small_cnn.graph.remove(relu)
    small_cnn.graph.insert_after(pool, relu)
    assert check(Fact.SORTED, small_cnn) == ["pool (MaxPool) comes before relu (Relu), which feeds it"]


def test_sorted_sees_captured_values(parse: Callable[[str], ir.Model]) -> None:
    model = parse(HEAD + """main (bool c, float[2] x) => (float[2] y) {
        [neg] k = Neg(x)
        [if] y = If(c) <then_branch = a () => (float[2] t) { t = Add(x, k) },
                        else_branch = b () => (float[2] e) { e = Neg(x) }>
    }""")
    assert check(Fact.SORTED, model) == []
    branch, neg = nodes(model)["if"], nodes(model)["neg"]
    model.graph.remove(neg)
    model.graph.insert_after(branch, neg)
    assert check(Fact.SORTED, model) == ["if (If) comes before neg (Neg), which feeds it"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{ [k] k = Constant<value_ints = [1]>()  [a] y = Squeeze(x, k) }", "k (Constant) should be an initializer"),
        ("{ [i] a = Identity(x)  [n] y = Neg(a) }", "i (Identity) does nothing"),
        ("{ [d] a = Dropout(x)  [n] y = Neg(a) }", "d (Dropout) does nothing"),
        ("{ [n] a = Neg(x)  [n] y = Neg(a) }", "node name 'n' is used twice (Neg)"),
        ("{ y = Neg(x) }", "node name '' is missing (Neg)"),
    ],
)
def test_canonical(parse: Callable[[str], ir.Model], text: str, said: str) -> None:
    assert check(Fact.CANONICAL, parse(HEAD + "m (float[2] x) => (float[2] y) " + text)) == [said]


def test_canonical_allows_an_identity_that_names_an_output(parse: Callable[[str], ir.Model]) -> None:
    assert check(Fact.CANONICAL, parse(HEAD + "m (float[2] x) => (float[2] y) { [i] y = Identity(x) }")) == []


def test_canonical_opset_and_inputs(small_cnn: ir.Model) -> None:
    small_cnn.graph.opset_imports[""] = 17
    small_cnn.graph.inputs.append(small_cnn.graph.initializers["fc_bias"])
    assert check(Fact.CANONICAL, small_cnn) == [
        "the opset is 17, not 21 to 25", "initializer 'fc_bias' is also an input"
    ]


def test_formats_and_calibrated(small_cnn: ir.Model) -> None:
    assert len(check(Fact.FORMATS, small_cnn)) == 5
    for node in small_cnn.graph:
        state.set_node_decision(node, NodeDecision(True))
    assert check(Fact.FORMATS, small_cnn) == []
    state.set_node_decision(nodes(small_cnn)["pool"], NodeDecision(False))
    assert check(Fact.FORMATS, small_cnn) == ["pool (MaxPool) stays float without a reason"]
    relu = nodes(small_cnn)["relu"]
    state.set_value_quant(relu.outputs[0], TensorQuant(U8))
    state.set_edge_quant(relu, 0, TensorQuant(U8))
    assert check(Fact.CALIBRATED, small_cnn) == [
        "'relu' (u8) has no parameters", "input 0 of relu (u8) has no parameters"
    ]
    known = TensorQuant(U8, params_from_range(0.0, 1.0, U8))
    state.set_value_quant(relu.outputs[0], known)
    state.set_edge_quant(relu, 0, known)
    assert check(Fact.CALIBRATED, small_cnn) == []
    assert check(Fact.QDQ, small_cnn) == ["nodes are decided to run on integers, but there is no Q/DQ node"]


@pytest.mark.parametrize("scale", [0.0, -1.0, np.inf, np.nan])
def test_qdq_scales(parse: Callable[[str], ir.Model], scale: float) -> None:
    model = parse(HEAD + "m (float[2] x) => (uint8[2] y) <float s = {1}, uint8 z = {3}>"
                         "{ [q] y = QuantizeLinear(x, s, z) }")
    assert check(Fact.QDQ, model) == []
    model.graph.initializers["s"].const_value = ir.Tensor(np.array(scale, np.float32))
    assert check(Fact.QDQ, model) == ["a scale of q is not a positive finite number"]
