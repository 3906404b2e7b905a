"""Graphs of integer operators on images, made node by node, and what runs them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper

from qcompiler.ir import facts, interop
from qcompiler.ir.edit import Edit
from qcompiler.passes.lower.channels_last import ChannelsLast
from qcompiler.pipeline.base import Context, Fact
from qcompiler.quant import packing
from qcompiler.quant.annotations import Annotation, annotate
from qcompiler.quant.functions import catalogue
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.quant.integer import dyadic
from qcompiler.quant.integer.digits import choose_digits
from qcompiler.runtime import session
from qcompiler.runtime.interpreter import Interpreter
from qcompiler.runtime.library import library_path
from qcompiler.target.integer import Layout
from qcompiler.target.load import load

CODES = {"y_zero_point": -3, "to": 3, "low": -128, "high": 127}
WIDE_CODES = {"y_zero_point": 5, "to": 5, "low": -32768, "high": 32767}


@dataclass
class Builder:
    """Adds nodes on int8 (or int16) codes; every method returns the name of the result."""

    random: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    held: list[onnx.TensorProto] = field(default_factory=list)
    fed: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def image(self, *shape: int) -> str:
        self.fed[f"x{len(self.fed)}"] = shape
        return f"x{len(self.fed) - 1}"

    def constant(self, content: Any) -> str:
        name = f"held_{len(self.held)}"
        self.held.append(onnx.numpy_helper.from_array(np.asarray(content), name))
        return name

    def node(self, op_type: str, inputs: Sequence[str], results: int = 1, **attributes: Any) -> Any:
        names = [f"v{len(self.nodes)}_{index}" for index in range(results)]
        domain = DOMAIN if op_type in catalogue.operators() else ""
        self.nodes.append(
            helper.make_node(op_type, inputs, names, name=f"n{len(self.nodes)}", domain=domain, **attributes)
        )
        return names[0] if results == 1 else names

    def factors(self, shape: tuple[int, ...] = (), size: float = -8) -> list[str]:
        """Multiplier and shift around ``2^size``."""
        chosen = dyadic.choose(np.exp2(self.random.uniform(size - 1, size + 1, shape)), 31, 1 << 25)
        return [self.constant(chosen.multiplier), self.constant(chosen.shift)]

    def codes(self, shape: tuple[int, ...], low: int = -128, high: int = 127) -> NDArray[np.int8]:
        return self.random.integers(low, high, shape, endpoint=True).astype(np.int8)

    def conv(
        self, x: str, channels: int, outputs: int, *, kernel: tuple[int, ...] = (3, 3), bits: int = 8, **given: Any
    ) -> str:
        group, axes = given.get("group", 1), len(kernel)
        weight = self.codes((outputs, channels // group, *kernel), -(1 << (bits - 1)), (1 << (bits - 1)) - 1)
        bias = self.random.integers(-2000, 2000, (outputs, *[1] * axes)).astype(np.int32)
        attributes = {"strides": [1] * axes, "dilations": [1] * axes, "pads": [1] * (2 * axes), "group": 1, **given}
        packed = {} if bits == 8 else {"bits": bits, "weight_shape": list(weight.shape)}
        stored = weight if bits == 8 else packing.pack(weight, bits)
        scales = self.factors((outputs, *[1] * axes), -5 - bits / 2)
        inputs = [x, self.constant(stored), self.constant(bias), *scales]
        name = "QConv" if bits == 8 else "QConvPacked"
        return self.node(name, inputs, x_zero_point=-3, **packed, **attributes, **CODES)

    def add(self, a: str, b: str, op_type: str = "QAdd") -> str:
        zeros = {"a_zero_point": -3, "b_zero_point": 4}
        scales = [self.constant(np.int32(item)) for item in (1 << 20, 3 << 19)]
        return self.node(op_type, [a, b, *scales, self.constant(np.uint8(21))], **zeros, **CODES)

    def mul(self, a: str, b: str) -> str:
        return self.node("QMul", [a, b, *self.factors()], a_zero_point=-3, b_zero_point=2, **CODES)

    def rescale(self, x: str, shape: tuple[int, ...] = (), **codes: int) -> str:
        return self.node("Requantize", [x, *self.factors(shape, -1)], x_zero_point=2, **(codes or CODES))

    def lookup(self, x: str) -> str:
        return self.node("QLookup", [x, self.constant(self.codes((256,)))])

    def average(self, x: str, factors: tuple[int, ...] = (), **given: Any) -> str:
        window = {"kernel_shape": [2, 2], "strides": [1, 1], "dilations": [1, 1], "pads": [0] * 4, **given}
        return self.node("QAveragePool", [x, *self.factors(factors, -2)], x_zero_point=-3, **window, **CODES)

    def gemm(self, x: str, depth: int, outputs: int, bits: int = 8) -> str:
        weight = self.codes((outputs, depth), -(1 << (bits - 1)), (1 << (bits - 1)) - 1)
        bias = self.constant(self.random.integers(-2000, 2000, outputs).astype(np.int32))
        packed = {} if bits == 8 else {"bits": bits, "weight_shape": list(weight.shape)}
        stored = np.ascontiguousarray(weight.T) if bits == 8 else packing.pack(weight, bits)
        scales = self.factors((outputs,), -6 - bits / 2)
        return self.node(
            "QGemm" if bits == 8 else "QGemmPacked", [x, self.constant(stored), bias, *scales], **packed, **CODES
        )

    def digits(self, factor: Any, bound: int = 1 << 12) -> list[str]:
        chosen = choose_digits(factor, bound)
        return [self.constant(item) for item in (chosen.left, chosen.negative, chosen.shift)]

    def model(self, *outputs: str, batch: bool = False) -> ir.Model:
        """The graph, every value with the shape it has in a run; ``batch``: its first axis is symbolic."""
        fed = [helper.make_tensor_value_info(name, TensorProto.INT8, shape) for name, shape in self.fed.items()]
        results = [helper.make_empty_tensor_value_info(name) for name in outputs]
        graph = helper.make_graph(self.nodes, "images", fed, results, self.held)
        imports = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, 1)]
        model = ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=10))
        catalogue.attach(model)
        values = [value for node in model.graph for value in node.outputs]
        found = Interpreter(model).run(self.feed(), [str(value.name) for value in values])
        for value in (*model.graph.inputs, *values):
            array = found.get(str(value.name))
            sizes: list[Any] = list(array.shape if array is not None else value.shape or ())
            if array is not None:
                value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
            if batch and sizes:
                sizes[0] = "N"
            value.shape = ir.Shape(sizes)
        for value in values:
            if value.dtype is ir.DataType.INT8:
                annotate(value, Annotation(f"real_{value.name}", 0.5, -3))
        return model

    def feed(self) -> dict[str, NDArray[np.int8]]:
        random = np.random.default_rng(7)
        return {
            name: random.integers(-128, 127, shape, endpoint=True).astype(np.int8) for name, shape in self.fed.items()
        }


def turn(model: ir.Model) -> Context:
    """Run the pass for a target that wants channels last."""
    target = load("edge-npu")
    integer = dataclasses.replace(target.integer, layout=Layout.CHANNELS_LAST)
    ctx = Context(edit=Edit(model), target=dataclasses.replace(target, integer=integer))
    ChannelsLast().run(model, ctx)
    assert facts.check(Fact.LOWERED, model) == []
    return ctx


def run(model: ir.Model, feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """What ONNX Runtime computes."""
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    proto = interop.to_proto(model)
    stock = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results: list[NDArray[Any]] = stock.run(None, feed)
    return results


def turned(builder: Builder, *outputs: str, batch: bool = False) -> list[str]:
    """Turn a graph and return its operators; runtime, interpreter and native kernels must give the bits it had."""
    model = builder.model(*outputs, batch=batch)
    feed = builder.feed()
    wanted = run(model, feed)
    names = [str(value.name) for value in model.graph.outputs]
    turn(model)
    assert [str(value.name) for value in model.graph.outputs] == names
    inside = [str(value.name) for node in model.graph for value in node.outputs]
    specified = Interpreter(model).run(feed, [*names, *inside])
    executions = [run(model, feed), [specified[name] for name in names]]
    if library_path() is not None:
        executions.append(session(interop.to_proto(model), threads=1).run(None, feed))
    for found in executions:
        for one, other in zip(wanted, found, strict=True):
            np.testing.assert_array_equal(other, one, strict=True)
    for node in model.graph:
        for value in node.outputs:
            assert value.shape is not None, node.name
            real = specified[str(value.name)].shape
            assert all(a == b or not isinstance(a, int) for a, b in zip(value.shape, real, strict=True))
    return [node.op_type for node in model.graph]
