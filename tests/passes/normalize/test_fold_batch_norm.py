"""BatchNormalization folds into linear layers on either side, or becomes Mul and Add; its statistics stay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from qcompiler.ir.edit import Edit
from qcompiler.ir.statistics import statistics
from qcompiler.passes.normalize.batch_norm_to_affine import BatchNormToAffine
from qcompiler.passes.normalize.canonicalize_matmul import CanonicalizeMatmul
from qcompiler.passes.normalize.fold_batch_norm import FoldBatchNorm
from qcompiler.passes.normalize.import_model import ImportModel
from qcompiler.pipeline.base import Context

PASSES = (ImportModel(), CanonicalizeMatmul(), FoldBatchNorm())


def _build(
    nodes: list[onnx.NodeProto],
    shape: list[int | str],
    outputs: tuple[str, ...] = ("y",),
    channels: int = 4,
    seed: int = 0,
    **weights: tuple[int, ...],
) -> onnx.ModelProto:
    """A model with parameters ``gamma beta mean var`` of BatchNormalization and the given weights, all seeded."""
    random = np.random.default_rng(seed)
    arrays = {name: random.standard_normal(size).astype(np.float32) for name, size in weights.items()}
    arrays |= {name: random.standard_normal(channels).astype(np.float32) for name in ("gamma", "beta", "mean")}
    arrays["var"] = random.uniform(0.2, 2, channels).astype(np.float32)
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * len(shape)) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items() if name in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)


def _bn(source: str, result: str = "y", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(
        "BatchNormalization",
        [source, "gamma", "beta", "mean", "var"],
        [result],
        name=f"bn_{result}",
        epsilon=1e-3,
        **attributes,
    )


def _node(op: str, inputs: str, result: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [result], name=f"{op}_{result}", **attributes)


IMAGE = [2, 4, 6, 5]
AFTER = {
    "conv": _build([_node("Conv", "x w b", "c", pads=[1, 1, 1, 1]), _bn("c")], IMAGE, w=(4, 4, 3, 3), b=(4,)),
    "conv-no-bias": _build([_node("Conv", "x w", "c"), _bn("c")], IMAGE, w=(4, 4, 3, 3)),
    "depthwise": _build([_node("Conv", "x w", "c", group=4), _bn("c")], IMAGE, w=(4, 1, 3, 3)),
    "grouped": _build([_node("Conv", "x w b", "c", group=2), _bn("c")], IMAGE, w=(4, 2, 3, 3), b=(4,)),
    "transposed": _build(
        [_node("ConvTranspose", "x w b", "c", strides=[2, 2]), _bn("c")], IMAGE, w=(4, 4, 3, 3), b=(4,)
    ),
    "transposed-grouped": _build(
        [_node("ConvTranspose", "x w", "c", group=2), _bn("c")], IMAGE, channels=6, w=(4, 3, 3, 3)
    ),
    "gemm": _build([_node("Gemm", "x w b", "c", transB=1), _bn("c")], [3, 5], w=(4, 5), b=(4,)),
    "gemm-plain": _build([_node("Gemm", "x w b", "c"), _bn("c")], [3, 5], w=(5, 4), b=(4,)),
    "matmul": _build([_node("MatMul", "x w", "c"), _bn("c")], [3, 5], w=(5, 4)),
    "matmul-add": _build([_node("MatMul", "x w", "m"), _node("Add", "m b", "c"), _bn("c")], [3, 5], w=(5, 4), b=(4,)),
    "twice": _build([_node("Conv", "x w", "c"), _bn("c", "d"), _bn("d")], IMAGE, w=(4, 4, 3, 3)),
    "with-affine": _build(
        [_node("Conv", "x w", "c"), _bn("c", "d"), _node("Mul", "d s", "e"), _node("Add", "t e", "y")],
        IMAGE,
        w=(4, 4, 3, 3),
        s=(4, 1, 1),
        t=(1, 4, 1, 1),
    ),
    "div-and-sub": _build(
        [_node("Conv", "x w", "c"), _node("Div", "c s", "e"), _node("Sub", "e t", "y")],
        IMAGE,
        w=(4, 4, 3, 3),
        s=(4, 1, 1),
        t=(1, 4, 1, 1),
    ),
}


@pytest.mark.parametrize("name", AFTER)
def test_folds_into_the_layer_before(name: str, apply: Callable, equal: Callable) -> None:
    model = ir.from_proto(AFTER[name])
    apply(model, *PASSES)
    assert len(model.graph) == 1
    assert model.graph.node(0).outputs[0].name == "y"
    equal(AFTER[name], model)


BEFORE = {
    "conv": _build([_bn("x", "n"), _node("Conv", "n w b", "y")], IMAGE, w=(3, 4, 3, 3), b=(3,)),
    "pointwise": _build([_bn("x", "n"), _node("Conv", "n w", "y", strides=[2, 2])], IMAGE, w=(3, 4, 1, 1)),
    "depthwise": _build([_bn("x", "n"), _node("Conv", "n w", "y", group=4)], IMAGE, w=(8, 1, 3, 3)),
    "grouped": _build([_bn("x", "n"), _node("Conv", "n w b", "y", group=2)], IMAGE, w=(6, 2, 3, 3), b=(6,)),
    "gemm": _build([_bn("x", "n"), _node("Gemm", "n w b", "y", transB=1)], [3, 4], w=(5, 4), b=(5,)),
    "matmul": _build([_bn("x", "n"), _node("MatMul", "n w", "y")], [3, 4], w=(4, 5)),
    "two-readers": _build(
        [_bn("x", "n"), _node("Conv", "n w", "a"), _node("Conv", "n v", "b"), _node("Add", "a b", "y")],
        IMAGE,
        w=(3, 4, 3, 3),
        v=(3, 4, 3, 3),
    ),
    "one-weight-twice": _build(
        [_bn("x", "n"), _node("Conv", "n w", "a"), _node("Conv", "x w", "b"), _node("Add", "a b", "y")],
        IMAGE,
        w=(4, 4, 3, 3),
    ),
}


@pytest.mark.parametrize("name", BEFORE)
def test_folds_into_the_layers_behind(name: str, apply: Callable, equal: Callable, kinds: Callable) -> None:
    model = ir.from_proto(BEFORE[name])
    apply(model, *PASSES)
    assert "BatchNormalization" not in kinds(model)
    equal(BEFORE[name], model)


def test_a_mere_factor_folds_into_a_layer_with_padding(apply: Callable, equal: Callable, kinds: Callable) -> None:
    proto = _build([_bn("x", "n"), _node("Conv", "n w", "y", pads=[1, 1, 1, 1])], IMAGE, w=(3, 4, 3, 3))
    for tensor in proto.graph.initializer:
        if tensor.name in {"beta", "mean"}:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros(4, np.float32), tensor.name))
    model = ir.from_proto(proto)
    apply(model, *PASSES)
    assert kinds(model) == {"Conv": 1}
    equal(proto, model)


REFUSED = {
    "zero padding": (
        _build([_bn("x", "n"), _node("Conv", "n w", "y", pads=[1, 1, 1, 1])], IMAGE, w=(3, 4, 3, 3)),
        "padding would be shifted",
    ),
    "automatic padding": (
        _build([_bn("x", "n"), _node("Conv", "n w", "y", auto_pad="SAME_UPPER")], IMAGE, w=(3, 4, 3, 3)),
        "padding would be shifted",
    ),
    "transposed": (
        _build([_bn("x", "n"), _node("ConvTranspose", "n w", "y")], IMAGE, w=(4, 3, 3, 3)),
        "border of a transposed",
    ),
    "not linear": (
        _build([_node("Relu", "x", "r"), _bn("r", "n"), _node("Relu", "n", "y")], IMAGE),
        "Relu before it is not linear",
    ),
    "used elsewhere": (
        _build([_node("Conv", "x w", "c"), _bn("c", "n"), _node("Add", "c n", "y")], IMAGE, w=(4, 4, 1, 1)),
        "is used elsewhere too",
    ),
    "an output": (
        _build([_node("Conv", "x w", "c"), _bn("c")], IMAGE, outputs=("c", "y"), w=(4, 4, 1, 1)),
        "is used elsewhere too",
    ),
    "other axis": (_build([_node("MatMul", "x w", "c"), _bn("c")], [2, 4, 5], w=(5, 4)), "channels are not on axis 1"),
    "weight computed": (_build([_node("Conv", "x x", "c"), _bn("c")], [4, 4, 3, 3]), "weight is not constant"),
    "training": (
        _build([_node("Conv", "x w", "c"), _bn("c", training_mode=1)], IMAGE, w=(4, 4, 1, 1)),
        "training mode",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_fold_stays_with_its_reason(
    name: str, apply: Callable, equal: Callable, kinds: Callable, skips: Callable
) -> None:
    proto, reason = REFUSED[name]
    model = ir.from_proto(proto)
    found = skips(apply(model, *PASSES))
    assert any(reason in text for text in found), found
    assert kinds(model)["BatchNormalization"] == 1
    if name == "training":
        return
    equal(proto, model)
    apply(model, BatchNormToAffine())
    assert "BatchNormalization" not in kinds(model)
    assert kinds(model)["Mul"] == 1
    equal(proto, model)


def test_parameters_that_are_fed_stay(parse: Callable, apply: Callable, skips: Callable) -> None:
    model = parse("""
        <ir_version: 8, opset_import: ["" : 15]>
        g (float[2, 1, 3, 3] x, float[1] gamma) => (float[2, 1, 3, 3] y)
        <float[1] one = {1}>
        { y = BatchNormalization (x, gamma, one, one, one) }""")
    found = skips(apply(model, *PASSES, BatchNormToAffine()))
    assert sum("parameters are not constant" in text for text in found) == 2


def test_a_weight_shared_with_another_layer_is_copied(apply: Callable, equal: Callable, kinds: Callable) -> None:
    nodes = [_node("Conv", "x w b", "c"), _bn("c", "d"), _node("Conv", "x w b", "e"), _node("Add", "d e", "y")]
    proto = _build(nodes, IMAGE, w=(4, 4, 3, 3), b=(4,))
    model = ir.from_proto(proto)
    apply(model, *PASSES)
    assert kinds(model) == {"Conv": 2, "Add": 1}
    assert len(model.graph.initializers) == 4
    equal(proto, model)


def test_affine_merges_what_follows(apply: Callable, equal: Callable, kinds: Callable) -> None:
    nodes = [_bn("x", "d"), _node("Mul", "d s", "e"), _node("Add", "e t", "f"), _node("Relu", "f", "y")]
    proto = _build(nodes, IMAGE, s=(4, 1, 1), t=(4, 1, 1))
    model = ir.from_proto(proto)
    apply(model, *PASSES, BatchNormToAffine())
    assert kinds(model) == {"Mul": 1, "Add": 1, "Relu": 1}
    assert model.graph.node(1).outputs[0].name == "f"
    equal(proto, model)


@pytest.mark.parametrize("name", ["conv", "transposed-grouped", "matmul", "with-affine"])
def test_statistics_are_kept_and_survive_the_file(name: str, apply: Callable, tmp_path: Path) -> None:
    proto = AFTER[name]
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor).astype(np.float64) for tensor in proto.graph.initializer}
    mean, variance = arrays["beta"], arrays["gamma"] ** 2 * arrays["var"] / (arrays["var"] + 1e-3)
    if name == "with-affine":
        scale = arrays["s"].reshape(-1)
        mean, variance = mean * scale + arrays["t"].reshape(-1), variance * scale**2
    model = ir.from_proto(proto)
    apply(model, *PASSES)
    ir.save(model, tmp_path / "m.onnx")
    for each in (model, ir.load(tmp_path / "m.onnx")):
        found = statistics(each.graph.node(0).outputs[0])
        assert found is not None
        np.testing.assert_allclose(found[0], mean, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(found[1], variance, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    groups=st.sampled_from([1, 2, 3]),
    per_group=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    transposed=st.booleans(),
    bias=st.booleans(),
    size=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    seed=st.integers(0, 1000),
)
def test_any_grouping(
    groups: int,
    per_group: tuple[int, int],
    transposed: bool,
    bias: bool,
    size: tuple[int, int],
    seed: int,
    apply: Callable,
    equal: Callable,
) -> None:
    inputs, outputs = groups * per_group[0], groups * per_group[1]
    shape = (inputs, per_group[1], *size) if transposed else (outputs, per_group[0], *size)
    op = "ConvTranspose" if transposed else "Conv"
    weights = {"w": shape} | ({"b": (outputs,)} if bias else {})
    proto = _build(
        [_node(op, " ".join(["x", *weights]), "c", group=groups), _bn("c")],
        [2, inputs, 4, 4],
        channels=outputs,
        seed=seed,
        **weights,
    )
    model = ir.from_proto(proto)
    apply(model, *PASSES)
    assert len(model.graph) == 1
    equal(proto, model)


@pytest.mark.parametrize("name", AFTER)
def test_large_models_change_their_weights_when_read(name: str, equal: Callable, tmp_path: Path) -> None:
    model = ir.from_proto(AFTER[name])
    context = Context(Edit(model))
    context.edit.lazy_above = 0
    for each in PASSES:
        each.run(model, context)
    assert isinstance(model.graph.node(0).inputs[1].const_value, ir.LazyTensor)
    equal(AFTER[name], model)
    ir.save(model, tmp_path / "m.onnx")
    equal(AFTER[name], ir.load(tmp_path / "m.onnx"))
