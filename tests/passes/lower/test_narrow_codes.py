"""Codes of less than 8 bits: the Clip behind a QuantizeLinear becomes the bounds of the operator that writes them."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcompiler.ir.edit import Edit
from qcompiler.passes.lower.compose_tables import ComposeTables
from qcompiler.passes.lower.drop_round_trips import DropRoundTrips
from qcompiler.passes.lower.fuse_clamp import FuseClamp
from qcompiler.passes.lower.lower_integer import LowerInteger
from qcompiler.pipeline.base import Context
from qcompiler.target.load import load
from tests.passes.lower.graphs import operators, run

HEAD = """<ir_version: 10, opset_import: ["" : 21]> g (float[N,2,4] x) => (float[N,K,L] y)
<float s = {0.05}, int8 z = {3}, float t = {0.11}, int8 zt = {-5}, float v = {0.3}, int8 lo = {-8}, int8 hi = {7}> {
  a = QuantizeLinear(x, s, z) b = DequantizeLinear(a, s, z)
"""
FEED = {"x": np.linspace(-2, 3, 48, dtype=np.float32).reshape(6, 2, 4)}


def pair(source: str, result: str, scale: str = "t") -> str:
    """A tensor in codes of 4 bits, as ``place-qdq`` writes it."""
    q, c = f"{result}q", f"{result}c"
    written = f"{q} = QuantizeLinear({source}, {scale}, zt) {c} = Clip({q}, lo, hi) "
    return f"{written} {result} = DequantizeLinear({c}, {scale}, zt) "


def lowered(body: str) -> ir.Model:
    """Lowered, its clamps and tables fused; checked to compute what the Q/DQ graph does."""
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(HEAD + body + "}")))
    wanted = run(model, FEED, optimize=False)[0]
    ctx = Context(edit=Edit(model), target=load("lowbit-cpu"))
    for item in (LowerInteger(), DropRoundTrips(), FuseClamp(), ComposeTables()):
        item.run(model, ctx)
    found = run(model, FEED)[0]
    np.testing.assert_array_equal(found, wanted)
    assert len(np.unique(found)) > 4
    return model


def bounds(model: ir.Model, op_type: str) -> list[int]:
    (node,) = [node for node in model.graph if node.op_type == op_type]
    return [node.attributes[name].as_int() for name in ("low", "high")]


def test_a_rescale_writes_codes_of_4_bits() -> None:
    model = lowered(pair("b", "y"))
    assert operators(model) == ["Requantize"]
    assert bounds(model, "Requantize") == [-8, 7]


@pytest.mark.parametrize(
    ("op", "low"), [("Transpose <perm=[0,2,1]> (d)", -8), ("MaxPool <kernel_shape=[2]> (d)", -8), ("Relu(d)", -5)]
)
def test_clamps_behind_codes_that_were_moved_vanish(op: str, low: int) -> None:
    model = lowered(pair("b", "d") + f"e = {op} " + pair("e", "y"))
    assert "Clip" not in operators(model)
    assert bounds(model, "Requantize") == [low, 7]


def test_a_sum_writes_codes_of_4_bits() -> None:
    model = lowered("c = Add(b, b) " + pair("c", "y"))
    assert operators(model) == ["QAdd"]
    assert bounds(model, "QAdd") == [-8, 7]


def test_a_table_writes_codes_of_4_bits() -> None:
    assert operators(lowered("c = HardSwish(b) " + pair("c", "y", "v"))) == ["QLookup"]


def test_codes_that_are_read_in_8_bits_as_well_keep_their_range() -> None:
    """One reader takes what 4 bits hold, the other all of the same codes."""
    wide = "cq = QuantizeLinear(c, t, zt) e = DequantizeLinear(cq, t, zt) f = Concat <axis=1> (e, d) "
    model = lowered("c = Add(b, b) " + pair("c", "d") + wide + "fq = QuantizeLinear(f, t, zt) "
                    "y = DequantizeLinear(fq, t, zt)")  # fmt: skip
    assert sorted(operators(model)) == ["Clip", "Concat", "QAdd"]


def test_float_nodes_read_numbers_and_no_codes_that_nothing_computes_with() -> None:
    body = "c = Det(b) d = Add(b, c) " + pair("d", "f") + "y = Det(f)"
    model = ir.from_proto(onnx.parser.parse_model(HEAD + body + "}"))
    ctx = Context(edit=Edit(model), target=load("lowbit-cpu"))
    LowerInteger().run(model, ctx)
    assert "Clip" in operators(model)
    DropRoundTrips().run(model, ctx)
    assert operators(model) == ["Det", "Add", "Det"]


def test_a_clip_of_the_model_between_codes_stays() -> None:
    """Its bounds are no ends of a format; without it the result would have other values."""
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[N,2,4] x) => (float[N,2,4] y)
    <float s = {0.05}, int8 z = {3}, int8 lo = {3}, int8 hi = {23}> {
      c = Identity(x) a = QuantizeLinear(c, s, z) b = Clip(a, lo, hi) d = DequantizeLinear(b, s, z) y = Identity(d) }"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    wanted = run(model, FEED, optimize=False)[0]
    ctx = Context(edit=Edit(model), target=load("lowbit-cpu"))
    DropRoundTrips().run(model, ctx)
    assert "Clip" in operators(model)
    np.testing.assert_array_equal(run(model, FEED, optimize=False)[0], wanted)
    assert wanted.min() == 0
