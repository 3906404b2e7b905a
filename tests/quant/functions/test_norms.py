from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from onnx import helper

from qcompiler.quant.functions import catalogue
from qcompiler.quant.functions.definition import TensorType
from tests.quant.functions.running import one_node_model, run_body
from tests.quant.integer.norm_cases import CONTENTS, Case, cases, make


def check(case: Case) -> None:
    body = run_body(case.name, [case.x, *case.inputs], case.attributes)
    np.testing.assert_array_equal(body, case.run())
    assert body.dtype == case.run().dtype


@given(cases(sizes=(1, 2, 5, 33, 384)))
@settings(max_examples=60, deadline=None)
def test_the_body_is_the_specification(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("content", sorted(CONTENTS))
@pytest.mark.parametrize("rms", [True, False], ids=["rms", "layer"])
def test_the_body_is_the_specification_on_long_rows_of_extreme_codes(rms: bool, content: str) -> None:
    check(
        make(
            np.random.default_rng(7),
            rms=rms,
            size=4096,
            types=(np.int16, np.int16),
            content=CONTENTS[content],
            epsilon=1e-5,
            scale=3e-4,
        )
    )


@pytest.mark.parametrize("rms", [True, False], ids=["rms", "layer"])
def test_the_body_is_the_specification_where_epsilon_dominates(rms: bool) -> None:
    case = make(
        np.random.default_rng(3),
        rms=rms,
        size=48,
        types=(np.int16, np.int8),
        content=CONTENTS["bell"],
        epsilon=1.0,
        scale=1e-9,
    )
    assert case.attributes["right"] > 0
    check(case)


@pytest.mark.parametrize("axes", [[-1], [-2, -1], [-3, -2, -1]])
@pytest.mark.parametrize("name", ["QLayerNormalization", "QRMSNormalization"])
def test_rows_may_span_several_axes(name: str, axes: list[int]) -> None:
    random = np.random.default_rng(0)
    x = random.integers(-128, 128, (2, 3, 4, 5)).astype(np.int8)
    size = int(np.prod(x.shape[-len(axes) :]))
    shape = x.shape[-len(axes) :]
    multiplier = random.integers(-(2**25), 2**25, shape).astype(np.int32)
    shift = np.full(shape, 46, np.uint8)
    attributes: dict[str, Any] = {"axes": axes, "left": 20, "right": 0, "epsilon": 1 << 30, "root_shift": 22}
    attributes |= {"y_zero_point": 3, "to": 3, "low": -100, "high": 90}
    if name == "QLayerNormalization":
        inputs = [x, multiplier, random.integers(-(2**50), 2**50, shape), shift]
        attributes["size"] = size
    else:
        inputs = [x, multiplier, shift]
        attributes["x_zero_point"] = -4
    wanted = catalogue.operators()[name].specification(*inputs, **attributes)
    assert len(np.unique(wanted)) > 8
    np.testing.assert_array_equal(run_body(name, inputs, attributes), wanted)
    np.testing.assert_array_equal(run_body(name, inputs, attributes, constants=range(1, len(inputs))), wanted)


@pytest.mark.parametrize("to", [3, 5])
@pytest.mark.parametrize("rms", [True, False], ids=["rms", "layer"])
def test_inference_gives_the_type_and_shape_of_the_result(rms: bool, to: int) -> None:
    kind = np.int8 if to == 3 else np.int16
    case = make(
        np.random.default_rng(1),
        rms=rms,
        size=6,
        types=(np.int8, kind),
        content=CONTENTS["uniform"],
        epsilon=1e-5,
        scale=0.1,
    )
    inputs = [case.x, *case.inputs]
    types = [TensorType(ir.DataType.from_numpy(item.dtype), item.shape) for item in inputs]
    found = catalogue.operators()[case.name].infer(types, case.attributes)
    assert (found.dtype, found.shape) == (ir.DataType(to), case.run().shape)
    model = one_node_model(case.name, inputs, case.attributes)
    for info, item in zip(model.graph.input, inputs, strict=True):
        info.CopyFrom(helper.make_tensor_value_info(info.name, info.type.tensor_type.elem_type, item.shape))
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph.output[0].type
    assert inferred.tensor_type.elem_type == to
    assert tuple(item.dim_value for item in inferred.tensor_type.shape.dim) == case.x.shape
