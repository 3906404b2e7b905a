"""What comes in, and the one form it has afterwards."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from qcompiler.errors import ModelError
from qcompiler.passes.normalize.import_model import ImportModel

WEIGHT = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)


def test_weights_in_every_guise_become_initializers(
    parse: Callable, apply: Callable, equal: Callable, kinds: Callable
) -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[N, 2] x) => (float[N, 2] y)
        <float[2] fixed = {1, 2}, int64[1] two = {2}>
        {
            literal = Constant <value = float[2] {3, 4}> ()
            listed = Constant <value_floats = [0.5, 0.25]> ()
            number = Constant <value_float = 2.0> ()
            filled = ConstantOfShape <value = float[1] {7}> (two)
            copied = Identity (fixed)
            a = Mul (x, literal)
            b = Add (a, listed)
            c = Mul (b, number)
            d = Add (c, filled)
            y = Add (d, copied)
        }"""
    model = parse(text)
    apply(model, ImportModel())
    assert kinds(model) == {"Mul": 2, "Add": 3}
    assert set(model.graph.initializers) == {"literal", "listed", "number", "filled", "fixed"}
    equal(parse(text), model)


def test_initializers_leave_the_inputs(apply: Callable, equal: Callable) -> None:
    proto = helper.make_model(
        helper.make_graph(
            [helper.make_node("Add", ["x", "w"], ["y"])],
            "g",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4]) for name in ("x", "w")],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 4])],
            [onnx.numpy_helper.from_array(WEIGHT, "w")],
        ),
        ir_version=3,
        opset_imports=[helper.make_opsetid("", 8)],
    )
    model = ir.from_proto(proto)
    context = apply(model, ImportModel())
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert "also graph inputs" in context.records[0].notes[0].text
    equal(proto, model, {"x": WEIGHT})


def test_dropout_and_identity_go_and_the_interface_stays(
    parse: Callable, apply: Callable, equal: Callable, kinds: Callable
) -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[2, 2] x) => (float[2, 2] y, float[2, 2] same)
        {
            a = Identity (x)
            b, mask = Dropout (a)
            c = Relu (b)
            y = Identity (c)
            same = Identity (x)
        }"""
    model = parse(text)
    apply(model, ImportModel())
    assert kinds(model) == {"Relu": 1, "Identity": 1}  # an input that is an output needs a node
    assert [value.name for value in model.graph.outputs] == ["y", "same"]
    equal(parse(text), model)


def test_constants_may_be_outputs(parse: Callable, apply: Callable, equal: Callable) -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[2] x) => (float[2] y, float[2] fixed, float[2] same)
        <float[2] w = {1, 2}>
        { fixed = Constant <value_floats = [1.0, 2.0]> ()  same = Identity (w)  a = Add (x, fixed)  y = Add (a, w) }"""
    model = parse(text)
    apply(model, ImportModel())
    equal(parse(text), model)


def test_dropout_in_training_or_with_a_used_mask_stays(parse: Callable, apply: Callable, skips: Callable) -> None:
    model = parse("""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[2] x, bool training) => (float[2] y, bool[2] mask)
        <float half = {0.5}>
        {
            a, mask = Dropout (x)
            y = Dropout (a, half, training)
        }""")
    found = skips(apply(model, ImportModel()))
    assert any("its mask is used" in text for text in found)
    assert any("training_mode" in text for text in found)


def test_names_are_filled_and_unique(apply: Callable) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"], name="twice"),
        helper.make_node("Relu", ["b"], ["y"], name="twice"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8))
    apply(model, ImportModel())
    assert [node.name for node in model.graph] == ["Relu_a", "twice", "twice_1"]


def test_nodes_are_sorted(apply: Callable) -> None:
    nodes = [helper.make_node("Relu", ["a"], ["y"]), helper.make_node("Exp", ["x"], ["a"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8))
    apply(model, ImportModel())
    assert [node.op_type for node in model.graph] == ["Exp", "Relu"]


@pytest.mark.parametrize("dtype", ["float16", "double", "bfloat16"])
def test_other_float_types_compute_in_float32(
    dtype: str, parse: Callable, apply: Callable, kinds: Callable, equal: Callable
) -> None:
    text = f"""
        <ir_version: 8, opset_import: ["" : 21]>
        g ({dtype}[2, 2] x) => ({dtype}[2, 2] y)
        <{dtype}[2, 2] w = {{1, 2, 3, 4}}>
        {{
            a = MatMul (x, w)
            wide = Cast <to = 1> (a)
            b = Relu (wide)
            c = Cast <to = {int(ir.DataType[dtype.upper()])}> (b)
            y = Add (c, w)
        }}"""
    model = parse(text)
    context = apply(model, ImportModel())
    assert kinds(model) == {"Cast": 2, "MatMul": 1, "Relu": 1, "Add": 1}
    assert model.graph.initializers["w"].dtype == ir.DataType.FLOAT
    assert model.graph.inputs[0].dtype == model.graph.outputs[0].dtype == ir.DataType[dtype.upper()]
    assert any("computes in float32" in note.text for note in context.records[0].notes)
    if dtype != "bfloat16":  # NumPy cannot feed it
        equal(parse(text), model, limit=2e-3 if dtype == "float16" else 1e-6)


@pytest.mark.parametrize(
    ("node", "inputs"),
    [("DequantizeLinear", ("q", "s")), ("ConvInteger", ("q", "q")), ("com.microsoft.QLinearAdd", ("q",) * 7)],
)
def test_quantized_models_are_refused(node: str, inputs: tuple[str, ...], apply: Callable) -> None:
    domain, _, op_type = node.rpartition(".")
    made = helper.make_node(op_type, inputs, ["y"], name="culprit", domain=domain)
    graph = helper.make_graph(
        [made],
        "g",
        [
            helper.make_tensor_value_info("q", TensorProto.UINT8, [1, 1, 2, 2]),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, []),
        ],
        [helper.make_empty_tensor_value_info("y")],
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8))
    with pytest.raises(ModelError, match="already quantized") as caught:
        apply(model, ImportModel())
    assert caught.value.where == "culprit"
    assert caught.value.hint is not None
    assert "float model" in caught.value.hint


def test_bodies_stay_and_what_they_capture_lives(
    parse: Callable, apply: Callable, family: tuple, equal: Callable, skips: Callable
) -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 12]>
        g (float[4] x, bool flag) => (float[4] y)
        <float[4] w = {1, 2, 3, 4}, float[4] v = {4, 3, 2, 1}>
        {
            captured = Identity (w)
            scaled = Mul (x, v)
            y = If (flag) <
                then_branch = yes () => (float[4] a) { a = Add (scaled, captured) },
                else_branch = no () => (float[4] b) { s = Split <axis = 0, split = [4]> (scaled)  b = Clip (s) }
            >
        }"""
    model = parse(text)
    context = apply(model, *family)
    assert any("body stays in float" in text for text in skips(context))
    for flag in (True, False):
        equal(parse(text), model, {"x": np.arange(4, dtype=np.float32), "flag": np.array(flag)})


def test_local_functions_are_inlined(parse: Callable, apply: Callable, equal: Callable, kinds: Callable) -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17, "my" : 1]>
        g (float[2, 2] x) => (float[2, 2] y)
        { a = my.twice (x)  y = my.twice (a) }
        <domain: "my", opset_import: ["" : 17]>
        twice (v) => (w) { w = Add (v, v) }"""
    model = parse(text)
    apply(model, ImportModel())
    assert kinds(model) == {"Add": 2}
    assert not model.functions
    equal(parse(text), model)


def test_unknown_operators_are_kept_and_recorded(parse: Callable, apply: Callable, kinds: Callable) -> None:
    model = parse("""
        <ir_version: 8, opset_import: ["" : 13, "acme" : 1]>
        g (float[2] x) => (float[2] y)
        { a = acme.Warp (x)  y = Relu (a) }""")
    context = apply(model, ImportModel())
    assert kinds(model) == {"Warp": 1, "Relu": 1}
    assert any("acme:Warp" in note.text for note in context.records[0].notes)


FUSED = {
    "FusedConv": ('com.microsoft.FusedConv <activation = "Relu", pads = [1, 1, 1, 1]> (x, k)', {"Conv": 1, "Relu": 1}),
    "FusedConv-residual": (
        'com.microsoft.FusedConv <activation = "Clip", activation_params = [0.0, 1.0],pads = [1, 1, 1, 1]> (x, k, , x)',
        {"Conv": 1, "Add": 1, "Clip": 1},
    ),
    "FusedMatMul": (
        "com.microsoft.FusedMatMul <alpha = 0.5, transB = 1> (x, x)",
        {"Transpose": 1, "MatMul": 1, "Mul": 1},
    ),
    "Gelu": ("com.microsoft.Gelu (x)", {"Gelu": 1}),
    "FastGelu": ("com.microsoft.FastGelu (x, row)", {"Add": 1, "Gelu": 1}),
    "BiasGelu": ("com.microsoft.BiasGelu (x, row)", {"Add": 1, "Gelu": 1}),
    "QuickGelu": ("com.microsoft.QuickGelu (x)", {"Mul": 2, "Sigmoid": 1}),
}


@pytest.mark.parametrize("name", FUSED)
def test_fused_operators_are_taken_apart(
    name: str, parse: Callable, apply: Callable, equal: Callable, kinds: Callable
) -> None:
    expression, expected = FUSED[name]
    text = f"""
        <ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        g (float[1, 2, 3, 3] x) => (float[1, 2, 3, 3] y)
        <float[3] row = {{0.1, 0.2, 0.3}}>
        {{ k = Constant <value = float[2, 2, 3, 3] {{{", ".join(str(i / 10 - 1.8) for i in range(36))}}}> ()
           y = {expression} }}"""
    model = parse(text)
    apply(model, ImportModel())
    assert kinds(model) == expected
    assert "com.microsoft" not in model.opset_imports
    equal(parse(text), model)


def test_skip_layer_normalization_is_taken_apart(
    parse: Callable, apply: Callable, equal: Callable, kinds: Callable
) -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        g (float[1, 2, 3] x, float[1, 2, 3] skip) => (float[1, 2, 3] y, float[1, 2, 3] total)
        <float[3] row = {0.1, 0.2, 0.3}, float[3] gamma = {1, 2, 3}>
        { y, mean, deviation, total = com.microsoft.SkipLayerNormalization (x, skip, gamma, row, row) }"""
    model = parse(text)
    apply(model, ImportModel())
    assert kinds(model) == {"Add": 2, "LayerNormalization": 1}
    equal(parse(text), model)


def test_what_is_not_simple_stays_fused(parse: Callable, apply: Callable, skips: Callable, kinds: Callable) -> None:
    model = parse("""
        <ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        g (float[1, 2, 3] x) => (y)
        { y = com.microsoft.Inverse (x) }""")
    assert "stays in float" in skips(apply(model, ImportModel()))[0]
    assert kinds(model) == {"Inverse": 1}
    assert model.opset_imports["com.microsoft"] == 1


def test_a_huge_constant_of_shape_stays_a_node(
    parse: Callable, apply: Callable, skips: Callable, kinds: Callable
) -> None:
    model = parse("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[1] x) => (float[1000, 1000] y)
        <int64[2] size = {1000, 1000}>
        { z = ConstantOfShape (size)  y = Add (x, z) }""")
    assert "constant_limit" in skips(apply(model, ImportModel(constant_limit=1000)))[0]
    assert kinds(model) == {"ConstantOfShape": 1, "Add": 1}


def test_a_cycle_is_refused(apply: Callable) -> None:
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"]),
        helper.make_node("Exp", ["a"], ["b"]),
        helper.make_node("Neg", ["b"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8))
    with pytest.raises(ModelError, match="cycle"):
        apply(model, ImportModel())


def test_functions_of_another_opset_are_refused(parse: Callable, apply: Callable) -> None:
    model = parse("""
        <ir_version: 8, opset_import: ["" : 17, "my" : 1]>
        g (float[2, 2] x) => (float[2, 2] y)
        { y = my.twice (x) }
        <domain: "my", opset_import: ["" : 13]>
        twice (v) => (w) { w = Add (v, v) }""")
    with pytest.raises(ModelError, match="cannot be inlined") as caught:
        apply(model, ImportModel())
    assert caught.value.hint


def test_fused_convolution_without_activation(parse: Callable, apply: Callable, kinds: Callable) -> None:
    model = parse("""
        <ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        g (float[1, 1, 3, 3] x) => (float[1, 1, 3, 3] y)
        <float[1, 1, 1, 1] k = {2}>
        { y = com.microsoft.FusedConv (x, k) }""")
    apply(model, ImportModel())
    assert kinds(model) == {"Conv": 1}
