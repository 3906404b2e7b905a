"""Placed pairs, judged on what ONNX Runtime makes of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from qcompiler.errors import PassError
from qcompiler.ir.edit import Edit
from qcompiler.ir.execute import Runner
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.passes.place.apply import saturates_like
from qcompiler.passes.place.place_qdq import PlaceQdq
from qcompiler.passes.place.plan import plan_values
from qcompiler.passes.place.simulate import materialized
from qcompiler.pipeline.base import Context
from qcompiler.quant import state
from qcompiler.quant.format import QFormat
from qcompiler.quant.params import QParams, params_from_range
from qcompiler.target.load import load

RNG = np.random.default_rng(0)
SAMPLES = [RNG.normal(size=(1, 3, 8, 8)).astype(np.float32) for _ in range(8)]


def residual() -> ir.Model:
    """Conv → Relu → Conv → Add → Clip(0, 6) → Conv, with biases; the last output is public."""
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[1,3,8,8] x) => (float[1,2,8,8] y) {
       a = Conv <pads=[1,1,1,1]> (x, w1, b1)
       r = Relu(a)
       c = Conv <pads=[1,1,1,1]> (r, w2, b2)
       s = Add(c, r)
       t = Clip(s, zero, six)
       d = Conv <pads=[1,1,1,1]> (t, w3)
       u = Relu(d)
       y = Conv (u, w4, b4) }"""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, shape in {
        "w1": (4, 3, 3, 3),
        "b1": (4,),
        "w2": (4, 4, 3, 3),
        "b2": (4,),
        "w3": (4, 4, 3, 3),
        "w4": (2, 4, 1, 1),
        "b4": (2,),
    }.items():
        proto.graph.initializer.append(
            onnx.numpy_helper.from_array(0.5 * rng.normal(size=shape).astype(np.float32), name)
        )
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0), "zero"))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(6), "six"))
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def decided(target: str = "cpu-x86", exclude: tuple[str, ...] = ()) -> ir.Model:
    """The residual model with formats and min-max parameters."""
    model = residual()
    AssignFormats().run(model, Context(Edit(model), target=load(target), exclude=exclude))
    runner = Runner(model, [v.name for n in model.graph for v in n.outputs])
    runs = [{"x": sample} | runner.run({"x": sample}) for sample in SAMPLES]
    for value, quant in list(state.quantized_values(model.graph)):
        if value.is_initializer():
            array = value.const_value.numpy()
            axes = tuple(i for i in range(array.ndim) if i != quant.format.axis)
            low, high = (
                (array.min(axis=axes), array.max(axis=axes))
                if quant.format.axis is not None
                else (array.min(), array.max())
            )
        else:
            low, high = min(r[value.name].min() for r in runs), max(r[value.name].max() for r in runs)
        state.set_value_quant(value, quant.with_params(params_from_range(low, high, quant.format)))
    return model


def optimized(model: ir.Model, folder: Path) -> onnx.ModelProto:
    """What ONNX Runtime makes of it with its default settings."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimized.onnx")


def census(proto: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in proto.graph.node)


def relative_error(model: ir.Model) -> float:
    reference, candidate = Runner(residual()), Runner(model)
    pairs = [(reference.run({"x": s})["y"], candidate.run({"x": s})["y"]) for s in SAMPLES]
    return sum(float(((a - b) ** 2).sum()) for a, b in pairs) / sum(float((a**2).sum()) for a, _ in pairs)


def test_everything_becomes_integer_in_onnx_runtime(tmp_path):
    model = materialized(decided())
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    counts = census(optimized(model, tmp_path))
    assert counts["QLinearConv"] == 4
    assert counts["QLinearAdd"] == 1
    assert not counts["Conv"] + counts["Add"] + counts["Relu"] + counts["Clip"]
    assert counts["QuantizeLinear"] + counts["DequantizeLinear"] == 2
    assert relative_error(model) < 2e-3


def test_weights_and_biases_are_stored_as_integers():
    model = materialized(decided())
    kinds = Counter(v.const_value.dtype.name for v in model.graph.initializers.values() if v.const_value.size > 1)
    assert kinds["INT8"] >= 4
    assert kinds["INT32"] == 3
    assert not [
        n
        for n, v in model.graph.initializers.items()
        if v.const_value.dtype == ir.DataType.FLOAT and v.const_value.size > 8
    ]


@pytest.mark.parametrize("name", ["Conv_0", "Conv_2", "Conv_5", "Conv_7"])
def test_excluded_convolution_is_float_in_the_optimized_graph(name, tmp_path):
    model = materialized(decided(exclude=(name,)))
    proto = optimized(model, tmp_path)
    counts = census(proto)
    assert counts["QLinearConv"] == 3
    assert counts["Conv"] + counts["FusedConv"] == 1
    # The default session, with every optimizer of ONNX Runtime, computes what the guarded one does.
    default = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    ours = Runner(model)
    step = max(
        float(v.const_value.numpy().max())
        for n, v in model.graph.initializers.items()
        if n.endswith("_scale") and not v.shape
    )
    for sample in SAMPLES:
        assert np.abs(default.run(None, {"x": sample})[0] - ours.run({"x": sample})["y"]).max() < 2 * step
    assert relative_error(model) <= 1.5 * relative_error(materialized(decided()))


def test_bias_of_an_excluded_convolution_is_kept_bit_for_bit():
    model = materialized(decided(exclude=("Conv_2",)))
    node = next(n for n in model.graph if n.name == "Conv_2")
    dequantize = node.inputs[2].producer()
    assert dequantize.op_type == "DequantizeLinear"
    codes, scale = (dequantize.inputs[i].const_value.numpy() for i in (0, 1))
    expected = residual().graph.initializers["b2"].const_value.numpy()
    np.testing.assert_array_equal((codes.astype(np.float32) * scale), expected)


def test_no_redundant_pair_and_float_output():
    model = materialized(decided())
    for node in model.graph:
        if node.op_type == "QuantizeLinear":
            producer = node.inputs[0].producer()
            assert producer is None or producer.op_type != "DequantizeLinear"
    assert model.graph.outputs[0].name == "y"
    assert model.graph.outputs[0].dtype == ir.DataType.FLOAT


def test_planner_edits_nothing():
    model = decided()
    before = ir.to_proto(model).SerializeToString()
    assert plan_values(model.graph)
    assert ir.to_proto(model).SerializeToString() == before


def test_simulation_leaves_the_model_alone():
    model = decided()
    before = ir.to_proto(model).SerializeToString()
    materialized(model)
    assert ir.to_proto(model).SerializeToString() == before
    assert state.has_state(model.graph)


def test_missing_parameters_are_refused():
    model = residual()
    AssignFormats().run(model, Context(Edit(model), target=load("cpu-x86")))
    with pytest.raises(PassError, match="no scale"):
        PlaceQdq().run(model, Context(Edit(model)))


@pytest.mark.parametrize(
    ("low", "high", "relu", "clip"),
    [(0, 6, True, True), (0, 9, True, False), (-1, 5, False, False), (0, 5.5, True, True)],
)
def test_absorbed_only_where_codes_are_equal(low, high, relu, clip):
    form = QFormat(8, signed=False)
    params = params_from_range(low, high, form)
    nodes = {node.op_type: node for node in residual().graph}
    assert saturates_like(nodes["Relu"], form, params) is relu
    assert saturates_like(nodes["Clip"], form, params) is clip


def test_requantization_of_an_edge_reads_the_main_pair():
    model = decided("edge-npu")
    value = next(v for n in model.graph for v in n.outputs if v.name == "r")
    quant = state.value_quant(value)
    wide = state.TensorQuant(QFormat(16), QParams(np.float32(0.001).reshape(()), np.zeros((), np.int32)))
    use = next(u for u in value.uses() if u.node.op_type == "Add")
    state.set_edge_quant(use.node, use.idx, wide)
    model = materialized(model)
    add = next(n for n in model.graph if n.op_type == "Add")
    second = add.inputs[use.idx].producer().inputs[0].producer()
    assert second.op_type == "QuantizeLinear"
    assert second.inputs[0].producer().op_type == "DequantizeLinear"
    assert quant is not None


@pytest.mark.parametrize("head", ["", "a = Neg(x)"])
def test_inputs_and_outputs_keep_their_names_before_an_absorbed_relu(head):
    source, outputs = ("a", "(float[N] a, float[N] y)") if head else ("x", "(float[N] y)")
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[N] x) => '
        f"{outputs} {{ {head} b = Relu({source}) y = Neg(b) }}"
    )
    for node in model.graph:
        state.set_node_decision(node, state.NodeDecision(node.op_type == "Relu"))
    params = QParams(np.float32(0.1).reshape(()), np.full((), -128, np.int32))
    relu = next(node for node in model.graph if node.op_type == "Relu")
    state.set_value_quant(relu.outputs[0], state.TensorQuant(QFormat(8), params))
    model = materialized(model)
    assert [value.name for value in (*model.graph.inputs, *model.graph.outputs)] == ["x", *(["a"] if head else []), "y"]
    assert "Relu" in [node.op_type for node in model.graph]
