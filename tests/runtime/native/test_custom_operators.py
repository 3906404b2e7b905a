"""The operators as custom operators: files without functions run, with the library alone and with the provider."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper

import qcompiler
from qcompiler.quant.functions import catalogue
from qcompiler.runtime import sessions
from qcompiler.runtime.library import library_path
from qcompiler.runtime.native_operator import native_operators
from tests.quant.functions.every_case import CASES, family
from tests.quant.functions.running import one_node_model

pytestmark = pytest.mark.skipif(library_path() is None, reason="the installation has no native library")

TYPES = native_operators() if library_path() is not None else ()


def options() -> onnxruntime.SessionOptions:
    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads = 1
    made.log_severity_level = 4
    made.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return made


def with_custom_operators(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    chosen = options()
    chosen.register_custom_ops_library(str(library_path()))
    return onnxruntime.InferenceSession(model.SerializeToString(), chosen, providers=["CPUExecutionProvider"])


def with_provider(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return qcompiler.runtime.session(model, threads=1, options=options())


def assigned(session: onnxruntime.InferenceSession) -> list[tuple[str, list[str]]]:
    groups = session.get_provider_graph_assignment_info()
    return [(group.ep_name, [node.op_type for node in group.get_nodes()]) for group in groups]


def instance(name: str) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]], NDArray[Any]]:
    """A model of one node with its function, a feed, and what the specification says."""
    inputs, attributes = CASES[family(name)](name, np.random.default_rng(5))
    model = one_node_model(name, inputs, attributes, constants=range(1, len(inputs), 2))
    labels = list(catalogue.operators()[name].inputs)
    named = dict(zip(labels, map(np.asarray, inputs), strict=False))
    expected = catalogue.operators()[name].specification(*inputs, **attributes)
    return model, {item.name: named[item.name] for item in model.graph.input}, expected


@pytest.mark.parametrize("name", TYPES)
def test_every_operator_runs_without_its_function(name: str) -> None:
    model, feed, expected = instance(name)
    del model.functions[:]
    for made in (with_custom_operators(model), with_provider(model)):
        np.testing.assert_array_equal(made.run(None, feed)[0], expected, strict=True)


@pytest.mark.parametrize("name", TYPES[:2])
def test_the_kernel_is_taken_and_not_the_function(name: str) -> None:
    model, feed, expected = instance(name)
    library, provider = with_custom_operators(model), with_provider(model)
    np.testing.assert_array_equal(library.run(None, feed)[0], expected, strict=True)
    assert assigned(library) == [("CPUExecutionProvider", [name])]
    assert assigned(provider) == [(sessions.PROVIDER, [name])]


def convolution(batch: int | str, rank_known: bool = True) -> onnx.ModelProto:
    """A convolution whose result has no type and no shape in the file."""
    random = np.random.default_rng(2)
    arrays = {
        "w": random.integers(-128, 128, (5, 3, 3, 3)).astype(np.int8),
        "bias": np.zeros(5, np.int32).reshape(5, 1, 1),
        "multiplier": np.full((), 1 << 20, np.int32),
        "shift": np.full((), 30, np.uint8),
    }
    attributes = {"strides": [2, 2], "dilations": [1, 1], "pads": [1, 1, 1, 1], "group": 1, "x_zero_point": 4}
    clamp = {"y_zero_point": 0, "to": 5, "low": -32768, "high": 32767}
    nodes = [
        helper.make_node("QConv", ["x", *arrays], ["y"], domain="ai.qcompiler", **attributes, **clamp),
        helper.make_node("Identity", ["y"], ["z"]),
    ]
    shape = [batch, 3, 8, 8] if rank_known else None
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", onnx.TensorProto.INT8, shape)],
        [helper.make_tensor_value_info("z", onnx.TensorProto.INT16, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("ai.qcompiler", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


@pytest.mark.parametrize("batch", [4, "batch"])
def test_types_and_shapes_of_results_are_inferred(batch: int | str) -> None:
    for made in (with_custom_operators(convolution(batch)), with_provider(convolution(batch))):
        (output,) = made.get_outputs()
        assert (output.type, output.shape) == ("tensor(int16)", [batch, 5, 4, 4])
        assert made.run(None, {"x": np.ones((4, 3, 8, 8), np.int8)})[0].shape == (4, 5, 4, 4)


def test_a_file_that_says_nothing_of_rank_and_type_is_refused_with_the_node() -> None:
    with pytest.raises(Exception, match=r"QConv.*type inference failed"):
        with_custom_operators(convolution(4, rank_known=False))


def test_a_refusal_names_node_and_reason() -> None:
    model = convolution(4)
    model.graph.node[0].name = "first"
    model.graph.value_info.append(helper.make_tensor_value_info("y", onnx.TensorProto.INT16, None))
    next(item for item in model.graph.node[0].attribute if item.name == "group").i = 2
    with pytest.raises(Exception, match=r"first \(QConv\): .*group"):
        with_custom_operators(model).run(None, {"x": np.ones((4, 3, 8, 8), np.int8)})


def test_library_and_provider_in_one_session() -> None:
    """First the library, then the provider; the other order is ONNX Runtime's own error."""
    model, feed, expected = instance("Requantize")
    both = options()
    both.register_custom_ops_library(str(library_path()))
    made = qcompiler.runtime.session(model, options=both)
    np.testing.assert_array_equal(made.run(None, feed)[0], expected, strict=True)
