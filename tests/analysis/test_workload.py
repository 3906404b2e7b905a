"""Nodes of equal work are told to be equal, whatever they are called and whatever codes they hold."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import pytest

from qcompiler.analysis.specimen_grid import grid
from qcompiler.analysis.work import macs
from qcompiler.analysis.workload import Workload, bind_dimensions, distinct, weight_elements, workload, workloads

Parse = Callable[[str], ir.Model]
HEAD = '<ir_version: 10, opset_import: ["" : 21, "ai.qcompiler" : 1]>\n'


def _conv(parse: Parse, attributes: str, weight: str = "int8[32,16,1,1] w") -> ir.Node:
    model = parse(
        f"{HEAD}m (int8[1,16,8,8] x, {weight}, int32[32,1,1] b, int32[32,1,1] m, uint8[32,1,1] c) => (int8[1,32,8,8] y)"
        f"{{ y = ai.qcompiler.QConv <strides = [1,1], pads = [0,0,0,0], dilations = [1,1], {attributes}> (x,w,b,m,c) }}"
    )
    return model.graph[0]


def test_kind_format_and_size(parse: Parse) -> None:
    found = workload(_conv(parse, "group = 1, x_zero_point = 3, low = -128"))
    assert found is not None
    assert (found.kind, found.format, found.macs) == ("QConv/pointwise", "w8a8", 32 * 64 * 16)
    assert found.bytes == 16 * 64 + 32 * 16 + 32 * (4 + 4 + 1) + 32 * 64
    other = workload(_conv(parse, "group = 1, x_zero_point = -7, low = 0"))
    assert other == found  # codes change nothing
    strided = workload(_conv(parse, "group = 2, x_zero_point = 3, low = -128"))
    assert strided is not None
    assert strided.shape != found.shape


def test_shapes_are_bound_to_the_feed(parse: Parse) -> None:
    model = parse(f"{HEAD}m (float[N,4] x) => (float[M,4] y) {{ r = Relu(x) y = Neg(r) }}")
    assert list(workloads(model)) == []
    bind_dimensions(model, {"x": (3, 4)})
    assert [(work.kind, work.format, work.bytes) for _, work in workloads(model)] == [
        ("Relu", "float", 96), ("Neg", "float", 96),
    ]  # fmt: skip


def test_constants_cost_nothing(parse: Parse) -> None:
    model = parse(f"{HEAD}m (float[4] x) => (float[4] y) <float[4] c = {{1,2,3,4}}> {{ d = Neg(c) y = Add(x, d) }}")
    bind_dimensions(model, {})
    assert [node.op_type for node, _ in workloads(model)] == ["Add"]


def test_packed_rows_count_like_plain_ones(parse: Parse) -> None:
    text = (
        "m (int8[5,24] x, {weight} w, int32[10] b, int32[10] m, uint8[10] c) => (int8[5,10] y)"
        "{{ y = {node} (x,w,b,m,c) }}"
    )
    plain = parse(HEAD + text.format(weight="int8[24,10]", node="ai.qcompiler.QGemm <low = 0>")).graph[0]
    packed = "ai.qcompiler.QGemmPacked <bits = 2, weight_shape = [10, 24]>"
    narrow = parse(HEAD + text.format(weight="uint8[10,6]", node=packed)).graph[0]
    assert macs(plain) == macs(narrow) == 5 * 24 * 10
    assert weight_elements(plain) == weight_elements(narrow) == 240
    one, other = workload(plain), workload(narrow)
    assert one is not None
    assert other is not None
    assert one.shape == other.shape
    assert (one.format, other.format) == ("w8a8", "w2a8")


def test_of_a_table_the_rows_that_are_looked_up_are_read(parse: Parse) -> None:
    text = "m (int64[2,3] i, uint8[50,8] w, {factors}) => ({kind}[2,3,16] y){{y = ai.qcompiler.{node} (i,w,{names})}}"
    packed = "bits = 4, weight_shape = [50, 16]"
    node = f"QGather <{packed}, y_zero_point = 0, to = 5, low = -9, high = 9>"
    codes = text.format(factors="int32[50] m, uint8[50] c", kind="int16", node=node, names="m,c")
    found = workload(parse(HEAD + codes).graph[0])
    assert found is not None
    assert (found.kind, found.format, found.macs) == ("QGather", "w4a16", 0)
    assert found.shape.startswith("int64[2,3] weight[50,16] int32[50] uint8[50]")
    assert found.bytes == 6 * 8 + 6 * (8 + 4 + 1) + 6 * 16 * 2
    node = f"QGatherWeightOnly <{packed}>"
    real = text.format(factors="float[50] s", kind="float", node=node, names="s")
    found = workload(parse(HEAD + real).graph[0])
    assert found is not None
    assert (found.kind, found.format) == ("QGatherWeightOnly", "w4af32")
    assert found.bytes == 6 * 8 + 6 * (8 + 4) + 6 * 16 * 4
    plain = "m (int64[2,3] i) => (int16[2,3,2] y) <int16[7,2] t = {0,0,0,0,0,0,0,0,0,0,0,0,0,0}> { y = Gather(t, i) }"
    for text in (plain, plain.replace("Gather", "Gather <axis = -2> ")):
        found = workload(parse(HEAD + text).graph[0])
        assert found is not None
        assert found.bytes == 6 * 8 + 6 * 4 + 6 * 4


@pytest.fixture(scope="module")
def works() -> list[Workload]:
    """What the grid holds."""
    return [work for _, work in distinct(workloads(grid()))]


@pytest.mark.parametrize("kind", ["QGemm", "QConv/spatial", "QConv/pointwise", "QConv/depthwise", "QMatMul", "QAdd",
                                  "QSoftmax", "QLayerNormalization", "QuantizeLinear", "QMatMulWeightOnly",
                                  "QConvChannelsLast/spatial", "QGather", "QGatherWeightOnly"])  # fmt: skip
def test_the_grid_has_several_shapes_of_each_kind(kind: str, works: list[Workload]) -> None:
    found = [work for work in works if work.kind == kind]
    assert len(found) >= 3
    assert all(work.bytes > 0 for work in found)
