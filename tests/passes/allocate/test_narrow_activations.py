"""``w4a4``: which tensors get 4 bits, which keep 8. Formats are of values; ``reader[index]`` is an edge of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qcompiler.quant import state
from qcompiler.quant.format import QFormat
from qcompiler.quant.state import TensorQuant
from qcompiler.target.load import load

TARGET = replace(load("lowbit-cpu"), default_format="w4a4")
IMAGE = "float[1,4,8,8] x"


def formats(model):
    """Formats of values by name, and of edges that differ by reader and input."""
    found = {str(value.name): str(quant.format) for value, quant in state.quantized_values(model.graph)}
    for node in model.graph:
        for index in range(len(node.inputs)):
            own = state.own_edge_quant(node, index)
            if isinstance(own, TensorQuant) and index == 0:
                found[f"{node.outputs[0].name}[{index}]"] = str(own.format)
    return {name: form for name, form in found.items() if not name.startswith("w")}


def test_the_image_and_the_residual_stream_keep_8_bits(decide):
    body = """a = Conv(x, w1) r = Relu(a) b = Conv(r, w2) s = Relu(b) c = Conv(s, w3) d = Add(r, c) t = Relu(d)
              p = GlobalAveragePool(t) f = Flatten(p) y = Gemm(f, w4)"""
    shapes = {"w1": (4, 4, 1, 1), "w2": (4, 4, 1, 1), "w3": (4, 4, 1, 1), "w4": (4, 2)}
    model = decide(body, IMAGE, "float[1,2] y", shapes, TARGET)
    assert formats(model) == {
        "x": "i8",  # the image
        "r": "i8",  # the residual stream, which a convolution reads in 4 bits
        "b[0]": "i4",
        "s": "i4",  # from one convolution to the next
        "c": "i8",  # joins the stream
        "t": "i8",  # pooled as it is
        "p": "i4",  # what was pooled is read by a matrix product
        "f": "i4",
        "y": "i16",  # becomes real numbers
    }


@pytest.mark.parametrize("moved", ["Transpose <perm=[0,3,1,2]> (x)", "Reshape(x, k)"])
def test_an_image_that_is_moved_first_keeps_8_bits(decide, moved):
    body = f"k = Constant <value_ints=[1,4,16,8]> () m = {moved} n = MatMul(m, w) y = MatMul(n, w)"
    model = decide(body, "float[1,8,8,8] x", "float y", {"w": (8, 8)}, TARGET)
    found = formats(model)
    assert found.get("m", "i8") == "i8"
    assert found["n"] == "i4"


def test_codes_are_moved_in_4_bits(decide, kept):
    body = """a = Conv(x, w1) p = MaxPool <kernel_shape=[2,2], strides=[2,2]> (a)
              l, r = Split <axis=1, num_outputs=2> (p) c = Concat <axis=1> (r, l) y = Conv(c, w2)"""
    model = decide(body, IMAGE, "float[1,2,4,4] y", {"w1": (4, 4, 1, 1), "w2": (2, 4, 1, 1)}, TARGET)
    found = kept(model)
    assert {str(found[name].format) for name in ("a", "p", "l", "r", "c")} == {"i4"}
    assert len({found[name].tie for name in ("a", "p", "l", "r", "c")}) == 1


def test_functions_of_one_number_read_8_bits_and_write_4(decide):
    body = "a = Conv(x, w1) s = HardSwish(a) y = Conv(s, w2)"
    model = decide(body, IMAGE, "float[1,2,8,8] y", {"w1": (4, 4, 1, 1), "w2": (2, 4, 1, 1)}, TARGET)
    assert formats(model) == {"x": "i8", "a": "i8", "s": "i4", "y": "i16"}


def test_attention_multiplies_4_bits_and_normalizes_more(decide):
    body = """n = LayerNormalization(h, g) q = MatMul(n, w1) k = MatMul(n, w2) kt = Transpose <perm=[0,2,1]> (k)
              m = MatMul(q, kt) p = Softmax(m) y = MatMul(p, n)"""
    start = "e = MatMul(x, w0) h = Add(e, e) "
    shapes = {"w0": (8, 8), "w1": (8, 8), "w2": (8, 8), "g": (8,)}
    found = formats(decide(start + body, "float[1,6,8] x", "float y", shapes, TARGET))
    assert {found[name] for name in ("n", "q", "k", "kt", "p")} == {"i4"}
    assert found["x"] == "i8"
    assert {found[name] for name in ("h", "m")} == {"i16"}


@pytest.mark.parametrize("form", ["w8a8", "w4a8"])
def test_other_formats_have_no_4_bit_activation(decide, form):
    body = "a = Conv(x, w1) r = Relu(a) b = Conv(r, w2) y = Add(r, b)"
    target = replace(TARGET, default_format=form)
    model = decide(body, IMAGE, "float[1,4,8,8] y", {"w1": (4, 4, 1, 1), "w2": (4, 4, 1, 1)}, target)
    assert {QFormat.parse(text).bits for text in formats(model).values()} <= {8, 16}
