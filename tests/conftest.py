"""Fixtures shared by all tests. Tests cannot import each other, so helpers are fixtures that return functions."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnx_ir as ir
import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def zoo_folder() -> Path:
    """Folder of pretrained models and data kept outside the repository; skips where there is none."""
    folder = ROOT.parent / "shared" / "zoo"
    if not (folder / "zoo.py").is_file():
        pytest.skip("needs the model zoo at ../shared/zoo")
    return folder


@pytest.fixture(scope="session")
def zoo(zoo_folder: Path) -> ModuleType:
    """The zoo's module, which loads its models and computes their metrics; skips where there is none."""
    spec = importlib.util.spec_from_file_location("qcompiler_zoo", zoo_folder / "zoo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def models_folder() -> Path:
    """Folder of the sample models that ship with the project."""
    return ROOT / "models"


@pytest.fixture(scope="session")
def sample_models(models_folder: Path) -> dict[str, Path]:
    """Shipped sample models by file stem; skips when there are none yet."""
    found = {path.stem: path for path in sorted(models_folder.rglob("*.onnx"))}
    if not found:
        pytest.skip("models/ holds no model")
    return found


@pytest.fixture
def parse() -> Callable[[str], ir.Model]:
    """Makes a model from ONNX text (``onnx.parser``): the way to write small models in tests."""

    def make(text: str) -> ir.Model:
        return ir.from_proto(onnx.parser.parse_model(text))

    return make


@pytest.fixture
def small_cnn() -> ir.Model:
    """Conv → Relu → MaxPool → Flatten → Gemm, input ``x`` [N, 3, 8, 8], output ``y`` [N, 10]; seeded weights."""
    return ir.from_proto(_cnn_proto())


@pytest.fixture
def small_cnn_path(tmp_path: Path) -> Path:
    """The same model as a file."""
    path = tmp_path / "small_cnn.onnx"
    onnx.save(_cnn_proto(), path)
    return path


def _cnn_proto() -> onnx.ModelProto:
    random = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return onnx.numpy_helper.from_array((random.standard_normal(shape) * 0.3).astype(np.float32), name)

    node = onnx.helper.make_node
    graph = onnx.helper.make_graph(
        [
            node("Conv", ["x", "conv_weight", "conv_bias"], ["conv"], "conv", pads=[1, 1, 1, 1]),
            node("Relu", ["conv"], ["relu"], "relu"),
            node("MaxPool", ["relu"], ["pool"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
            node("Flatten", ["pool"], ["flat"], "flatten"),
            node("Gemm", ["flat", "fc_weight", "fc_bias"], ["y"], "fc"),
        ],
        "small_cnn",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, 8, 8])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 10])],
        [
            weight("conv_weight", 8, 3, 3, 3),
            weight("conv_bias", 8),
            weight("fc_weight", 128, 10),
            weight("fc_bias", 10),
        ],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return onnx.shape_inference.infer_shapes(model)


@pytest.fixture
def chain() -> Callable[[int], ir.Model]:
    """Makes a model of about ``count`` nodes for scaling tests: blocks of Conv, BatchNormalization, Relu and Add."""
    return _chain


def _chain(count: int) -> ir.Model:
    node = onnx.helper.make_node
    nodes, weights, last = [], [], "x"
    array = onnx.numpy_helper.from_array
    statistics = ("scale", "bias", "mean", "var")
    for index in range(max(1, count // 4)):
        i = str(index)
        weights += [array(np.full((4, 4, 1, 1), 0.1, np.float32), f"w{i}"), array(np.zeros(4, np.float32), f"b{i}")]
        weights += [array(np.ones(4, np.float32), f"{name}{i}") for name in statistics]
        nodes += [
            node("Conv", [last, f"w{i}", f"b{i}"], [f"c{i}"], f"conv{i}"),
            node("BatchNormalization", [f"c{i}", *(f"{n}{i}" for n in statistics)], [f"n{i}"], f"norm{i}"),
            node("Relu", [f"n{i}"], [f"r{i}"], f"relu{i}"),
            node("Sum", [f"r{i}", last], [f"s{i}"], f"sum{i}"),
        ]
        last = f"s{i}"
    nodes[-1].output[0] = "y"
    x, y = (onnx.helper.make_tensor_value_info(name, 1, ["N", 4, 2, 2]) for name in "xy")
    graph = onnx.helper.make_graph(nodes, "chain", [x], [y], weights)
    return ir.from_proto(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=7))
