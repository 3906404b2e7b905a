"""The lowest versions that suffice, and nothing unused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

import qcompiler
from qcompiler.errors import PassError
from qcompiler.ir import io
from qcompiler.ir.edit import Edit
from qcompiler.ir.render import render
from qcompiler.passes.finalize.finalize import Finalize
from qcompiler.pipeline.base import Context
from qcompiler.quant.functions.catalogue import attach
from qcompiler.runtime import interpret
from qcompiler.runtime.interpreter import Interpreter

FEED = {"x": np.random.default_rng(0).normal(0, 2, (2, 4, 4, 4)).astype(np.float32)}


def run(model: ir.Model) -> int:
    ctx = Context(Edit(model))
    Finalize().run(model, ctx)
    return ctx.edit.count


def test_stamp_and_leftovers(small_cnn: ir.Model) -> None:
    small_cnn.doc_string = small_cnn.graph.doc_string = "made at 12:03 on somebody's machine"
    small_cnn.graph[0].doc_string = "stack trace"
    small_cnn.graph.opset_imports["unused"] = 3
    Edit(small_cnn).constant("left_over", np.zeros(3, np.float32))
    assert run(small_cnn) > 0
    assert small_cnn.producer_name == "qcompiler"
    assert small_cnn.producer_version
    assert small_cnn.opset_imports == {"": 20}
    assert "left_over" not in small_cnn.graph.initializers
    assert (small_cnn.doc_string, small_cnn.graph.doc_string, small_cnn.graph[0].doc_string) == (None, None, None)
    before = render(small_cnn)
    assert run(small_cnn) == 0
    assert render(small_cnn) == before


@pytest.mark.parametrize(
    ("imported", "body", "opset", "ir_version"),
    [
        (25, "{ a = Add(x, x)  y = Cast<to = 1>(a) }", 20, 9),
        (25, "{ a = Flatten(x)  y = Reshape(a, s) }", 20, 9),
        (23, "{ y = RMSNormalization(x, w) }", 23, 10),
        (25, "{ a = Swish(x)  y = Neg(a) }", 24, 10),
        (22, "{ y = MaxPool<kernel_shape = [1]>(x) }", 20, 9),
        (21, "{ y = Neg(x) }", 20, 9),
        (21, "{ y = GroupNormalization<num_groups = 1>(x, v, v) }", 21, 10),
        (21, "{ q = QuantizeLinear(x, i, z)  y = DequantizeLinear(q, i, z) }", 20, 9),
        (21, "{ q = QuantizeLinear(x, i, wide)  y = DequantizeLinear(q, i, wide) }", 21, 10),
        (21, "{ q = QuantizeLinear<output_dtype = 3>(x, i)  y = Cast<to = 1>(q) }", 21, 10),
    ],
)
def test_lowest_opset(
    parse: Callable[[str], ir.Model], imported: int, body: str, opset: int, ir_version: int, tmp_path: Path
) -> None:
    model = parse(
        f'<ir_version: 13, opset_import: ["" : {imported}]> m (float[1,2,4] x) => (float[a,b,c] y)'
        "<float[4] w = {1, 1, 1, 1}, int64[3] s = {1, 2, 4}, float[2] v = {1, 1}, float i = {0.1}, int8 z = {3},"
        "int16 wide = {3}>" + body
    )
    run(model)
    assert (model.opset_imports[""], model.ir_version) == (opset, ir_version)
    io.save(model, tmp_path / "m.onnx")
    onnx.checker.check_model(tmp_path / "m.onnx", full_check=True)


@pytest.mark.parametrize(
    ("dtype", "opset", "ir_version"),
    [(ir.DataType.INT8, 20, 9), (ir.DataType.INT4, 21, 10), (ir.DataType.INT2, 25, 13), (ir.DataType.UINT2, 25, 13)],
)
def test_element_types_decide(dtype: ir.DataType, opset: int, ir_version: int, tmp_path: Path) -> None:
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([4]))
    weight = ir.Value(name="w", const_value=ir.Tensor(np.array([0, 1, 1, 0]).astype(dtype.numpy()), dtype, name="w"))
    scale = ir.Value(name="s", const_value=ir.Tensor(np.array(0.5, np.float32), name="s"))
    for value in (weight, scale):
        assert value.const_value is not None
        value.type, value.shape = ir.TensorType(value.const_value.dtype), ir.Shape(value.const_value.shape)
    node = ir.node("DequantizeLinear", [weight, scale], name="dq")
    add = ir.node("Add", [x, node.outputs[0]], name="add")
    node.outputs[0].name, add.outputs[0].name = "d", "y"
    add.outputs[0].type, add.outputs[0].shape = x.type, x.shape
    graph = ir.Graph(
        [x], add.outputs, nodes=[node, add], initializers=[weight, scale], opset_imports={"": 21}, name="g"
    )
    model = ir.Model(graph, ir_version=10)
    run(model)
    assert (model.opset_imports[""], model.ir_version) == (opset, ir_version)
    io.save(model, tmp_path / "m.onnx")
    onnx.checker.check_model(tmp_path / "m.onnx", full_check=True)


def test_what_needs_more_than_runtimes_read_is_refused(parse: Callable[[str], ir.Model]) -> None:
    model = parse('<ir_version: 13, opset_import: ["" : 26]> m (float[2] x) => (float[2] y) { y = Neg(x) }')
    run(model)
    assert model.opset_imports[""] == 20
    newest = [s for s in onnx.defs.get_all_schemas() if s.domain == "" and s.since_version == 26]
    if newest:
        model.graph[0].op_type = newest[0].name
        model.graph.opset_imports[""] = 26
        with pytest.raises(PassError, match="needs opset 26"):
            run(model)


def test_codes_that_a_float_node_moves_load(parse: Callable[[str], ir.Model], tmp_path: Path) -> None:
    """From opset 21 on ONNX Runtime would contradict itself behind the Slice, for which the profile has no kernel."""
    model = parse("""<ir_version: 8, opset_import: ["" : 17]> m (float[N,3,8,8] x) => (float[N,3,3,3] y)
        <float[3,3,1,1] w = {1, 0, 2, 0, 1, 0, 3, 0, 1}, int64[2] from = {0, 0}, int64[2] to = {4, 4},
         int64[2] axes = {2, 3}, float[3,3,2,2] v = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9,
          1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9}>
        { a = Conv(x, w)  b = Slice(a, from, to, axes)  c = Sin(b)  y = Conv(c, v) }""")
    samples = np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)
    feeds = [{"x": sample[None]} for sample in samples]
    result = qcompiler.compile(
        model, "mcu", calibration=feeds, output=tmp_path / "m.onnx", cache=False, lowering="qdq", exclude="Slice"
    )
    assert result.model.opset_imports[""] == 20
    assert "Slice" in {node.op_type for node in result.model.graph}
    onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"]).run(None, feeds[0])


CALLS = """<ir_version: 13, opset_import: ["" : 23, "ai.qcompiler" : 1]>
m (float[N,4] x) => (float[N,4] y) <float s = {0.1}, %s z = {3}, int32 b = {1073741824}, uint8 c = {30}> {
  q = QuantizeLinear(x, s, z)
  w = ai.qcompiler.Requantize<x_zero_point=3, y_zero_point=3, to=%d, low=-128, high=127>(q, b, c)
  y = DequantizeLinear(w, s, z)
}"""


@pytest.mark.parametrize(("dtype", "number", "opset"), [("int8", 3, 20), ("int16", 5, 21)])
def test_functions_of_ours_follow_the_graph(
    parse: Callable[[str], ir.Model], dtype: str, number: int, opset: int, tmp_path: Path
) -> None:
    model = parse(CALLS % (dtype, number))
    attach(model)
    used = [key[1] for key in model.functions]
    unused = model.functions["ai.qcompiler", "Requantize", ""].clone()
    unused.name = "Leftover"
    model.functions[unused.identifier()] = unused
    feed = {"x": np.linspace(-9, 9, 8, dtype=np.float32).reshape(2, 4)}
    before = Interpreter(model).run(feed)["y"]
    run(model)
    assert [key[1] for key in model.functions] == used
    assert (model.opset_imports, model.ir_version) == ({"": opset, "ai.qcompiler": 1}, 10)
    assert {function.opset_imports[""] for function in model.functions.values()} == {opset}
    assert run(model) == 0
    io.save(model, tmp_path / "m.onnx")
    onnx.checker.check_model(tmp_path / "m.onnx", full_check=True)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, feed)[0], before)
    np.testing.assert_array_equal(interpret(tmp_path / "m.onnx", feed)[0], before)


def test_functions_of_others_keep_their_operator_set(parse: Callable[[str], ir.Model]) -> None:
    model = parse("""<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
m (float[2] x) => (float[2] y) { y = local.twice(x) }
<domain: "local", opset_import: ["" : 21]> twice (a) => (b) { b = Add(a, a) }""")
    run(model)
    assert model.opset_imports[""] == 21
    assert next(iter(model.functions.values())).opset_imports[""] == 21


FORK = "q = QuantizeLinear(v, s, n)  r = DequantizeLinear(q, s, n)  t = Add(v, r)"
MOVED = {
    "Reshape": "t = Reshape(d, eight)",
    "Transpose": "t = Transpose<perm = [0, 2, 3, 1]>(d)",
    "Squeeze": "t = Squeeze(d)",
    "Unsqueeze": "t = Unsqueeze(d, axis)",
    "Slice": "t = Slice(d, zero, two)",
    "MaxPool": "t = MaxPool<kernel_shape = [2, 2]>(d)",
    "a chain": "u = Transpose<perm = [0, 2, 3, 1]>(d)  t = Reshape(u, eight)",
    "two movers": "t = Reshape(d, eight)  u = Unsqueeze(d, axis)  v = Sin(u)",
    "a fork": f"v = Reshape(d, eight)  {FORK}",
    "a chain that forks": f"u = Transpose<perm = [0, 2, 3, 1]>(d)  v = Reshape(u, eight)  {FORK}",
    "a long chain that forks": f"u = Squeeze(d)  k = Unsqueeze(u, axis)  v = Reshape(k, eight)  {FORK}",
    "a chain to codes": "u = Transpose<perm = [0, 2, 3, 1]>(d)  v = Reshape(u, eight)  q = QuantizeLinear(v, s, n)"
    "  t = DequantizeLinear(q, s, n)",
}
INSERTED = {"a chain": 2, "two movers": 2, "a fork": 0, "a chain that forks": 1, "a long chain that forks": 2,
            "a chain to codes": 0}  # fmt: skip
"""Pairs that come behind movers, where that is not one."""


def count_pairs(model: ir.Model) -> int:
    return [node.op_type for node in model.graph].count("QuantizeLinear")


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("ends", ["y = Sin(t)", "y = Identity(t)"])
@pytest.mark.parametrize("case", MOVED)
def test_moved_int8_codes_load_at_any_opset(case: str, ends: str, wide: bool, tmp_path: Path) -> None:
    """16-bit codes elsewhere need opset 21, in which ONNX Runtime refuses an int8 pair in front of a float mover."""
    other = "b = QuantizeLinear(x, s, w)  z = DequantizeLinear(b, s, w)" if wide else "z = Neg(x)"
    model = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["" : 21]> g (float[2,4,4,4] x) => (float[?] y, float[2,4,4,4] z)
        <float s = {{0.1}}, int8 n = {{3}}, int16 w = {{0}}, int64[2] eight = {{8, -1}}, int64[1] axis = {{0}},
         int64[1] zero = {{0}}, int64[1] two = {{2}}>
        {{ c = QuantizeLinear(x, s, n)  d = DequantizeLinear(c, s, n)  {MOVED[case]}  {ends}  {other} }}"""
    )
    model = ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(model)))
    model.graph.outputs[0].shape = None
    wanted, pairs = interpret(model, FEED), count_pairs(model)
    assert run(model) > 0
    assert run(model) == 0
    assert count_pairs(model) - pairs == (INSERTED.get(case, 1) if wide else 0)
    assert [value.name for value in model.graph.outputs] == ["y", "z"]
    io.save(model, tmp_path / "m.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", options, providers=["CPUExecutionProvider"])
    for found, expected in zip(session.run(None, FEED), wanted, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_node_left_in_float_behind_int8_codes_compiles(tmp_path: Path) -> None:
    """Weights of 4 bits need opset 21, in the simulation that corrects biases as well as in the file."""
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    proto = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 21]>
        g (float[N,3,8,8] x) => (float[N,4,4,4] y)
        { c = Conv(x, w)  [pool] p = MaxPool<kernel_shape = [3, 3]>(c)  y = Sin(p) }""")
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    onnx.save(proto, tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(1).normal(size=(16, 3, 8, 8)).astype(np.float32))
    result = qcompiler.compile(
        tmp_path / "m.onnx", "mcu", calibration=tmp_path / "d.npz", output=tmp_path / "out.onnx", format="w4a8",
        lowering="qdq", exclude="pool", effort="quick", jobs=1, latency=False, keep=True,
    )  # fmt: skip
    names = [node.op_type for node in result.model.graph]
    assert result.model.opset_imports[""] == 21
    assert names[names.index("MaxPool") :] == ["MaxPool", "QuantizeLinear", "DequantizeLinear", "Sin"]
