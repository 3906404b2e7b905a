from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qcompiler.quant.functions import catalogue
from qcompiler.quant.functions.definition import TensorType
from qcompiler.quant.integer import elementwise
from tests.quant.functions.running import one_node_model, run_body, session

NAMES = [f"Q{base}{ending}" for base in ("Add", "Sub", "Mul", "Concat") for ending in ("", "Shift")]
KINDS = {3: np.int8, 5: np.int16}
SHAPES = [((2, 3, 4), (2, 3, 4)), ((2, 3, 4), (4,)), ((3, 1), (1, 5)), ((), (3, 2)), ((7,), ()), ((0, 3), (1, 3))]
JOINED = [((2, 3, 4), (2, 3, 4)), ((5,), (5,)), ((0, 3), (0, 3))]


def codes(kind: int, shape: tuple[int, ...], random: np.random.Generator) -> NDArray[Any]:
    limits = np.iinfo(KINDS[kind])
    found = random.integers(limits.min, limits.max, shape, endpoint=True).astype(KINDS[kind])
    found.reshape(-1)[:2] = [limits.min, limits.max][: found.size]
    return found


def factors(name: str, random: np.random.Generator) -> list[NDArray[Any]]:
    """Any numbers that the specification allows, the extremes among them."""
    multiplier = [np.array(random.choice([0, 1, 2**31 - 1, int(random.integers(2**31))]), np.int32) for _ in range(2)]
    if name.startswith(("QAdd", "QSub")):
        left = [np.array(random.choice([0, 40, int(random.integers(41))]), np.uint8) for _ in range(2)]
        shift = np.array(random.choice([1, 62, *random.integers(8, 56, 6)]), np.uint8)
        shift = np.array(min(int(shift), 61), np.uint8)
        return [*(left if name.endswith("Shift") else multiplier), shift]
    pairs = []
    for index in range(2 if name.startswith("QConcat") else 1):
        # a product of two operands has 32 bits: the multiplier of QMul then has at most 28
        shrunk = multiplier[index] >> (3 if name == "QMul" else 0)
        shift = np.array(random.integers(8, 56), np.uint8)
        pairs += [shift] if name.endswith("Shift") else [np.asarray(shrunk, np.int32), shift]
    return pairs


def case(
    name: str, kinds: tuple[int, int, int], random: np.random.Generator
) -> tuple[list[NDArray[Any]], dict[str, Any]]:
    joins = name.startswith("QConcat")
    one, other = (JOINED if joins else SHAPES)[random.integers(len(JOINED if joins else SHAPES))]
    limits = [np.iinfo(KINDS[kind]) for kind in kinds]
    a_zero, b_zero, y_zero = (int(random.choice([0, item.min, item.max, random.integers(99)])) for item in limits)
    bounds = sorted(random.integers(limits[2].min, limits[2].max, 2, endpoint=True).tolist())
    attributes: dict[str, Any] = {"a_zero_point": a_zero, "b_zero_point": b_zero, "y_zero_point": y_zero}
    attributes |= {"to": kinds[2], "low": bounds[0], "high": bounds[1]}
    if joins:
        attributes["axis"] = int(random.integers(-len(one), len(one)))
    return [codes(kinds[0], one, random), codes(kinds[1], other, random), *factors(name, random)], attributes


@pytest.mark.parametrize("name", NAMES)
@given(st.integers(0, 2**32), st.tuples(*[st.sampled_from([3, 5])] * 3))
@settings(max_examples=50, deadline=None)
def test_the_body_is_the_specification(name: str, seed: int, kinds: tuple[int, int, int]) -> None:
    random = np.random.default_rng(seed)
    inputs, attributes = case(name, kinds, random)
    wanted = catalogue.operators()[name].specification(*inputs, **attributes)
    constants = range(2, len(inputs)) if seed % 2 else ()
    found = run_body(name, inputs, attributes, constants=constants)
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == wanted.dtype == KINDS[kinds[2]]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(8))
def test_inference_gives_the_type_and_shape_of_the_result(name: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    inputs, attributes = case(name, (3, 5, 3 if seed % 2 else 5), random)
    wanted = catalogue.operators()[name].specification(*inputs, **attributes)
    types = [TensorType(ir.DataType.from_numpy(item.dtype), item.shape) for item in inputs]
    found = catalogue.operators()[name].infer(types, attributes)
    assert (found.dtype, found.shape) == (ir.DataType(attributes["to"]), wanted.shape)
    model = one_node_model(name, inputs, attributes, constants=range(len(inputs)))
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph.output[0].type
    assert inferred.tensor_type.elem_type == attributes["to"]
    assert tuple(item.dim_value for item in inferred.tensor_type.shape.dim) == wanted.shape


def test_symbolic_sizes_pass_through() -> None:
    one, other = (TensorType(ir.DataType.INT16, shape) for shape in (("N", 3, "T"), (2, 1, "T")))
    assert catalogue.operators()["QAdd"].infer([one, other], {"to": 5}).shape == (2, 3, "T")
    joined = catalogue.operators()["QConcat"].infer([one, other], {"to": 5, "axis": 1})
    assert joined.shape == (2, 4, "T")
    assert catalogue.operators()["QConcat"].infer([one, other], {"to": 5, "axis": -1}).shape == (2, 3, None)
    unknown = TensorType(ir.DataType.INT8, None)
    for name in NAMES:
        assert catalogue.operators()[name].infer([unknown, one], {"to": 3, "axis": 0}).shape is None


@pytest.mark.parametrize("opset", [18, 25])
@pytest.mark.parametrize("name", NAMES)
def test_bodies_run_in_the_first_and_last_operator_set(name: str, opset: int) -> None:
    inputs, attributes = case(name, (5, 3, 5), np.random.default_rng(2))
    model = one_node_model(name, inputs, attributes, opset=opset)
    feed = dict(zip([item.name for item in model.graph.input], inputs, strict=True))
    wanted = catalogue.operators()[name].specification(*inputs, **attributes)
    np.testing.assert_array_equal(session(model).run(None, feed)[0], wanted)


@pytest.mark.parametrize("name", ["QAddShift", "QSubShift"])
def test_the_greatest_shifts_to_the_left_are_exact(name: str) -> None:
    limits = np.array([-32768, 32767, -1, 0], np.int16)
    left = np.uint8(elementwise.LEFT_LIMIT)
    inputs: list[Any] = [limits, limits[::-1].copy(), np.array(left), np.array(left), np.array(45, np.uint8)]
    attributes = {"a_zero_point": 32767, "b_zero_point": -32768, "y_zero_point": 0, "to": 5}
    attributes |= {"low": -32768, "high": 32767}
    wanted = catalogue.operators()[name].specification(*inputs, **attributes)
    np.testing.assert_array_equal(run_body(name, inputs, attributes), wanted)
