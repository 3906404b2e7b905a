"""Shape inference."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import onnx
import onnx_ir as ir

from qcompiler.ir import io, shapes
from qcompiler.ir.render import render

HEAD = '<ir_version: 10, opset_import: ["" : 21, "custom" : 1]>'


def forget(model: ir.Model) -> None:
    for node in model.graph.all_nodes():
        for value in node.outputs:
            if not value.is_graph_output():
                value.type = value.shape = None


def known(model: ir.Model) -> dict[str, str]:
    return {str(value.name): f"{value.dtype} {value.shape}" for node in model.graph for value in node.outputs}


def test_finds_what_was_forgotten(small_cnn: ir.Model) -> None:
    before = known(small_cnn)
    forget(small_cnn)
    shapes.infer(small_cnn)
    assert known(small_cnn) == before
    assert str(small_cnn.graph[2].outputs[0].shape) == "[N,8,4,4]"


def test_changes_nothing_the_second_time(small_cnn: ir.Model) -> None:
    forget(small_cnn)
    shapes.infer(small_cnn)
    objects = [value.shape for node in small_cnn.graph for value in node.outputs]
    shapes.infer(small_cnn)
    again = [value.shape for node in small_cnn.graph for value in node.outputs]
    assert all(one is two for one, two in zip(objects, again, strict=True))


def test_shape_operands_are_seen_and_weights_are_not_read(parse: Callable[[str], ir.Model]) -> None:
    model = parse(
        HEAD
        + """m (float[2,600] x) => (float[a,b] y)
        <int64[2] target = {600, 2}, float w = {0}> { r = Reshape(x, target)  y = Add(r, w) }"""
    )

    def unread() -> ir.TensorProtocol:
        raise AssertionError("the weight was read")

    value = model.graph.initializers["w"]
    value.const_value = ir.LazyTensor(unread, ir.DataType.FLOAT, ir.Shape([600, 2]), name="w")
    shapes.infer(model)
    assert known(model)["r"] == "FLOAT [600,2]"


def test_custom_operators_keep_what_is_known(parse: Callable[[str], ir.Model]) -> None:
    nodes = "{ a = custom.Magic(x)  b = Relu(a)  c = Neg(x)  y = Add(b, c) }"
    model = parse(HEAD + "m (float[2,3] x) => (float[2,3] y)" + nodes)
    model.graph[0].outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    model.graph[0].outputs[0].shape = ir.Shape([2, 3])
    shapes.infer(model)
    assert known(model)["b"] == "FLOAT [2,3]"
    model.graph[0].outputs[0].type = model.graph[0].outputs[0].shape = None
    model.graph[1].outputs[0].type = model.graph[1].outputs[0].shape = None
    shapes.infer(model)
    assert known(model) | {"c": ""} == {"a": "None None", "b": "None None", "c": "", "y": "FLOAT [2,3]"}
    assert known(model)["c"] == "FLOAT [2,3]"


def test_a_contradiction_is_survived(parse: Callable[[str], ir.Model]) -> None:
    model = parse(HEAD + "m (float[2,3] x, float[7,5] z) => (float[2,5] y) { y = MatMul(x, z) }")
    shapes.infer(model)
    assert known(model) == {"y": "FLOAT [2,5]"}


def test_subgraphs_with_equal_names(parse: Callable[[str], ir.Model]) -> None:
    model = parse(
        HEAD
        + """main (bool c, float[2] x, float[3] z) => (float[k] y) {
        t = Neg(x)
        y = If(c) <then_branch = a () => (float[n] o) { u = Neg(x)  o = Exp(u) },
                   else_branch = b () => (float[m] o) { u = Neg(z)  o = Exp(u) }>
    }"""
    )
    shapes.infer(model)
    branch = model.graph[1].attributes
    assert str(branch["then_branch"].as_graph()[0].outputs[0].shape) == "[2]"
    assert str(branch["else_branch"].as_graph()[0].outputs[0].shape) == "[3]"


def test_known_dimensions_are_never_lost(parse: Callable[[str], ir.Model]) -> None:
    model = parse(HEAD + "m (float[N,3] x, int64[2] s) => (float[4,K] y) { y = Reshape(x, s) }")
    shapes.infer(model)
    assert str(model.graph.outputs[0].shape) == "[4,K]"


def test_zoo_models_are_fully_typed(zoo: ModuleType, zoo_folder: Path) -> None:
    del zoo
    for path in sorted(zoo_folder.glob("*/model.onnx")):
        model = io.load(path)
        forget(model)
        shapes.infer(model)
        reference = onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True)
        expected = {info.name for info in reference.graph.value_info if info.type.tensor_type.HasField("shape")}
        found = {str(value.name) for node in model.graph for value in node.outputs if value.shape is not None}
        assert expected <= found, path
        assert "unk__" not in render(model, weights="shape")


def test_time_grows_linearly(chain: Callable[[int], ir.Model]) -> None:
    def seconds(count: int) -> float:
        model = chain(count)
        start = time.perf_counter()
        shapes.infer(model)
        return time.perf_counter() - start

    seconds(500)
    small, large = min(seconds(1000) for _ in range(3)), seconds(8000)
    assert large < 8 * small * 4 + 0.5


NAMELESS = """agraph (float[N, 4] x, float[dynamic_0] other) => (float[M, 2] y)
<int64[2] pairs = {-1, 2}> {
  a = Reshape(x, pairs) b = Relu(a) c = Exp(b) d = NonZero(c) e = Cast <to = 1> (d) f = Transpose(e) g = Add(a, a)
  r = ReduceSum <keepdims = 0> (f) h = Mul(g, r) y = Reshape(h, pairs)
}"""


def test_unknown_dimensions_get_names_equal_where_they_are_proven_equal() -> None:
    model = ir.from_onnx_text(f"{HEAD} {NAMELESS}")
    shapes.infer(model)
    found = {str(value.name): value for node in model.graph for value in node.outputs}
    assert found["a"].shape is not None
    assert found["a"].shape.is_unknown_dim(0)
    assert shapes.name_dimensions(model) > 0
    assert found["a"].shape[0] == found["b"].shape[0] == found["g"].shape[0] == found["h"].shape[0]
    assert found["d"].shape[1] == found["f"].shape[0] != found["a"].shape[0]
    symbols = {str(size) for value in found.values() for size in value.shape if not isinstance(size, int)}
    assert not any(symbol.startswith("unk__") for symbol in symbols)
    assert "dynamic_0" not in symbols
    assert shapes.name_dimensions(model) == 0
