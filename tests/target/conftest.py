"""Small models with Q/DQ nodes, built by hand, for the tests of targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

TYPES = {"u8": np.uint8, "i8": np.int8, "i16": np.int16, "i32": np.int32, "i4": ml_dtypes.int4, "i2": ml_dtypes.int4}


class Builder:
    """Grows one graph; every method returns the value it makes."""

    def __init__(self, opset: int = 21, version: int = 10) -> None:
        self.graph = ir.Graph([], [], nodes=[], opset_imports={"": opset}, name="built")
        self.model = ir.Model(self.graph, ir_version=version)
        self.count = 0

    def name(self, base: str) -> str:
        self.count += 1
        return f"{base}_{self.count}"

    def input(self, *shape: int, dtype: ir.DataType = ir.DataType.FLOAT) -> ir.Value:
        value = ir.Value(name=self.name("input"), shape=ir.Shape(shape), type=ir.TensorType(dtype))
        self.graph.inputs.append(value)
        return value

    def constant(self, array: NDArray[Any]) -> ir.Value:
        tensor = ir.Tensor(np.asarray(array))
        value = ir.Value(
            name=self.name("constant"),
            shape=ir.Shape(tensor.shape),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self.graph.register_initializer(value)
        return value

    def op(
        self, op_type: str, *inputs: ir.Value | None, rank: int | None = None, outputs: int = 1, **attributes: Any
    ) -> ir.Value:
        results = [ir.Value(name=self.name(op_type)) for _ in range(outputs)]
        node = ir.Node(
            "",
            op_type,
            inputs,
            ir.convenience.convert_attributes(attributes),
            outputs=results,
            name=self.name(f"the{op_type}"),
        )
        self.graph.append(node)
        integer = op_type == "QuantizeLinear"
        zero = inputs[2] if integer and len(inputs) > 2 else None
        for result in results:
            dtype = zero.dtype if zero is not None and zero.dtype is not None else ir.DataType.FLOAT
            result.type = ir.TensorType(dtype)
            if rank is not None:
                result.shape = ir.Shape([None] * rank)
            elif inputs and inputs[0] is not None:
                result.shape = inputs[0].shape
        return results[0]

    def parameters(self, scale: Any, zero: Any, kind: str) -> tuple[ir.Value, ir.Value]:
        scales = np.asarray(scale, np.float32)
        return self.constant(scales), self.constant(np.broadcast_to(np.asarray(zero), scales.shape).astype(TYPES[kind]))

    def quantize(self, value: ir.Value, kind: str, scale: Any = 0.1, zero: int = 0) -> ir.Value:
        return self.op("QuantizeLinear", value, *self.parameters(scale, zero, kind))

    def dequantize(self, value: ir.Value, kind: str, scale: Any = 0.1, zero: int = 0, **attributes: int) -> ir.Value:
        return self.op("DequantizeLinear", value, *self.parameters(scale, zero, kind), **attributes)

    def pair(self, value: ir.Value, kind: str = "u8", scale: Any = 0.1, zero: int = 0) -> ir.Value:
        return self.dequantize(self.quantize(value, kind, scale, zero), kind, scale, zero)

    def codes(self, array: Any, kind: str, scale: Any, zero: int = 0, **attributes: int) -> ir.Value:
        """Constant codes behind a DequantizeLinear."""
        return self.dequantize(self.constant(np.asarray(array).astype(TYPES[kind])), kind, scale, zero, **attributes)

    def output(self, value: ir.Value) -> ir.Model:
        self.graph.outputs.append(value)
        return self.model


@pytest.fixture
def builder() -> Callable[..., Builder]:
    return Builder


@pytest.fixture
def conv(builder: Callable[..., Builder]) -> Callable[..., ir.Model]:
    """Makes a quantized Conv, correct for cpu-x86 unless an argument says otherwise."""

    def make(
        kind: str = "u8",
        weight: Mapping[str, Any] | None = None,
        bias: Mapping[str, Any] | None = None,
        result: Mapping[str, Any] | None = None,
        **attributes: Any,
    ) -> ir.Model:
        build = builder()
        weights = {"array": np.ones((4, 4, 1, 1)), "kind": "i8", "scale": [0.1, 0.2, 0.3, 0.4], "axis": 0} | dict(
            weight or {}
        )
        product = np.float32(0.1) * np.asarray(weights["scale"], np.float32)
        biases = {"array": np.ones(4), "kind": "i32", "scale": product, "axis": 0} | dict(bias or {})
        data = build.pair(build.input(1, 4, 8, 8), kind)
        if np.ndim(weights["scale"]) == 0:
            weights.pop("axis")
        if np.ndim(biases["scale"]) == 0:
            biases.pop("axis")
        node = build.op("Conv", data, build.codes(**weights), build.codes(**biases), **attributes)
        return build.output(build.pair(node, **({"kind": kind} | dict(result or {}))))

    return make
