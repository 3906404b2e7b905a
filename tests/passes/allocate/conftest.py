"""Makes small models from text and lets ``assign-formats`` decide on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcompiler.ir.edit import Edit
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.pipeline.base import Context
from qcompiler.quant import state
from qcompiler.target.load import load
from qcompiler.target.schema import Target

Weights = Mapping[str, tuple[int, ...]]


def _make(body: str, inputs: str, outputs: str, weights: Weights) -> ir.Model:
    header = '<ir_version: 10, opset_import: ["" : 21, "com.example" : 1]>'
    proto = onnx.parser.parse_model(f"{header} g ({inputs}) => ({outputs}) {{ {body} }}")
    random = np.random.default_rng(0)
    for name, shape in weights.items():
        array = random.normal(size=shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for node in proto.graph.node:
        node.name = f"{node.op_type}_{node.output[0]}"
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


@pytest.fixture
def decide() -> Callable[..., ir.Model]:
    """``decide(body, inputs, outputs, weights, target, exclude=())``: a typed model with decisions on it.

    Nodes are called ``TYPE_OUTPUT``; weights are normal numbers of the given shapes.
    """

    def decided(
        body: str, inputs: str, outputs: str, weights: Weights, target: str | Target, exclude: tuple[str, ...] = ()
    ) -> ir.Model:
        model = _make(body, inputs, outputs, weights)
        profile = load(target) if isinstance(target, str) else target
        AssignFormats().run(model, Context(Edit(model), target=profile, exclude=exclude))
        return model

    return decided


@pytest.fixture
def why_float() -> Callable[[ir.Model], dict[str, str]]:
    """The reason of every node of a model that stays float, by name."""

    def reasons(model: ir.Model) -> dict[str, str]:
        decisions = {str(node.name): state.node_decision(node) for node in model.graph}
        return {name: found.reason for name, found in decisions.items() if found is not None and not found.integer}

    return reasons


@pytest.fixture
def kept() -> Callable[[ir.Model], dict[str, state.TensorQuant]]:
    """The decision on every quantized value of a model, by name."""
    return lambda model: {str(value.name): quant for value, quant in state.quantized_values(model.graph)}
