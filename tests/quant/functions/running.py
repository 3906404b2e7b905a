"""Runs the function body of an operator in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper

from qcompiler.quant.functions import catalogue
from qcompiler.quant.functions.definition import DOMAIN, VERSION, TensorType


def one_node_model(
    name: str,
    inputs: Sequence[NDArray[Any]],
    attributes: Mapping[str, Any],
    *,
    constants: Sequence[int] = (),
    opset: int = 21,
) -> onnx.ModelProto:
    """A model of one ``ai.qcompiler`` node; the inputs at ``constants`` are initializers, the rest are fed."""
    operators = catalogue.operators()
    names = list(operators[name].inputs)[: len(inputs)]
    node = helper.make_node(name, names, ["y"], domain=DOMAIN, **attributes)
    fed, held = [], []
    for index, (label, array) in enumerate(zip(names, inputs, strict=True)):
        element = helper.np_dtype_to_tensor_dtype(array.dtype)
        if index in constants:
            held.append(onnx.numpy_helper.from_array(array, label))
        else:
            fed.append(helper.make_tensor_value_info(label, element, [None] * array.ndim))
    graph = helper.make_graph([node], "one", fed, [helper.make_empty_tensor_value_info("y")], held)
    functions, pending = {}, [name]
    while pending:
        called = pending.pop()
        if called not in functions:
            functions[called] = operators[called].function(opset)
            pending.extend(operators[called].calls)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, VERSION)]
    model = helper.make_model(graph, opset_imports=imports, functions=list(functions.values()), ir_version=10)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", element_type(name, inputs, attributes), None))
    return model


def element_type(name: str, inputs: Sequence[NDArray[Any]], attributes: Mapping[str, Any]) -> int:
    """Element type of the result, as the operator's own inference has it."""
    types = [TensorType(ir.DataType.from_numpy(array.dtype), array.shape) for array in inputs]
    return catalogue.operators()[name].infer(types, attributes).dtype.value


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """A session on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run_body(
    name: str, inputs: Sequence[NDArray[Any]], attributes: Mapping[str, Any], *, constants: Sequence[int] = ()
) -> NDArray[Any]:
    """What ONNX Runtime computes from the function body."""
    model = one_node_model(name, inputs, attributes, constants=constants)
    names = [item.name for item in model.graph.input]
    labels = list(catalogue.operators()[name].inputs)
    feed = {label: np.asarray(array) for label, array in zip(labels, inputs, strict=False) if label in names}
    result: NDArray[Any] = session(model).run(None, feed)[0]
    return result
