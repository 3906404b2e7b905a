"""The interpreter on small models: against ONNX Runtime, and where an integer leaves its range."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from qcompiler.errors import DataError, ModelError, VerificationError
from qcompiler.quant.functions.catalogue import attach
from qcompiler.runtime import interpret
from qcompiler.runtime.interpreter import Interpreter

Parse = Callable[[str], ir.Model]
HEAD = '<ir_version: 10, opset_import: ["" : 21, "ai.qcompiler" : 1]>\n'
RESCALE = (
    HEAD
    + """
m (float[N,4] x) => (float[N,4] y)
<float s = {0.05}, int8 z = {3}, int32[4] b = {1518500250, 1073741824, 2147483647, 7}, uint8[4] c = {31, 30, 32, 4}> {
  [quantize] q = QuantizeLinear(x, s, z)
  [double] w = ai.qcompiler.Requantize<x_zero_point=3, y_zero_point=-5, to=3, low=-100, high=127>(q, b, c)
  [dequantize] y = DequantizeLinear(w, s, z)
}
"""
)


@pytest.fixture
def rescale(parse: Parse) -> ir.Model:
    model = parse(RESCALE)
    attach(model)
    return model


@pytest.fixture
def feed() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).normal(0, 4, (64, 4)).astype(np.float32)}


def in_runtime(model: ir.Model, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    return ort.InferenceSession(proto.SerializeToString()).run(None, feed)


def test_equals_the_runtime_bit_for_bit(rescale: ir.Model, feed: dict[str, np.ndarray], tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(ir.to_proto(rescale), path)
    expected = in_runtime(rescale, feed)[0]
    for model in (rescale, ir.to_proto(rescale), path, str(path)):
        (found,) = interpret(model, feed)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


def test_values_inside_are_given_by_name(rescale: ir.Model, feed: dict[str, np.ndarray]) -> None:
    found = Interpreter(rescale).run(feed, ["q", "w", "x", "b"])
    assert [found[name].dtype for name in "qwx"] == [np.int8, np.int8, np.float32]
    assert found["w"].min() >= -100
    np.testing.assert_array_equal(found["b"], [1518500250, 1073741824, 2147483647, 7])
    with pytest.raises(ModelError, match="no tensor named 'nothing'"):
        Interpreter(rescale).run(feed, ["nothing"])
    with pytest.raises(ModelError, match="no tensor named 'nothing'"):
        Interpreter(rescale, ["nothing"])


def test_many_feeds(rescale: ir.Model, feed: dict[str, np.ndarray]) -> None:
    interpreter = Interpreter(rescale)
    feeds = [{"x": row[None]} for row in feed["x"][:5]]
    found = [result["y"] for _, result in interpreter.stream(feeds)]
    np.testing.assert_array_equal(np.concatenate(found), interpreter.run({"x": feed["x"][:5]})["y"])
    assert interpreter.inputs == {"x": ("tensor(float)", ["N", 4])}
    assert interpreter.outputs == ["y"]


def test_a_product_beyond_62_bits_is_refused_with_the_node(parse: Parse) -> None:
    model = parse(
        HEAD
        + """
m (int64[4] x) => (int8[4] y) <int32 b = {2147483647}, uint8 c = {61}> {
  [wide_rescale] y = ai.qcompiler.Requantize<x_zero_point=0, y_zero_point=0, to=3, low=-128, high=127>(x, b, c)
}"""
    )
    attach(model)
    assert interpret(model, {"x": np.full(4, 1 << 30, np.int64)})[0].tolist() == [1, 1, 1, 1]
    with pytest.raises(VerificationError, match=r"wide_rescale.*Requantize") as caught:
        interpret(model, {"x": np.full(4, 1 << 33, np.int64)})
    assert "leaves its range" in caught.value.message


def test_parameters_outside_their_range_name_the_node(parse: Parse) -> None:
    model = parse(
        HEAD
        + """
m (int32[1] x) => (int8[1] y) <int32 b = {1}, uint8 c = {63}> {
  [shifts_too_far] y = ai.qcompiler.Requantize<x_zero_point=0, y_zero_point=0, to=3, low=-128, high=127>(x, b, c)
}"""
    )
    with pytest.raises(VerificationError, match="shifts_too_far"):
        interpret(model, {"x": np.zeros(1, np.int32)})


def test_an_unknown_operator_of_the_set(parse: Parse) -> None:
    model = parse(HEAD + "m (int8[1] x) => (int8[1] y) { [odd] y = ai.qcompiler.Nonsense(x) }")
    with pytest.raises(ModelError, match="no operator Nonsense"):
        Interpreter(model)


def test_an_unknown_operator_of_somebody_else(parse: Parse) -> None:
    model = parse(
        '<ir_version: 10, opset_import: ["" : 21, "com.acme" : 1]> m (float[1] x) => (float[1] y) '
        "{ [odd] y = com.acme.Magic(x) }"
    )
    with pytest.raises(ModelError, match=r"com\.acme:Magic"):
        Interpreter(model).run({"x": np.zeros(1, np.float32)})


@pytest.mark.parametrize(
    ("operation", "x", "message"),
    [
        ("Add(x, x)", np.array([100, 1], np.int8), "200 does not fit int8"),
        ("Mul(x, x)", np.array([-70000], np.int32), "4900000000 does not fit int32"),
        ("Mul(x, x)", np.array([1 << 33], np.int64), "does not fit int64"),
        ("Neg(x)", np.array([-128], np.int8), "128 does not fit int8"),
        ("Abs(x)", np.array([-32768], np.int16), "32768 does not fit int16"),
        ("Cast<to=3>(x)", np.array([5, -200], np.int32), "-200 does not fit int8"),
        ("ReduceSum<keepdims=0>(x)", np.full(3, 1 << 30, np.int32), "3221225472 does not fit int32"),
        ("Div(x, x)", np.array([0], np.int32), "division by zero"),
    ],
)
def test_standard_integer_arithmetic_is_checked(parse: Parse, operation: str, x: np.ndarray, message: str) -> None:
    element = onnx.helper.tensor_dtype_to_string(onnx.helper.np_dtype_to_tensor_dtype(x.dtype)).split(".")[1].lower()
    model = parse(HEAD + f"m ({element}[N] x) => (int8 y) {{ [sum] y = {operation} }}")
    with pytest.raises(VerificationError, match=message) as caught:
        interpret(model, {"x": x})
    assert str(caught.value).startswith("sum (")


def test_a_feed_that_does_not_fit(rescale: ir.Model) -> None:
    good = np.zeros((2, 4), np.float32)
    with pytest.raises(DataError, match="lacks x"):
        interpret(rescale, {})
    with pytest.raises(DataError, match="no input 'xx'\n  hint: did you mean 'x'"):
        interpret(rescale, {"x": good, "xx": good})
    with pytest.raises(DataError, match="input 'x': it holds float64, the model wants float32"):
        interpret(rescale, {"x": good.astype(np.float64)})
    with pytest.raises(DataError, match=r"its shape is \[4\], the model wants \[N, 4\]"):
        interpret(rescale, {"x": good[0]})
    with pytest.raises(DataError, match=r"its shape is \[2, 3\]"):
        interpret(rescale, {"x": good[:, :3]})


def test_a_feed_with_nan_is_refused(rescale: ir.Model) -> None:
    with pytest.raises(DataError, match="input 'x': it holds NaN"):
        interpret(rescale, {"x": np.full((1, 4), np.nan, np.float32)})


def test_one_symbol_is_one_size(parse: Parse) -> None:
    model = parse(HEAD + "m (int32[N] a, int32[N] b) => (int32[N] y) { y = Add(a, b) }")
    with pytest.raises(DataError, match="'N' is 3 here and 1 in input 'a'"):
        interpret(model, {"a": np.zeros(1, np.int32), "b": np.zeros(3, np.int32)})


def test_an_input_with_a_default_may_be_left_out(parse: Parse) -> None:
    model = parse(HEAD + "m (int32[N] a, int32 b) => (int32[N] y) <int32 b = {7}> { y = Add(a, b) }")
    a = np.arange(3, dtype=np.int32)
    assert interpret(model, {"a": a})[0].tolist() == [7, 8, 9]
    assert interpret(model, {"a": a, "b": np.array(1, np.int32)})[0].tolist() == [1, 2, 3]


def test_subgraphs_read_values_around_them(parse: Parse) -> None:
    model = parse(
        HEAD
        + """
m (bool c, int32[2] x) => (int32[2] y) {
  doubled = Add(x, x)
  [choice] y = If (c) <
    then_branch = a () => (int32[2] t) { t = Identity(doubled) },
    else_branch = b () => (int32[2] e) { e = Sub(doubled, x) }>
}"""
    )
    x = np.array([1, 2], np.int32)
    assert interpret(model, {"c": np.array(True), "x": x})[0].tolist() == [2, 4]
    assert interpret(model, {"c": np.array(False), "x": x})[0].tolist() == [1, 2]


def test_functions_of_a_model_are_executed(parse: Parse) -> None:
    model = parse("""<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
m (float[2] x) => (float[2] y) { y = local.same(x) }
<domain: "local", opset_import: ["" : 21, "local" : 1]> same (a) => (b) { b = local.twice(a) }
<domain: "local", opset_import: ["" : 21]> twice (a) => (b) { b = Add(a, a) }""")
    assert interpret(model, {"x": np.array([1, 2], np.float32)})[0].tolist() == [2, 4]


def test_order_of_nodes_does_not_matter_but_cycles_do(parse: Parse) -> None:
    model = parse(HEAD + "m (int32[1] x) => (int32[1] z) { [one] y = Neg(x) \n [two] z = Add(y, x) }")
    first, second = list(model.graph)
    model.graph.remove(first)
    model.graph.append(first)
    assert interpret(model, {"x": np.array([3], np.int32)})[0].tolist() == [0]
    first.replace_input_with(0, second.outputs[0])
    with pytest.raises(ModelError, match="cycle: "):
        Interpreter(model)


def test_floats_run_in_the_runtime(parse: Parse) -> None:
    model = parse(
        HEAD
        + """
m (float[2,3] x) => (float[2,3] y) <float[3] g = {1,2,3}> { s = Softmax<axis=-1>(x)
 y = LayerNormalization(s, g) }"""
    )
    feed = {"x": np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)}
    np.testing.assert_allclose(interpret(model, feed)[0], in_runtime(model, feed)[0], rtol=1e-4)


def test_operands_that_do_not_fit_each_other_name_the_node(parse: Parse) -> None:
    model = parse(HEAD + "m (int8[N] x) => (int8[M] y) <int64[1] i = {9}> { [pick] y = Gather(x, i) }")
    with pytest.raises(ModelError, match=r"pick.*out of bounds"):
        interpret(model, {"x": np.zeros(3, np.int8)})


def test_the_package_is_cheap_to_import() -> None:
    code = (
        "import sys, qcompiler.runtime; print(sorted({'numpy', 'onnx', 'onnx_ir', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
