"""hessian: errors of weights count by what they cost at the output of their layer."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcompiler.calibration import data
from qcompiler.ir.edit import Edit
from qcompiler.passes.calibrate.calibrate_weights import CalibrateWeights
from qcompiler.passes.calibrate.importance import importance, observe
from qcompiler.pipeline.base import Context
from qcompiler.quant import arithmetic, state
from qcompiler.quant.format import QFormat
from qcompiler.quant.state import TensorQuant

LAYERS = {
    "Conv": ("y = Conv <pads=[1,0,1,0], strides=[2,1], group=2> (x, w)", (1, 4, 6, 6), (6, 2, 3, 2), 0),
    "depthwise": ("y = Conv <group=4> (x, w)", (1, 4, 6, 6), (4, 1, 3, 3), 0),
    "ConvTranspose": ("y = ConvTranspose (x, w)", (1, 4, 5, 5), (4, 3, 2, 2), 1),
    "MatMul": ("y = MatMul (x, w)", (2, 5, 8), (8, 6), 1),
    "Gemm": ("y = Gemm <transB=1> (x, w)", (5, 8), (6, 8), 0),
    "Gemm transposed": ("y = Gemm <transA=1> (x, w)", (8, 5), (8, 6), 1),
}


def layer(kind: str) -> tuple[ir.Model, np.ndarray, list[np.ndarray], int]:
    text, shape, weight_shape, axis = LAYERS[kind]
    random = np.random.default_rng(0)
    dims = ",".join(map(str, shape))
    proto = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 21]> g (float[{dims}] x) => (float y) {{ {text} }}'
    )
    weight = random.standard_normal(weight_shape).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    proto.graph.node[0].name = "layer"
    strength = random.lognormal(0, 1.5, shape[-1] if kind == "MatMul" else shape[1])
    if kind == "Gemm transposed":
        strength = random.lognormal(0, 1.5, (8, 1))
    elif len(shape) == 4:
        strength = strength[:, None, None]
    samples = [(random.standard_normal(shape) * strength).astype(np.float32) for _ in range(300)]
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto)), weight, samples, axis


def context(model: ir.Model, samples: list[np.ndarray] | None) -> Context:
    feeds = None if samples is None else data.load([{"x": x} for x in samples], data.inputs_of(model))
    return Context(Edit(model), calibration=feeds)


def responses(model: ir.Model, weight: np.ndarray, samples: list[np.ndarray]) -> np.ndarray:
    from qcompiler.ir.execute import Runner

    model.graph.initializers["w"].const_value = ir.Tensor(weight)
    runner = Runner(model)
    return np.stack([next(iter(runner.run({"x": x}).values())) for x in samples])


@pytest.mark.parametrize("kind", LAYERS)
def test_importance_is_the_output_error_that_one_weight_makes(kind: str) -> None:
    model, weight, samples, _ = layer(kind)
    value = model.graph.initializers["w"]
    found = importance(value, observe(model, [value], context(model, samples)))
    assert found is not None
    assert found.shape == weight.shape
    exact = responses(model, weight, samples)
    costs = []
    random = np.random.default_rng(1)
    places = [tuple(random.integers(0, size) for size in weight.shape) for _ in range(6)]
    for place in places:
        changed = weight.copy()
        changed[place] += 1.0
        costs.append(float(np.square(responses(model, changed, samples).astype(np.float64) - exact).sum()))
    measured = np.array(costs)
    told = np.array([found[place] for place in places]) - 0.01
    np.testing.assert_allclose(told / told.sum(), measured / measured.sum(), rtol=2e-3)


@pytest.mark.parametrize("kind", LAYERS)
def test_hessian_lowers_the_error_of_the_output(kind: str) -> None:
    errors = {}
    for method in ("mse", "hessian"):
        model, weight, samples, axis = layer(kind)
        form = QFormat.parse(f"i3/sym/axis={axis}")
        state.set_value_quant(model.graph.initializers["w"], TensorQuant(form))
        ctx = context(model, samples)
        CalibrateWeights(method=method).run(model, ctx)  # type: ignore[arg-type]
        quant = state.value_quant(model.graph.initializers["w"])
        assert quant is not None
        assert quant.params is not None
        rounded = arithmetic.dequantize(arithmetic.quantize(weight, quant.params, form), quant.params, form)
        exact = responses(model, weight, samples).astype(np.float64)
        errors[method] = float(np.square(responses(model, rounded, samples) - exact).sum())
    # The 9 weights that share a scale in the depthwise layer see one channel: only the border tells them apart.
    assert errors["hessian"] < errors["mse"] * (1.02 if kind == "depthwise" else 1.0)


def test_without_samples_it_is_mse_and_says_so() -> None:
    params = {}
    for method in ("mse", "hessian"):
        model, *_ = layer("MatMul")
        state.set_value_quant(model.graph.initializers["w"], TensorQuant(QFormat.parse("i4/axis=1")))
        ctx = context(model, None)
        CalibrateWeights(method=method).run(model, ctx)  # type: ignore[arg-type]
        quant = state.value_quant(model.graph.initializers["w"])
        assert quant is not None
        params[method] = quant.params
    assert params["mse"] == params["hessian"]
    assert "no calibration samples" in ctx.records[-1].notes[0].text


def test_a_constant_that_nothing_multiplies_counts_everywhere_the_same() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[2,3] x) => (float y) '
        "<float[3] w = {1, 2, 3}> { y = Add (x, w) }"
    )
    model = ir.from_proto(proto)
    value = model.graph.initializers["w"]
    assert importance(value, observe(model, [value], context(model, None))) is None


@pytest.mark.parametrize(("form", "activations", "like"), [("i4/axis=1", False, "hessian"), ("i4/axis=1", True, "mse")])
def test_auto_counts_costs_where_activations_are_real(form: str, activations: bool, like: str) -> None:
    params = {}
    for method in ("auto", like):
        model, _, samples, _ = layer("MatMul")
        node = model.graph.node(0)
        state.set_edge_quant(node, 1, TensorQuant(QFormat.parse(form)))
        if activations:
            state.set_edge_quant(node, 0, TensorQuant(QFormat.parse("i8")))
        CalibrateWeights(method=method).run(model, context(model, samples))  # type: ignore[arg-type]
        quant = state.edge_quant(node, 1)
        assert quant is not None
        params[method] = quant.params
    assert params["auto"] == params[like]
