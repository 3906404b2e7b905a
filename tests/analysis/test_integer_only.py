"""integer_only(): what is float, and where, in graphs written by hand."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import pytest

from qcompiler.analysis.integer_only import FloatNode, final_codes, integer_only
from qcompiler.quant.functions.catalogue import attach

Parse = Callable[[str], ir.Model]


@pytest.fixture
def build(parse: Parse) -> Parse:
    """Makes a model with the functions that it uses."""

    def make(text: str) -> ir.Model:
        model = parse(text)
        if not model.functions:
            attach(model)
        return model

    return make


HEAD = '<ir_version: 10, opset_import: ["" : 21, "ai.qcompiler" : 1]>\n'
SCALES = "<float s = {0.1}, int8 z = {1}, int32 b = {1073741824}, uint8 c = {30}, float[4] w = {1,2,3,4}>"
RESCALE = "ai.qcompiler.Requantize<x_zero_point=1, y_zero_point=1, to=3, low=-128, high=127>"


def graph(*lines: str, outputs: str = "float[1,4] y") -> str:
    return f"{HEAD}m (float[1,4] x) => ({outputs}) {SCALES} {{\n" + "\n".join(lines) + "\n}"


INTEGER = (
    "[scale] h = Mul(x, w)",
    "[first] q = QuantizeLinear(h, s, z)",
    f"[rescale] r = {RESCALE}(q, b, c)",
    "[move] t = Transpose<perm=[1,0]>(r)",
    "[last] d = DequantizeLinear(t, s, z)",
    "[softmax] y = Softmax<axis=0>(d)",
)


def test_an_integer_graph_holds_and_names_what_lies_around(build: Parse) -> None:
    result = integer_only(build(graph(*INTEGER, outputs="float[4,1] y")))
    assert result.holds
    assert result.tensors == ()
    assert result.islands == ()
    assert result.head == (FloatNode("scale", "Mul"),)
    assert result.tail == (FloatNode("softmax", "Softmax"),)


ISLANDS = (
    "[first] q = QuantizeLinear(x, s, z)",
    "[d1] a = DequantizeLinear(q, s, z)",
    "[sine] e = Sin(a)",
    "[cosine] f = Cos(e)",
    "[q2] g = QuantizeLinear(f, s, z)",
    f"[rescale] r = {RESCALE}(g, b, c)",
    "[d2] h = DequantizeLinear(r, s, z)",
    "[q3] i = QuantizeLinear(h, s, z)",
    "[d3] j = DequantizeLinear(i, s, z)",
    "[tangent] k = Tan(j)",
    "[q4] l = QuantizeLinear(k, s, z)",
    "[last] y = DequantizeLinear(l, s, z)",
)


def test_islands_are_counted_named_and_justified(build: Parse) -> None:
    model = build(graph(*ISLANDS))
    result = integer_only(model, {"sine": "Sin has no integer form", "cosine": "its input 0 ('e') is float"})
    assert not result.holds
    assert result.tensors == ("a", "e", "f", "h", "j", "k")
    assert [[node.name for node in island.nodes] for island in result.islands] == [
        ["sine", "cosine"],
        ["d2"],
        ["tangent"],
    ]
    assert [island.tensors for island in result.islands] == [3, 1, 2]
    assert result.islands[0].reasons == ("Sin has no integer form", "its input 0 ('e') is float")
    assert result.islands[2].reasons == ()
    assert result.head == result.tail == ()


def test_codes_may_come_from_a_table(build: Parse) -> None:
    """An embedding of codes: there is no QuantizeLinear before the first float node."""
    table = SCALES.replace("<float s", "<int8[3,2] e = {1,2,3,4,5,6}, float s")
    model = build(f"""{HEAD}m (int64[1] i) => (float[1,2] y) {table} {{
  [embedding] q = Gather(e, i)
  [d1] a = DequantizeLinear(q, s, z)
  [sine] f = Sin(a)
  [q2] g = QuantizeLinear(f, s, z)
  [last] y = DequantizeLinear(g, s, z)
}}""")
    assert integer_only(model).tensors == ("a", "f")
    assert final_codes(model) == ["g"]


def test_constants_are_not_inside(build: Parse) -> None:
    """A bias that is dequantized beside an island comes from no QuantizeLinear; what reads it does."""
    model = build(graph(
        "[first] q = QuantizeLinear(x, s, z)",
        "[d1] a = DequantizeLinear(q, s, z)",
        "[weight] v = DequantizeLinear(z, s, z)",
        "[add] e = Add(a, v)",
        "[q2] g = QuantizeLinear(e, s, z)",
        "[last] y = DequantizeLinear(g, s, z)",
    ))  # fmt: skip
    assert integer_only(model).tensors == ("a", "e")


def test_a_branch_that_is_not_quantized_belongs_to_the_tail(build: Parse) -> None:
    model = build(graph(
        "[first] q = QuantizeLinear(x, s, z)",
        "[d1] a = DequantizeLinear(q, s, z)",
        "[mask] m = Neg(x)",
        "[join] y = Mul(a, m)",
    ))  # fmt: skip
    result = integer_only(model)
    assert result.holds
    assert [node.name for node in result.tail] == ["mask", "join"]


def test_a_float_inside_a_body_that_reads_codes_counts(build: Parse) -> None:
    model = build(
        HEAD
        + f"m (float[1,4] x, bool k) => (float[1,4] y) {SCALES}"
        + """ {
  [first] q = QuantizeLinear(x, s, z)
  [choice] e = If (k) <
    then_branch = one () => (float[1,4] t) { t = DequantizeLinear(q, s, z) },
    else_branch = two () => (float[1,4] f) { f = Cast<to=1>(q) }>
  [q2] g = QuantizeLinear(e, s, z)
  [last] y = DequantizeLinear(g, s, z)
}"""
    )
    result = integer_only(model)
    assert result.tensors == ("e",)
    assert result.islands[0].nodes == (FloatNode("choice", "If"),)


def test_divisions_and_float_attributes_inside(build: Parse) -> None:
    model = build(graph(
        "[first] q = QuantizeLinear(x, s, z)",
        "[wide] a = Cast<to=6>(q)",
        "three = Constant<value = int32 {3}>()",
        "[divide] e = Div(a, three)",
        "[narrow] f = Cast<to=3>(e)",
        "[resize] g = Resize<cubic_coeff_a = 0.5, mode=\"nearest\">(f, , , size)",
        "[last] y = DequantizeLinear(g, s, z)",
    ).replace("uint8 c", "int64[2] size = {1,4}, uint8 c"))  # fmt: skip
    result = integer_only(model)
    assert result.divisions == ("divide",)
    assert result.attributes == ("resize.cubic_coeff_a",)
    assert result.tensors == ()
    assert not result.holds


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("y = Identity(x)", ()),
        ("y = Div(x, x)", ("Odd: Div",)),
        (
            "h = Constant<value_float = 1.5>()\n y = Identity(x)",
            ("Odd: Constant has the float attribute 'value_float'",),
        ),
        ("h = Constant<value = float {1.5}>()\n y = Identity(x)", ("Odd: Constant holds floats",)),
        ("h = Cast<to=10>(x)\n y = Cast<to=3>(h)", ("Odd: Cast to float",)),
    ],
)
def test_bodies_of_functions_are_looked_into(build: Parse, statement: str, found: tuple[str, ...]) -> None:
    body = f'\n<domain: "ai.qcompiler", opset_import: ["" : 21]> Odd (x) => (y) {{ {statement} }}'
    model = build(graph(*INTEGER, outputs="float[4,1] y").replace(f"{RESCALE}(q, b, c)", "ai.qcompiler.Odd(q)") + body)
    result = integer_only(model)
    assert result.functions == found
    assert result.holds is (not found)


def test_products_of_real_activations_are_no_codes(build: Parse) -> None:
    """Weight-only operators quantize inside themselves: what they give is real, before as behind them."""
    product = "p = ai.qcompiler.QMatMulWeightOnly<bits=4, block=32, weight_shape=[4, 4]>(x, w, m, s, z)"
    head = "g (float[2,4] x, uint8[4,4] w, uint16[4,1] m, float[4] s, int8[1,1] z) => (float[2,4] y)"
    model = build(f"{HEAD}{head} {{ {product} y = Relu(p) }}")
    found = integer_only(model)
    assert found.holds
    assert not found.head


def test_a_float_model_has_no_inside(build: Parse) -> None:
    model = build(graph("[one] y = Neg(x)"))
    result = integer_only(model)
    assert result.holds
    assert result.tail == (FloatNode("one", "Neg"),)
