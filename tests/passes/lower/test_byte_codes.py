"""Codes of 4 bits between operators become bytes in their range, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.ir.edit import Edit
from qcompiler.passes.lower.byte_codes import make_bytes
from qcompiler.passes.lower.compose_tables import ComposeTables
from qcompiler.passes.lower.drop_round_trips import DropRoundTrips
from qcompiler.passes.lower.fuse_clamp import FuseClamp
from qcompiler.passes.lower.lower_integer import LowerInteger
from qcompiler.pipeline.base import Context
from qcompiler.quant import arithmetic
from qcompiler.quant.format import QFormat
from qcompiler.quant.params import QParams
from qcompiler.target.load import load
from tests.passes.lower.graphs import operators, run

HEAD = """<ir_version: 10, opset_import: ["" : 21]> g (float[N,2,4] x) => (float[N,K,L] y)
<float s = {0.05}, int8 z = {3}, float t = {0.11}, int4 zt = {-5}, uint4 ut = {3}, float v = {0.3}> {
  a = QuantizeLinear(x, s, z) b = DequantizeLinear(a, s, z)
"""
FEED = {"x": np.linspace(-8, 8, 48, dtype=np.float32).reshape(6, 2, 4)}


def model_of(body: str) -> ir.Model:
    return ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(HEAD + body + "}")))


def lowered(body: str) -> tuple[ir.Model, Context]:
    """Lowered, its clamps and tables fused; checked to compute what the Q/DQ graph does, in the order written."""
    model = model_of(body)
    wanted = run(model, FEED, optimize=False)[0]
    ctx = Context(edit=Edit(model), target=load("lowbit-cpu"))
    LowerInteger().run(model, ctx)
    FuseClamp().run(model, ctx)
    ComposeTables().run(model, ctx)
    found = run(model, FEED)[0]
    np.testing.assert_array_equal(found, wanted)
    assert len(np.unique(found)) > 4
    return model, ctx


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=50),
    st.sampled_from([0.01, 0.3, 1.0, 7.0]),
    st.sampled_from([(True, -8), (True, 3), (False, 0), (False, 11)]),
)
def test_bytes_in_the_range_of_4_bits_are_the_codes_of_4_bits(numbers: list[float], scale: float, kind: Any) -> None:
    """The arithmetic on which the pass rests, for every number, scale and zero point."""
    signed, zero = kind
    offset = 0 if signed else 8
    narrow, byte = QFormat(4, signed=signed), QFormat(8)
    data, step = np.array(numbers, np.float32), np.asarray(scale, np.float32)
    codes = arithmetic.quantize(data, QParams(step, np.asarray(zero, np.int32)), narrow).astype(np.int64)
    bytes_ = arithmetic.quantize(data, QParams(step, np.asarray(zero - offset, np.int32)), byte).astype(np.int64)
    np.testing.assert_array_equal(np.clip(bytes_, -8, 7), codes - offset)


@pytest.mark.parametrize("zero", ["zt", "ut"])
def test_a_rescale_writes_bytes_in_the_range(zero: str) -> None:
    model, ctx = lowered(f"c = QuantizeLinear(b, t, {zero}) y = DequantizeLinear(c, t, {zero})")
    (node,) = [node for node in model.graph if node.op_type == "Requantize"]
    assert [node.attributes[name].as_int() for name in ("low", "high", "y_zero_point")] == [-8, 7, -5]
    assert operators(model) == ["Requantize"]
    assert any("4-bit codes" in note.text for record in ctx.records for note in record.notes)


@pytest.mark.parametrize(
    ("op", "low"), [("Transpose <perm=[0,2,1]> (d)", -8), ("MaxPool <kernel_shape=[2]> (d)", -8), ("Relu(d)", -5)]
)
def test_clamps_behind_codes_that_were_moved_vanish(op: str, low: int) -> None:
    body = f"""c = QuantizeLinear(b, t, zt) d = DequantizeLinear(c, t, zt) e = {op}
               f = QuantizeLinear(e, t, zt) y = DequantizeLinear(f, t, zt)"""
    model, _ = lowered(body)
    assert "Clip" not in operators(model)
    (node,) = [node for node in model.graph if node.op_type == "Requantize"]
    assert [node.attributes[name].as_int() for name in ("low", "high")] == [low, 7]


def test_a_table_writes_bytes_in_the_range() -> None:
    model, _ = lowered("c = HardSwish(b) d = QuantizeLinear(c, v, zt) y = DequantizeLinear(d, v, zt)")
    assert operators(model) == ["QLookup"]


def test_numbers_become_bytes_at_the_border(parse: Callable[[str], ir.Model]) -> None:
    model = parse("""<ir_version: 10, opset_import: ["" : 21]> g (float[N] x) => (float[N] y)
        <float s = {0.5}, int4 z = {-2}> { a = QuantizeLinear(x, s, z) y = DequantizeLinear(a, s, z) }""")
    feed = {"x": np.linspace(-9, 9, 99, dtype=np.float32)}
    wanted = run(model, feed)[0]
    assert make_bytes(model.graph, Edit(model)) == 1
    np.testing.assert_array_equal(run(model, feed)[0], wanted)
    assert [node.op_type for node in model.graph] == ["QuantizeLinear", "Clip", "DequantizeLinear"]


def test_float_nodes_read_numbers_and_no_bytes_that_nothing_computes_with() -> None:
    model = model_of("c = Det(b) d = Add(b, c) e = QuantizeLinear(d, t, zt) f = DequantizeLinear(e, t, zt) y = Det(f)")
    ctx = Context(edit=Edit(model), target=load("lowbit-cpu"))
    LowerInteger().run(model, ctx)
    assert "Clip" in operators(model)
    DropRoundTrips().run(model, ctx)
    assert operators(model) == ["Det", "Add", "Det"]


@pytest.mark.parametrize(
    "text",
    [
        "(int4[N,2] y) <float s = {0.5}, int4 z = {-2}> { y = QuantizeLinear(x, s, z) }",
        """(float[N,2] y) <float[2] s = {0.5, 0.25}, int4[2] z = {-2, 1}>
           { a = QuantizeLinear<axis=1>(x, s, z) y = DequantizeLinear<axis=1>(a, s, z) }""",
        "(float[N,2] y) <float s = {0.5}, int8 z = {-2}> { a = QuantizeLinear(x, s, z) y = DequantizeLinear(a, s, z) }",
    ],
)
def test_other_codes_keep_their_type(parse: Callable[[str], ir.Model], text: str) -> None:
    model = parse(f'<ir_version: 10, opset_import: ["" : 21]> g (float[N,2] x) => {text}')
    edit = Edit(model)
    assert make_bytes(model.graph, edit) == 0
    assert edit.count == 0
