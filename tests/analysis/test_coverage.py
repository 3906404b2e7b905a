"""Coverage, work and ONNX Runtime's own graph on small models counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from qcompiler.analysis.census import float_nodes, left, optimized_census
from qcompiler.analysis.coverage import coverage
from qcompiler.analysis.work import macs, total_macs
from qcompiler.ir.shapes import infer
from qcompiler.quant.state import NodeDecision, set_node_decision

Parse = Callable[[str], ir.Model]

HEAD = '<ir_version: 10, opset_import: ["" : 21]>\n'
NETWORK = HEAD + """
m (float[1,3,8,8] x, float[4,3,3,3] w, float[4,1,3,3] d, float[5,256] g) => (float[1,5] y) <int64[2] s = {1,256}> {
  [conv] a = Conv<pads=[1,1,1,1]>(x, w)
  [relu] b = Relu(a)
  [depthwise] c = Conv<pads=[1,1,1,1], group=4>(b, d)
  [shape] r = Reshape(c, s)
  [gemm] y = Gemm<transB=1>(r, g)
}
"""


@pytest.fixture
def network(parse: Parse) -> ir.Model:
    model = parse(NETWORK)
    infer(model)
    return model


def test_work_is_counted_from_shapes(network: ir.Model) -> None:
    assert [macs(node) for node in network.graph] == [64 * 4 * 27, 0, 64 * 4 * 9, 0, 256 * 5]
    assert total_macs(network) == 64 * 4 * 36 + 1280


def test_work_of_matrix_products_and_symbolic_sizes(parse: Parse) -> None:
    model = parse(HEAD + "m (float[B,T,8] x, float[B,8,T] k) => (float[B,T,T] y) { y = MatMul(x, k) }")
    (node,) = model.graph
    assert macs(node) == 8
    assert macs(node, {"B": 2, "T": 10}) == 2 * 100 * 8


def test_coverage_by_decisions(network: ir.Model) -> None:
    for node in network.graph:
        excluded = node.name == "depthwise"
        set_node_decision(node, NodeDecision(not excluded, "excluded by 'depthwise'" if excluded else ""))
    result = coverage(network)
    assert [(row.op_type, row.integer, row.float) for row in result.by_operator] == [
        ("Conv", 1, 1), ("Gemm", 1, 0), ("Relu", 1, 0), ("Reshape", 1, 0),
    ]  # fmt: skip
    (fallback,) = result.fallbacks
    assert (fallback.node, fallback.reason, fallback.macs) == ("depthwise", "excluded by 'depthwise'", 2304)
    assert result.share_nodes == 80
    assert result.fallback_share == pytest.approx(100 * 2304 / (64 * 4 * 36 + 1280))
    assert result.reasons() == {"excluded by 'depthwise'": 1}


def test_without_multiplications_nodes_are_the_share(parse: Parse) -> None:
    model = parse(HEAD + "m (float[1,4] x) => (float[1,4] y) { a = Relu(x) y = Erf(a) }")
    for node in model.graph:
        set_node_decision(node, NodeDecision(node.op_type == "Relu", "no integer Erf"))
    result = coverage(model)
    assert result.share_macs is None
    assert result.fallback_share == 50


def test_shape_computations_do_not_count(parse: Parse) -> None:
    model = parse(HEAD + "m (float[1,4] x) => (float[1,4] y) { s = Shape(x) r = Relu(x) y = Reshape(r, s) }")
    infer(model)
    for node in model.graph:
        set_node_decision(node, NodeDecision(False, "it carries no float32 data"))
    assert [row.op_type for row in coverage(model).by_operator] == ["Relu", "Reshape"]


QDQ = HEAD + """
m (float[1,4] x) => (float[1,4] y)
<float s = {0.1}, uint8 z = {128}, float[4,4] f = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1},
 float ws = {0.01}, int8 wz = {0}, int8[4,4] w = {9,0,0,0, 0,9,0,0, 0,0,9,0, 0,0,0,9}> {
  q = QuantizeLinear(x, s, z)
  d = DequantizeLinear(q, s, z)
  v = DequantizeLinear(w, ws, wz)
  [first] a = MatMul(d, v)
  aq = QuantizeLinear(a, s, z)
  ad = DequantizeLinear(aq, s, z)
  [second] y = MatMul(ad, f)
}
"""


def test_coverage_of_a_model_from_a_file_reads_the_pairs(parse: Parse) -> None:
    result = coverage(parse(QDQ))
    assert [(row.op_type, row.integer, row.float) for row in result.by_operator] == [("MatMul", 1, 1)]
    assert [item.node for item in result.fallbacks] == ["second"]


def test_the_runtimes_graph_has_the_integer_kernel(parse: Parse, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(ir.to_proto(parse(QDQ)), path)
    census = optimized_census(path)
    assert census["QLinearMatMul"] == 1
    assert census["MatMul"] == 1
    assert left(census) == 2
    assert float_nodes(path) == ["second"]


def test_what_lowering_leaves_in_float_moves_over(network: ir.Model) -> None:
    for node in network.graph:
        set_node_decision(node, NodeDecision(node.name != "depthwise", "excluded" if node.name == "depthwise" else ""))
    before = coverage(network)
    after = before.without({"gemm": "its scale vanishes", "depthwise": "it was left in float", "nobody": "none"})
    assert before.float_nodes == 1
    assert [(item.node, item.reason) for item in after.fallbacks] == [
        ("depthwise", "excluded"), ("gemm", "its scale vanishes"),
    ]  # fmt: skip
    assert after.share_macs == pytest.approx(100 * 64 * 4 * 27 / (64 * 4 * 36 + 1280))


LOWERED = """<ir_version: 10, opset_import: ["" : 21, "ai.qcompiler" : 1]>
m (int8[1,3,8,8] x, int8[4,3,3,3] w, int8[5,8] p) => (int8[1,5] y) <int8[1,7] a> {
  [conv] c = ai.qcompiler.QConvShift(x, w)
  [gemm] g = ai.qcompiler.QGemmPacked<weight_shape=[5,7]>(a, p)
  [table] y = ai.qcompiler.QLookup(g, g)
}
"""


def test_integer_operators_count_as_what_they_do(parse: Parse) -> None:
    model = parse(LOWERED)
    next(iter(model.graph)).outputs[0].shape = ir.Shape([1, 4, 6, 6])
    assert [(row.op_type, row.integer, row.integer_macs) for row in coverage(model).by_operator] == [
        ("Conv", 1, 36 * 4 * 27), ("Gemm", 1, 35), ("QLookup", 1, 0),
    ]  # fmt: skip
