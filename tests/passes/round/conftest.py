"""Makes small models from text, with formats and scales, ready to be rounded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcompiler.calibration import data
from qcompiler.ir.edit import Edit
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.passes.calibrate.calibrate import Calibrate
from qcompiler.passes.calibrate.calibrate_weights import CalibrateWeights
from qcompiler.pipeline.base import Context, PassRecord
from qcompiler.target.load import load

Calibrated = Callable[..., tuple[ir.Model, Context]]


def _make(body: str, inputs: str, outputs: str, weights: Mapping[str, tuple[int, ...]]) -> ir.Model:
    header = '<ir_version: 10, opset_import: ["" : 21]>'
    proto = onnx.parser.parse_model(f"{header} g ({inputs}) => ({outputs}) {{ {body} }}")
    random = np.random.default_rng(0)
    for name, shape in weights.items():
        array = (random.normal(size=shape) + 0.1).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for node in proto.graph.node:
        node.name = f"{node.op_type}_{node.output[0]}"
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


@pytest.fixture
def calibrated() -> Calibrated:
    """Makes ``(model, context)`` from a body, inputs, outputs, weight shapes and feeds: formats and scales are set."""

    def make(
        body: str,
        inputs: str,
        outputs: str,
        weights: Mapping[str, tuple[int, ...]],
        feeds: list[dict[str, np.ndarray]],
        form: str = "w4a8",
        target: str = "edge-npu",
        **changes: Any,
    ) -> tuple[ir.Model, Context]:
        model = _make(body, inputs, outputs, weights)
        for name, content in changes.items():
            model.graph.initializers[name].const_value = ir.Tensor(content)
        ctx = Context(Edit(model), target=load(target), format=form)
        ctx.calibration = data.load(feeds, data.inputs_of(model))
        ctx.records.append(PassRecord("test"))
        steps = (AssignFormats(), Calibrate(), CalibrateWeights())
        for step in steps if "a" in form else (steps[0], steps[2]):
            step.run(model, ctx)
        return model, ctx

    return make
