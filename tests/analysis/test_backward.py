"""The differentiator: values as ONNX Runtime has them, gradients as central differences have them."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from qcompiler.analysis.backward import convolution
from qcompiler.analysis.backward.program import Program
from qcompiler.analysis.backward.rules import RULES
from qcompiler.analysis.backward.unary import erf
from qcompiler.errors import ModelError
from qcompiler.ir.execute import Runner

Array = NDArray[Any]

# Name, call, shapes of the operands that have gradients, constant operands.
FORMS: list[tuple[str, str, dict[str, tuple[int, ...]], dict[str, list[Any]]]] = [
    ("Conv", "Conv (x, w, b)", {"x": (2, 3, 5, 6), "w": (4, 3, 3, 2), "b": (4,)}, {}),
    ("Conv", "Conv <strides = [2, 1], pads = [1, 0, 2, 1], dilations = [1, 2]> (x, w)",
     {"x": (2, 2, 6, 7), "w": (3, 2, 3, 2)}, {}),
    ("Conv", "Conv <group = 2, pads = [1, 1, 1, 1], strides = [2, 2]> (x, w, b)",
     {"x": (2, 4, 5, 5), "w": (6, 2, 3, 3), "b": (6,)}, {}),
    ("Conv", "Conv <group = 3, pads = [1, 1, 1, 1]> (x, w)", {"x": (2, 3, 4, 4), "w": (3, 1, 3, 3)}, {}),
    ("Conv", "Conv <group = 3, strides = [2, 2]> (x, w)", {"x": (1, 3, 5, 6), "w": (6, 1, 2, 3)}, {}),
    ("Conv", "Conv (x, w, b)", {"x": (2, 3, 2, 3), "w": (4, 3, 1, 1), "b": (4,)}, {}),
    ("Conv", "Conv <strides = [2]> (x, w)", {"x": (2, 3, 6), "w": (4, 3, 1)}, {}),
    ("Conv", 'Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (x, w)', {"x": (1, 2, 5, 4), "w": (3, 2, 3, 3)}, {}),
    ("Gemm", "Gemm (x, w, b)", {"x": (3, 4), "w": (4, 5), "b": (5,)}, {}),
    ("Gemm", "Gemm <transB = 1, alpha = 0.5, beta = 2.0> (x, w, b)", {"x": (3, 4), "w": (5, 4), "b": (3, 1)}, {}),
    ("Gemm", "Gemm <transA = 1> (x, w)", {"x": (4, 3), "w": (4, 5)}, {}),
    ("MatMul", "MatMul (x, w)", {"x": (2, 3, 4), "w": (4, 5)}, {}),
    ("MatMul", "MatMul (x, w)", {"x": (2, 1, 3, 4), "w": (1, 2, 4, 5)}, {}),
    ("MatMul", "MatMul (x, w)", {"x": (4,), "w": (2, 4, 3)}, {}),
    ("MatMul", "MatMul (x, w)", {"x": (2, 3, 4), "w": (4,)}, {}),
    ("Add", "Add (x, w)", {"x": (2, 3, 4), "w": (3, 1)}, {}),
    ("Sub", "Sub (x, w)", {"x": (3, 1), "w": (2, 3, 4)}, {}),
    ("Mul", "Mul (x, w)", {"x": (2, 3), "w": (3,)}, {}),
    ("Mul", "Mul (x, x)", {"x": (2, 3)}, {}),
    ("Div", "Div (x, w)", {"x": (2, 3), "w": (2, 1)}, {}),
    ("Pow", "Pow (x, e)", {"x": (2, 3)}, {"e": [2.0]}),
    ("Min", "Min (x, w)", {"x": (2, 5), "w": (5,)}, {}),
    ("Max", "Max (x, w)", {"x": (2, 5), "w": (5,)}, {}),
    ("Clip", "Clip (x, lo, hi)", {"x": (4, 5)}, {"lo": -0.5, "hi": 0.7}),
    ("Clip", "Clip (x, , hi)", {"x": (4, 5)}, {"hi": 0.7}),
    *[(name, f"{name} (x)", {"x": (4, 5)}, {})
      for name in ("Abs", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Neg", "Reciprocal", "Relu",
                   "Sigmoid", "Tanh", "Identity")],
    *[(name, f"{name} (x)", {"x": (4, 5)}, {}) for name in ("Log", "Sqrt")],
    ("Gelu", 'Gelu <approximate = "tanh"> (x)', {"x": (4, 5)}, {}),
    ("LayerNormalization", "LayerNormalization (x, w, b)", {"x": (2, 3, 4), "w": (4,), "b": (4,)}, {}),
    ("LayerNormalization", "LayerNormalization <axis = 1, epsilon = 0.01> (x, w)", {"x": (2, 3, 4), "w": (3, 4)}, {}),
    ("RMSNormalization", "RMSNormalization (x, w)", {"x": (2, 3, 4), "w": (4,)}, {}),
    ("Softmax", "Softmax (x)", {"x": (2, 3, 4)}, {}),
    ("Softmax", "Softmax <axis = 1> (x)", {"x": (2, 3, 4)}, {}),
    ("ReduceMean", "ReduceMean (x, axes)", {"x": (2, 3, 4)}, {"axes": [-1, 0]}),
    ("ReduceMean", "ReduceMean <keepdims = 0> (x, axes)", {"x": (2, 3, 4)}, {"axes": [1]}),
    ("ReduceSum", "ReduceSum (x)", {"x": (2, 3)}, {}),
    ("AveragePool", "AveragePool <kernel_shape = [2, 3], strides = [1, 2], pads = [0, 1, 1, 1]> (x)",
     {"x": (2, 2, 4, 6)}, {}),
    ("AveragePool", "AveragePool <kernel_shape = [2, 2], strides = [2, 2], pads = [1,0,0,1], count_include_pad=1>(x)",
     {"x": (1, 2, 5, 5)}, {}),
    ("AveragePool", "AveragePool <kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1> (x)", {"x": (1, 2, 5, 5)},
     {}),
    ("MaxPool", "MaxPool <kernel_shape = [3, 2], strides = [2, 1], pads = [1, 0, 1, 0]> (x)", {"x": (2, 2, 5, 4)}, {}),
    ("GlobalAveragePool", "GlobalAveragePool (x)", {"x": (2, 3, 4, 2)}, {}),
    ("Reshape", "Reshape (x, shape)", {"x": (2, 6)}, {"shape": [3, -1]}),
    ("Flatten", "Flatten (x)", {"x": (2, 3, 2)}, {}),
    ("Transpose", "Transpose <perm = [2, 0, 1]> (x)", {"x": (2, 3, 4)}, {}),
    ("Transpose", "Transpose (x)", {"x": (2, 3, 4)}, {}),
    ("Squeeze", "Squeeze (x, axes)", {"x": (2, 1, 3)}, {"axes": [1]}),
    ("Unsqueeze", "Unsqueeze (x, axes)", {"x": (2, 3)}, {"axes": [1]}),
    ("Expand", "Expand (x, shape)", {"x": (3, 1)}, {"shape": [2, 3, 4]}),
    ("Tile", "Tile (x, repeats)", {"x": (2, 3)}, {"repeats": [2, 1]}),
    ("Concat", "Concat <axis = 1> (x, w, x)", {"x": (2, 3), "w": (2, 1)}, {}),
    ("Slice", "Slice (x, starts, ends, axes, steps)", {"x": (4, 6)},
     {"starts": [1, -1], "ends": [4, -6], "axes": [0, 1], "steps": [1, -2]}),
    ("Gather", "Gather <axis = 1> (x, indices)", {"x": (2, 4)}, {"indices": [3, 0, 3]}),
    ("DepthToSpace", "DepthToSpace <blocksize = 2> (x)", {"x": (1, 8, 2, 3)}, {}),
    ("Pad", "Pad (x, pads)", {"x": (2, 3)}, {"pads": [1, -1, 0, 2]}),
    ("Pad", "Pad (x, pads, , axes)", {"x": (2, 3)}, {"pads": [1, 2], "axes": [1]}),
    ("BatchNormalization", "BatchNormalization (x, w, b, mean, var)", {"x": (2, 3, 2, 2), "w": (3,), "b": (3,)},
     {"mean": [0.1, -0.2, 0.3], "var": [0.5, 1.0, 2.0]}),
]  # fmt: skip

IDS = [f"{form[0]}-{index}" for index, form in enumerate(FORMS)]
POSITIVE = {"Log", "Sqrt", "Div", "Reciprocal"}


def model_of(call: str, inputs: dict[str, tuple[int, ...]], constants: dict[str, Any], *, opset: int = 23) -> ir.Model:
    header = f'<ir_version: 10, opset_import: ["" : {opset}]>'
    given = ", ".join(f"float[{','.join(map(str, shape))}] {name}" for name, shape in inputs.items())
    proto = onnx.parser.parse_model(f"{header} g ({given}) => (float y) {{ y = {call} }}")
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    for name, content in constants.items():
        array = np.array(content)
        array = array.astype(np.float32) if array.dtype.kind == "f" else array.astype(np.int64)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    proto.graph.node[0].name = "node"
    return ir.from_proto(proto)


def operands(name: str, shapes: dict[str, tuple[int, ...]], dtype: type[Any] = np.float64) -> dict[str, Array]:
    random = np.random.default_rng(3)
    found = {key: random.normal(size=shape) for key, shape in shapes.items()}
    return {key: (np.abs(a) + 0.5 if name in POSITIVE else a).astype(dtype) for key, a in found.items()}


def program_of(model: ir.Model, dtype: type[Any] = np.float64) -> Program:
    inputs = list(model.graph.inputs)
    return Program(list(model.graph.outputs), [], inputs, opset=23, dtype=dtype)


@pytest.mark.parametrize(("name", "call", "shapes", "constants"), FORMS, ids=IDS)
def test_values_and_gradients(
    name: str, call: str, shapes: dict[str, tuple[int, ...]], constants: dict[str, Any]
) -> None:
    model = model_of(call, shapes, constants)
    program, values = program_of(model), operands(name, shapes)
    tape = program.forward(values)
    weights = np.random.default_rng(4).normal(size=tape.outputs["y"].shape)
    found = tape.gradients({"y": weights})
    assert tape.outputs["y"].dtype == np.float64
    for key, array in values.items():
        assert found[key].shape == array.shape
        expected = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            changed = []
            for step in (1e-5, -1e-5):
                moved = array.copy()
                moved[place] += step
                changed.append(float((program.forward({**values, key: moved}).outputs["y"] * weights).sum()))
            expected[place] = (changed[0] - changed[1]) / 2e-5
        np.testing.assert_allclose(found[key], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("name", "call", "shapes", "constants"), FORMS, ids=IDS)
def test_float32_is_what_onnx_runtime_computes(
    name: str, call: str, shapes: dict[str, tuple[int, ...]], constants: dict[str, Any]
) -> None:
    # RMSNormalization is new in operator set 23; the other operators are those of 21.
    model = model_of(call, shapes, constants, opset=23 if name == "RMSNormalization" else 21)
    values = operands(name, shapes, np.float32)
    got = program_of(model, np.float32).forward(values).outputs["y"]
    wanted = Runner(model).run(values)["y"]
    assert got.dtype == np.float32
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_a_convolution_remembers_its_data_and_not_the_windows(kernel: int) -> None:
    """Neither a tape nor the way back grows with the kernel's area times the batch."""
    data = np.ones((32, 8, 24, 24), np.float32)
    weight = np.ones((8, 8, kernel, kernel), np.float32)
    pads = [kernel // 2] * 4
    program = program_of(model_of(f"Conv <pads = {pads}> (x, w)", {"x": data.shape, "w": weight.shape}, {}), np.float32)
    tracemalloc.start()
    try:
        tape = program.forward({"x": data, "w": weight})
        held, _ = tracemalloc.get_traced_memory()
        gradient = np.ones_like(tape.outputs["y"])
        tape.gradients({"y": gradient})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1.1 * data.nbytes  # the output
    assert peak < 3.5 * data.nbytes + 3.5 * convolution.GATHERED  # output and gradients; windows and their gradient


def test_convolution_in_parts_is_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many samples are gathered together, the last part being smaller: the same numbers."""
    shapes = {"x": (5, 4, 6, 7), "w": (6, 2, 3, 3), "b": (6,)}
    program = program_of(model_of("Conv <group = 2, pads = [1, 1, 1, 1]> (x, w, b)", shapes, {}))
    values, found = operands("", shapes), []
    for samples in (5, 2, 0):
        monkeypatch.setattr(convolution, "GATHERED", samples * 8 * 4 * 9 * 6 * 7)
        tape = program.forward(values)
        found.append({**tape.outputs, **tape.gradients({"y": np.cos(tape.outputs["y"])})})
    for other in found[1:]:
        for name, array in other.items():
            np.testing.assert_allclose(array, found[0][name], rtol=1e-12)


def test_every_rule_is_tested() -> None:
    assert set(RULES) == {form[0] for form in FORMS} | {"QuantizeLinear", "DequantizeLinear"}


def test_the_error_function_is_that_of_the_c_library() -> None:
    import math

    points = np.linspace(-7, 7, 10_007)
    assert np.abs(erf(points) - [math.erf(x) for x in points]).max() < 5e-12


CODES = """<ir_version: 10, opset_import: ["" : 21]>
g (float[1, 6] x) => (float[1, 6] y)
<float s = {0.5}, uint8 z = {3}>
{ q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) y = Mul (d, d) }"""


def test_rounding_is_passed_straight_through_where_no_code_saturates(parse: Any) -> None:
    """Least and greatest code stand for -1.5 and 126: what lies beyond has no gradient."""
    model = parse(CODES)
    data = np.array([[-9.0, -1.4, 0.1, 0.3, 125.9, 200.0]], np.float32)
    tape = program_of(model, np.float32).forward({"x": data})
    np.testing.assert_array_equal(tape.outputs["y"], Runner(model).run({"x": data})["y"])
    kept = np.array([[-1.5, -1.5, 0.0, 0.5, 126.0, 126.0]])
    np.testing.assert_allclose(tape.gradients({"y": np.ones((1, 6), np.float32)})["x"], 2 * kept * [0, 1, 1, 1, 1, 0])


RESIDUAL = """<ir_version: 10, opset_import: ["" : 21]>
g (float[2, 3] x, float[2, 3] aside) => (float[2, 3] y)
<float[3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}, int64[2] shape = {2, 3}>
{
  a = MatMul (x, w)
  b = Relu (a)
  s = Shape (b)
  c = Reshape (x, s)
  d = Add (b, c)
  e = Mul (d, aside)
  y = Add (e, b)
}"""


def test_a_part_of_a_graph_with_values_that_meet_again(parse: Any) -> None:
    """The weight is supplied instead of its constant; the gradient of a value used twice is a sum."""
    model = parse(RESIDUAL)
    graph = model.graph
    values = {str(v.name): v for node in graph for v in node.outputs}
    weight, x = graph.initializers["w"], graph.inputs[0]
    program = Program([values["y"]], [weight], [weight, x], dtype=np.float64)
    random = np.random.default_rng(0)
    feed = {name: random.normal(size=(2, 3)) for name in ("x", "aside")}
    feed["w"] = random.normal(size=(3, 3))
    assert set(program.free) == {"x", "w", "aside"}
    tape = program.forward(feed)
    hidden = feed["x"] @ feed["w"]
    np.testing.assert_allclose(
        tape.outputs["y"], (np.maximum(hidden, 0) + feed["x"]) * feed["aside"] + np.maximum(hidden, 0)
    )
    found = tape.gradients({"y": np.ones((2, 3))})
    into_hidden = (feed["aside"] + 1) * (hidden > 0)
    np.testing.assert_allclose(found["x"], feed["aside"] + into_hidden @ feed["w"].T)
    np.testing.assert_allclose(found["w"], feed["x"].T @ into_hidden)
    assert set(found) == {"x", "w"}


def test_a_cut_inside_the_graph(parse: Any) -> None:
    """What is supplied is not computed: the nodes before it are no part of the program."""
    graph = parse(RESIDUAL).graph
    values = {str(v.name): v for node in graph for v in node.outputs}
    program = Program([values["d"]], [values["c"]], [values["b"]])
    assert set(program.free) == {"b", "c"}
    ones = np.ones((2, 3), np.float32)
    tape = program.forward({"b": ones, "c": 2 * ones})
    np.testing.assert_array_equal(tape.outputs["d"], 3 * ones)
    np.testing.assert_array_equal(tape.gradients({"d": ones})["b"], ones)


def test_an_unknown_operator_is_refused_by_name(parse: Any) -> None:
    model = parse("""<ir_version: 10, opset_import: ["" : 21]>
    g (float[2, 3] x) => (float[2, 3] y) { a = Relu (x) y = Sinh (a) }""")
    model.graph[1].name = "strange"
    with pytest.raises(ModelError, match="Sinh has no gradient") as caught:
        program_of(model)
    assert "strange" in str(caught.value)


@pytest.mark.parametrize(
    ("call", "constants", "reason"),
    [
        ("BatchNormalization <training_mode = 1> (x, w, b, w, b)", {}, "statistics of the batch"),
        ('Pad <mode = "reflect"> (x, pads)', {"pads": [1, 0, 0, 0]}, "repeats"),
        ("Max (x, w, b)", {}, "3 operands"),
    ],
)
def test_an_unknown_form_is_refused_with_its_reason(call: str, constants: dict[str, Any], reason: str) -> None:
    shapes = {"x": (3, 3), "w": (3,), "b": (3,)}
    program = program_of(model_of(call, shapes, constants))

    def both_ways() -> None:
        tape = program.forward(operands("", shapes))
        tape.gradients({"y": np.ones_like(tape.outputs["y"])})

    with pytest.raises(ModelError, match=reason):
        both_ways()


def test_gradients_of_a_network_with_quantized_weights(small_cnn: ir.Model) -> None:
    """A whole small network: the gradient of the inputs lowers the loss that it belongs to."""
    graph = small_cnn.graph
    program = Program(list(graph.outputs), [], list(graph.inputs), dtype=np.float64)
    data = np.random.default_rng(1).normal(size=(2, 3, 8, 8))
    tape = program.forward({"x": data})
    loss = float(np.square(tape.outputs["y"]).sum())
    gradient = tape.gradients({"y": 2 * tape.outputs["y"]})["x"]
    step = 1e-6
    moved = float(np.square(program.forward({"x": data - step * gradient}).outputs["y"]).sum())
    np.testing.assert_allclose((loss - moved) / step, np.square(gradient).sum(), rtol=1e-3)
