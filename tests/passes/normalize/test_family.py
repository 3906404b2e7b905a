"""The whole family on real models, and on a hundred thousand nodes."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnx.backend.test
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from qcompiler.ir.statistics import statistics

ZOO = {
    "mobilenetv1_025_imagenet": 58,
    "resnet20_cifar10": 56,
    "dscnn_kws": 22,
    "vit_mnist": 178,
    "stories260k_lm": 359,
    "minilm_l6_stsb": 221,
}
"""Nodes left at most: what was folded once shall not come back."""

GONE = {"BatchNormalization", "Constant", "Identity", "Dropout", "Sum", "ConstantOfShape"}


@pytest.mark.parametrize("name", ZOO)
def test_pretrained_models_compute_the_same(
    name: str, zoo: ModuleType, family: tuple, apply: Callable, equal: Callable, kinds: Callable
) -> None:
    case = zoo.load(name)
    if case.kind == "imagenet":
        pytest.importorskip("PIL")
    feeds = case.calibration(4)
    feed = {key: np.concatenate([each[key] for each in feeds]) for key in feeds[0]}
    model = ir.load(case.model)
    norms = sum(node.op_type == "BatchNormalization" for node in model.graph)
    apply(model, *family)
    assert GONE.isdisjoint(kinds(model))
    assert len(model.graph) <= ZOO[name]
    assert sum(statistics(value) is not None for node in model.graph for value in node.outputs) == norms
    equal(case.model, model, feed)


LIGHT = sorted((Path(onnx.backend.test.__file__).parent / "data" / "light").glob("light_*.onnx"))


@pytest.mark.skipif(not LIGHT, reason="this onnx ships no light models")
@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_old_models_of_the_onnx_package(path: Path, family: tuple, apply: Callable, kinds: Callable) -> None:
    """Opset 8 and 9, IR 3, weights from ConstantOfShape: structure only, their weights are all the same."""
    model = ir.load(path)
    apply(model, *family)
    assert GONE.isdisjoint(kinds(model))
    assert model.opset_imports[""] == 21
    assert all(value.shape is not None and value.dtype is not None for node in model.graph for value in node.outputs)


@pytest.mark.skipif(not LIGHT, reason="this onnx ships no light models")
def test_an_old_model_computes_the_same(family: tuple, apply: Callable, equal: Callable) -> None:
    path = next(path for path in LIGHT if "squeezenet" in path.stem)
    model = ir.load(path)
    apply(model, *family)
    equal(path, model, {"data_0": np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)})


def test_a_hundred_thousand_nodes(family: tuple) -> None:
    """Linear time: 12,500 blocks of Constant, Mul, Conv, BatchNormalization, Clip, Shape, Reshape, Sum."""
    from qcompiler.ir.edit import Edit
    from qcompiler.pipeline.base import Context

    model = ir.from_proto(_long_model(12_500))
    assert len(model.graph) == 100_000
    context = Context(Edit(model))
    gc.disable()  # as the pass manager does
    start = time.perf_counter()
    for each in family:
        each.run(model, context)
    seconds = time.perf_counter() - start
    gc.enable()
    assert len(model.graph) == 4 * 12_500
    assert seconds < 60, f"{seconds:.1f} s"  # about 10 s alone on two cores; quadratic work would take hours


def _long_model(blocks: int) -> onnx.ModelProto:
    channels, nodes, weights = 2, [], []

    def weight(name: str, *shape: int) -> str:
        weights.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
        return name

    shared = [weight(name, channels) for name in ("gamma", "beta", "mean", "var")]
    last = "x"
    one = onnx.numpy_helper.from_array(np.ones((), np.float32))
    for index in range(blocks):
        name = f"{index}_"
        nodes += [
            helper.make_node("Constant", [], [name + "one"], value=one),
            helper.make_node("Mul", [last, name + "one"], [name + "mul"]),
            helper.make_node("Conv", [name + "mul", weight(name + "w", channels, channels, 1, 1)], [name + "conv"]),
            helper.make_node("BatchNormalization", [name + "conv", *shared], [name + "bn"]),
            helper.make_node("Relu", [name + "bn"], [name + "relu"]),
            helper.make_node("Shape", [name + "relu"], [name + "shape"]),
            helper.make_node("Reshape", [name + "relu", name + "shape"], [name + "reshape"]),
            helper.make_node("Identity", [name + "reshape"], [name + "out"]),
        ]
        last = name + "out"
    graph = helper.make_graph(
        nodes,
        "long",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, 2, 2])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, channels, 2, 2])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
