from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcompiler.quant.functions import catalogue
from qcompiler.quant.functions.definition import TensorType
from tests.quant.functions.linear_cases import (
    VARIANTS,
    Case,
    Variant,
    channels_last,
    channels_last_case,
    conv_case,
    gemm_case,
    matmul_case,
)
from tests.quant.functions.running import one_node_model, run_body, session

Maker = Callable[[np.random.Generator, Variant], Case]
FAMILIES: dict[str, tuple[Maker, int]] = {
    "QConv": (lambda random, variant: conv_case(random, variant, transposed=False), 1),
    "QConvChannelsLast": (channels_last_case, 1),
    "QConvTranspose": (lambda random, variant: conv_case(random, variant, transposed=True), 1),
    "QGemm": (gemm_case, 1),
    "QMatMul": (matmul_case, 99),
}
SAMPLES = 12  # times 8 variants

BODIES = [
    pytest.param(maker, constant, variant, id=name + variant.ending)
    for name, (maker, constant) in FAMILIES.items()
    for variant in VARIANTS
    if not (name == "QMatMul" and variant.packed)
]


def specified(case: Case) -> np.ndarray[Any, Any]:
    return catalogue.operators()[case.name].specification(*case.inputs, **case.attributes)


@pytest.mark.parametrize(("maker", "constant", "variant"), BODIES)
def test_the_body_is_the_specification(maker: Maker, constant: int, variant: Variant) -> None:
    random = np.random.default_rng(len(variant.ending))
    for index in range(SAMPLES):
        case = maker(random, variant)
        constants = range(constant, len(case.inputs)) if index % 3 else ()
        found = run_body(case.name, case.inputs, case.attributes, constants=constants)
        np.testing.assert_array_equal(found, specified(case), err_msg=f"{case.attributes}")


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.ending)
def test_channels_last_is_the_same_convolution_with_other_axes(variant: Variant) -> None:
    random = np.random.default_rng(11)
    for _ in range(SAMPLES):
        case = conv_case(random, variant, transposed=False)
        np.testing.assert_array_equal(specified(channels_last(case)), np.moveaxis(specified(case), 1, -1))


@pytest.mark.parametrize("extent", [(0, 4, 5, 3), (2, 0, 5, 3)], ids=["samples", "rows"])
def test_channels_last_of_nothing_is_nothing(extent: tuple[int, ...]) -> None:
    x, w, bias = np.zeros(extent, np.int8), np.ones((2, 3, 1, 1), np.int8), np.zeros(2, np.int32)
    window = {"strides": [1, 1], "dilations": [1, 1], "pads": [0] * 4, "group": 1, "x_zero_point": 0}
    clamp = {"y_zero_point": 0, "to": 3, "low": -128, "high": 127}
    inputs = [x, w, bias, np.asarray(np.int32(3)), np.asarray(np.uint8(2))]
    operator = catalogue.operators()["QConvChannelsLast"]
    if extent[0] == 0:
        assert operator.specification(*inputs, **window, **clamp).shape == (*extent[:3], 2)
        assert run_body(operator.name, inputs, {**window, **clamp}).shape == (*extent[:3], 2)
    else:
        with pytest.raises(ValueError, match="does not fit"):
            operator.specification(*inputs, **window, **clamp)


@pytest.mark.parametrize("maker", [maker for maker, _ in FAMILIES.values()], ids=FAMILIES)
@pytest.mark.parametrize("variant", [Variant(), Variant(wide=True, packed=True)], ids=lambda variant: variant.ending)
def test_the_inferred_type_is_that_of_the_result(maker: Maker, variant: Variant) -> None:
    random = np.random.default_rng(5)
    variant = replace(variant, packed=variant.packed and maker is not matmul_case)
    for _ in range(SAMPLES):
        case = maker(random, variant)
        wanted = specified(case)
        types = [TensorType(ir.DataType.from_numpy(item.dtype), item.shape) for item in case.inputs]
        found = catalogue.operators()[case.name].infer(types, case.attributes)
        assert (found.dtype.numpy(), found.shape) == (wanted.dtype, wanted.shape)


@pytest.mark.parametrize(("maker", "constant", "variant"), BODIES)
def test_what_onnx_infers_through_the_body_agrees(maker: Maker, constant: int, variant: Variant) -> None:
    case = maker(np.random.default_rng(8), variant)
    model = one_node_model(case.name, case.inputs, case.attributes, constants=range(constant, len(case.inputs)))
    for value in model.graph.input:
        shape = case.inputs[list(catalogue.operators()[case.name].inputs).index(value.name)].shape
        for dimension, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
            dimension.dim_value = size
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    found = inferred.graph.output[0].type.tensor_type
    wanted = specified(case)
    assert found.elem_type == case.attributes["to"]
    if found.HasField("shape"):
        assert len(found.shape.dim) == wanted.ndim
        for dimension, size in zip(found.shape.dim, wanted.shape, strict=True):
            assert not dimension.HasField("dim_value") or dimension.dim_value == size


def test_symbolic_sizes_pass_through() -> None:
    infer = catalogue.operators()["QConv"].infer
    x = TensorType(ir.DataType.INT8, ("N", 3, "H", 9))
    w = TensorType(ir.DataType.INT8, (4, 3, 3, 3))
    attributes = {"strides": [2, 2], "dilations": [1, 1], "pads": [1, 1, 1, 1], "to": 3}
    assert infer([x, w], attributes).shape == ("N", 4, None, 5)
    last = catalogue.operators()["QConvChannelsLast"].infer
    assert last([TensorType(ir.DataType.INT8, ("N", "H", 9, 3)), w], attributes).shape == ("N", None, 5, 4)
    gemm = catalogue.operators()["QGemmPacked"].infer
    packed = TensorType(ir.DataType.UINT8, (7, 8))
    x = TensorType(ir.DataType.INT8, ("N", "T", 16))
    assert gemm([x, packed], {"weight_shape": [7, 16], "bits": 4, "to": 5}) == TensorType(
        ir.DataType.INT16, ("N", "T", 7)
    )


def test_a_result_of_unknown_rank_has_an_unknown_shape() -> None:
    unknown, known = TensorType(ir.DataType.INT8, None), TensorType(ir.DataType.INT8, (3, 4, 1))
    for name in ("QConv", "QConvChannelsLast", "QConvTranspose", "QGemm", "QMatMul"):
        assert catalogue.operators()[name].infer([unknown, known], {"to": 3}).shape is None


@pytest.mark.parametrize("opset", [18, 25])
def test_bodies_run_in_the_first_and_last_operator_set(opset: int) -> None:
    random = np.random.default_rng(4)
    for name, (maker, _) in FAMILIES.items():
        for variant in (Variant(True, name != "QMatMul", True), Variant()):
            case = maker(random, variant)
            model = one_node_model(case.name, case.inputs, case.attributes, opset=opset)
            feed = dict(zip([item.name for item in model.graph.input], case.inputs, strict=True))
            np.testing.assert_array_equal(session(model).run(None, feed)[0], specified(case))
