"""Formats of values and edges: shared weights, ties, what a body reads."""

from __future__ import annotations

from dataclasses import replace

from qcompiler.quant import state
from qcompiler.quant.format import QFormat
from qcompiler.quant.state import FLOAT
from qcompiler.target.load import load

INPUT = "float[1,3,8,8] x"


def own_edges(model, name):
    """What each reader of a value takes of its own, by operator and output of the reader."""
    computed = (value for node in model.graph for value in node.outputs)
    found = next(value for value in (*model.graph.initializers.values(), *computed) if value.name == name)
    return {(node.op_type, node.outputs[0].name): state.own_edge_quant(node, index) for node, index in found.uses()}


def test_an_excluded_layer_reads_the_real_weight_it_shares(decide):
    body = "a = Conv(x, w) y = Conv(a, w)"
    model = decide(body, INPUT, "float[1,3,8,8] y", {"w": (3, 3, 1, 1)}, "cpu-x86", ("Conv_y",))
    assert own_edges(model, "w") == {("Conv", "a"): None, ("Conv", "y"): FLOAT}


def test_a_body_reads_the_real_weight_it_shares(decide):
    body = """a = Conv(x, w)
        y = If(k) <then_branch = t () => (float[1,3,8,8] p) { p = Conv(x, w) },
                   else_branch = e () => (float[1,3,8,8] q) { q = Relu(x) }>"""
    model = decide(body, f"{INPUT}, bool k", "float[1,3,8,8] y, float[1,3,8,8] a", {"w": (3, 3, 1, 1)}, "cpu-x86")
    assert own_edges(model, "w") == {("Conv", "a"): None, ("Conv", "p"): FLOAT}


def test_a_table_that_is_also_a_weight_keeps_both_decisions(decide, kept):
    """``edge-npu`` gathers codes; the product reads the same constant with scales per channel."""
    body = "e = Gather(w, i) m = MatMul(e, v) y = MatMul(m, w)"
    model = decide(body, "int64[4] i", "float[4,8] y", {"w": (16, 8), "v": (8, 16)}, "edge-npu")
    product = next(node for node in model.graph if node.outputs[0].name == "y")
    form = state.edge_quant(product, 1).format
    assert str(form) == "i8/sym/narrow/axis=1"
    gather = next(node for node in model.graph if node.op_type == "Gather")
    assert state.edge_quant(gather, 0).format == kept(model)["e"].format


def test_results_of_a_split_share_one_format(decide, kept):
    """One part is read wide, the other is not: codes are moved, so both are of one type."""
    body = "a = Conv(x, w) p, q = Split <axis = 1, num_outputs = 2> (a) s = Sigmoid(q) y = Conv(p, v)"
    weights = {"w": (4, 3, 1, 1), "v": (2, 2, 1, 1)}
    model = decide(body, INPUT, "float[1,2,8,8] y, float[1,2,8,8] s", weights, "edge-npu")
    formats = kept(model)
    assert formats["a"].format == formats["p"].format == formats["q"].format
    assert formats["a"].tie == formats["p"].tie == formats["q"].tie is not None


def test_an_unused_result_of_a_split_follows_the_others(decide, kept):
    body = "a = Conv(x, w) p, q = Split <axis = 1, num_outputs = 2> (a) y = Conv(q, v)"
    model = decide(body, INPUT, "float[1,2,8,8] y", {"w": (4, 3, 1, 1), "v": (2, 2, 1, 1)}, "edge-npu")
    formats = kept(model)
    assert formats["a"].format == formats["q"].format
    assert "p" not in formats


def test_moved_codes_are_widened_before_they_are_moved(decide, kept):
    """A convolution that writes 8 bits only, a normalization that wants 16, a Transpose between them."""
    target = load("edge-npu")
    operators = dict(target.operators) | {"Conv": replace(target.operators["Conv"], outputs=(QFormat.parse("i8"),))}
    body = "a = Conv(x, w) t = Transpose <perm = [0, 2, 3, 1]> (a) y = LayerNormalization(t, g)"
    weights = {"w": (4, 3, 1, 1), "g": (4,)}
    model = decide(body, INPUT, "float[1,8,8,4] y", weights, replace(target, operators=operators))
    formats = kept(model)
    assert (formats["a"].format.bits, formats["t"].format.bits) == (8, 16)
    widened = own_edges(model, "a")["Transpose", "t"]
    assert (widened.format, widened.tie) == (formats["t"].format, formats["t"].tie)


def test_a_bias_vector_that_is_also_an_operand(decide, kept):
    """One constant: absorbed as a bias behind one product, an operand of its own elsewhere."""
    body = "m = MatMul(x, w) a = Add(m, c) s = Mul(a, c) y = MatMul(s, v)"
    model = decide(body, "float[2,8] x", "float[2,4] y", {"w": (8, 8), "c": (8,), "v": (8, 4)}, "edge-npu")
    assert kept(model)["c"].format.bits == 16
    assert own_edges(model, "c") == {("Add", "a"): FLOAT, ("Mul", "s"): None}


def test_a_kernel_with_a_scale_of_its_own_decides_the_parameters(decide, kept):
    body = "a = Conv(x, w) s = Sigmoid(a) r = Reshape(s, n) y = Gemm(r, v)"
    model = decide(body, f"{INPUT}, int64[2] n", "float[1,4] y", {"w": (4, 3, 1, 1), "v": (256, 4)}, "mcu")
    params = kept(model)["s"].params
    assert (float(params.scale), int(params.zero_point)) == (2.0**-8, -128)
    assert kept(model)["a"].params is None


def test_kernels_with_one_type_for_all_write_what_they_read(decide, kept):
    """On ``mcu`` a Transpose takes 8 bits only: what it reads is narrowed behind the convolution, not inside it."""
    body = "a = Conv(x, w) t = Transpose <perm = [0, 2, 3, 1]> (a) y = Softmax(t)"
    target = load("mcu")
    model = decide(f"{body} z = Mul(y, y)", INPUT, "float[1,8,8,4] z", {"w": (4, 3, 1, 1)}, replace(
        target, default_format="w8a16"))  # fmt: skip
    formats = kept(model)
    assert str(formats["a"].format) == "i16/sym"
    assert str(own_edges(model, "a")["Transpose", "t"].format) == "i8"
    assert str(formats["t"].format) == "i8"
    assert str(own_edges(model, "t")["Softmax", "y"].format) == "i16/sym"
    assert str(formats["z"].format) == "i16/sym"


def test_results_of_8_bit_kernels_stay_8_bits_where_types_may_not_mix(decide, kept):
    body = "y = Conv(x, w)"
    for target, form in (("mcu", "i8"), ("edge-npu", "i16")):
        assert str(kept(decide(body, INPUT, "float[1,4,8,8] y", {"w": (4, 3, 1, 1)}, target))["y"].format) == form
