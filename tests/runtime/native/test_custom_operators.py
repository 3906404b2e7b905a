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


def with_sizes(model: onnx.ModelProto, *sizes: int | str | None) -> onnx.ModelProto:
    """The model with another shape of its first input."""
    dtype = model.graph.input[0].type.tensor_type.elem_type
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info(model.graph.input[0].name, dtype, sizes))
    return model


@pytest.mark.parametrize("height", ["height", None])
@pytest.mark.parametrize("functions", [False, True])
def test_sizes_that_are_computed_keep_type_and_rank(height: str | None, functions: bool) -> None:
    """The height of a result with stride 2 is none of the file's symbols; equal symbols would share memory."""
    model = with_sizes(convolution("batch"), "batch", 3, height, 8)
    again = onnx.NodeProto.FromString(model.graph.node[0].SerializeToString())
    again.output[0] = "again"
    next(item for item in again.attribute if item.name == "strides").ints[:] = [1, 2]
    model.graph.node.append(again)
    model.graph.output.append(helper.make_tensor_value_info("again", onnx.TensorProto.INT16, None))
    if functions:
        model.functions.append(catalogue.operators()["QConv"].function(21))
    for made in (with_custom_operators(model), with_provider(model)):
        first, second = made.get_outputs()
        assert first.type == second.type == "tensor(int16)"
        assert [first.shape[index] for index in (0, 1, 3)] == ["batch", 5, 4]
        assert first.shape[2] != second.shape[2]
        for rows in (8, 15):
            found = made.run(None, {"x": np.ones((2, 3, rows, 8), np.int8)})
            assert [item.shape for item in found] == [(2, 5, (rows + 1) // 2, 4), (2, 5, rows, 4)]


def test_sizes_that_broadcast_keep_type_and_rank() -> None:
    inputs, attributes = CASES["QAdd"]("QAdd", np.random.default_rng(5))
    model = one_node_model("QAdd", inputs, attributes, constants=range(2, 5))
    for item, name in zip(model.graph.input, ("one", "other"), strict=True):
        dtype = item.type.tensor_type.elem_type
        item.CopyFrom(helper.make_tensor_value_info(item.name, dtype, [name, 3]))
    model.graph.node.append(helper.make_node("Identity", ["y"], ["z"]))
    model.graph.output[0].name = "z"
    made = with_custom_operators(model)
    assert len(made.get_outputs()[0].shape) == 2
    feed = {item.name: np.ones((1 + 3 * index, 3), inputs[index].dtype) for index, item in enumerate(model.graph.input)}
    assert made.run(None, feed)[0].shape == (4, 3)


def test_positions_of_a_resize_follow_from_its_taps() -> None:
    inputs = [
        np.ones((2, 3, 4), np.int8), np.zeros((9, 2), np.int64), np.ones((9, 2, 1), np.int32), np.int32(1 << 20),
        np.uint8(21),
    ]  # fmt: skip
    attributes = {"axis": 1, "x_zero_point": 0, "y_zero_point": 0, "to": 3, "low": -128, "high": 127}
    for constants in (range(1, 5), (3, 4)):
        model = with_sizes(one_node_model("QResize", inputs, attributes, constants=constants), "batch", 3, "width")
        for item in model.graph.input[1:]:
            shape = [9, 2, 1][: 2 if item.name == "index" else 3]
            item.CopyFrom(helper.make_tensor_value_info(item.name, item.type.tensor_type.elem_type, shape))
        model.graph.node.append(helper.make_node("Identity", ["y"], ["z"]))
        model.graph.output[0].name = "z"
        for made in (with_custom_operators(model), with_provider(model)):
            (output,) = made.get_outputs()
            assert (output.type, output.shape) == ("tensor(int8)", ["batch", 9, "width"])


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
