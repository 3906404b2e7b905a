"""Why a node stays float, and every violation of a Q/DQ model, one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.quant.format import QFormat
from qcompiler.target.legality import check_model, why_not, why_not_constraints
from qcompiler.target.load import load
from qcompiler.target.rules import rule_for
from qcompiler.target.schema import Constraints, Fallback, Granularity, InputOutput, Output, Target, ZeroPoint

from .conftest import TYPES

CPU, NPU = load("cpu-x86"), load("edge-npu")


def reasons(model: ir.Model, target: Target = CPU) -> list[str]:
    return [violation.reason for violation in check_model(model, target)]


def changed(target: Target, operator: str, **fields: Any) -> Target:
    rule = replace(target.operators[operator], **fields)
    return replace(target, operators={**target.operators, operator: rule})


# -- float nodes ---------------------------------------------------------------------------------------------------


def float_node(
    builder: Callable[..., Any], op_type: str, *, weight: Any = None, rank: int = 4, **attributes: Any
) -> ir.Node:
    build = builder()
    data = build.input(*[4] * rank)
    constants = [] if weight is None else [weight if isinstance(weight, ir.Value) else build.constant(weight)]
    value = build.op(op_type, data, *constants, **attributes)
    build.output(value)
    node = value.producer()
    assert node is not None
    return node


def test_supported_operator_may_run(builder: Callable[..., Any]) -> None:
    node = float_node(builder, "Conv", weight=np.ones((4, 4, 1, 1), np.float32))
    assert why_not(CPU, node) is None
    assert rule_for(CPU, node) is CPU.operators["Conv"]


@pytest.mark.parametrize(
    ("op_type", "keywords", "reason"),
    [
        ("Tan", {}, "cpu-x86 has no integer Tan"),
        ("Conv", {"rank": 6, "weight": np.ones((4, 4, 1, 1, 1, 1), np.float32)}, "has rank 6, the target takes 3 to 5"),
        (
            "Gemm",
            {"rank": 2, "weight": np.ones((4, 4), np.float32), "alpha": 2.0},
            "alpha is 2.0, the target takes 1.0",
        ),
        ("AveragePool", {"kernel_shape": [2, 2], "dilations": [1, 2]}, "dilations is [1, 2]"),
        ("Conv", {"weight": np.ones((4, 4, 1, 1), np.float16)}, "input 1 is float16, not float"),
        ("Resize", {"mode": "linear"}, "mode is linear, the target takes nearest"),
    ],
)
def test_why_not(builder: Callable[..., Any], op_type: str, keywords: dict[str, Any], reason: str) -> None:
    found = why_not(CPU, float_node(builder, op_type, **keywords))
    assert found is not None
    assert reason in found


def test_a_bias_is_one_row(builder: Callable[..., Any]) -> None:
    for shape, reason in (((1, 4), None), ((2, 4), "its bias differs from row to row"), ((4,), None)):
        build = builder()
        weight, bias = build.constant(np.ones((4, 4), np.float32)), build.constant(np.ones(shape, np.float32))
        assert why_not(CPU, build.op("Gemm", build.input(2, 4), weight, bias).producer()) == reason


def test_attribute_left_out_counts_with_its_default(builder: Callable[..., Any]) -> None:
    only_two = replace(CPU.operators["Gemm"].constraints, attributes={"alpha": (2.0,)})
    node = float_node(builder, "Gemm", rank=2, weight=np.ones((4, 4), np.float32))
    assert (
        why_not(changed(CPU, "Gemm", constraints=only_two), node) == "its attribute alpha is 1.0, the target takes 2.0"
    )


def test_weights_computed_at_run_time(builder: Callable[..., Any]) -> None:
    build = builder()
    value = build.op("Conv", build.input(1, 4, 8, 8), build.input(4, 4, 1, 1))
    assert why_not(CPU, value.producer()) == "its weights are computed at run time"
    product = build.op("MatMul", build.input(4, 4), build.input(4, 4))
    assert why_not(CPU, product.producer()) is None


def test_integer_data_and_used_second_output(builder: Callable[..., Any]) -> None:
    build = builder()
    value = build.op("Add", build.input(4, dtype=ir.DataType.INT64), build.input(4, dtype=ir.DataType.INT64))
    assert why_not(CPU, value.producer()) == "input 0 is int64, not float"
    pool = build.op("MaxPool", build.input(1, 4, 8, 8), outputs=2, kernel_shape=[2, 2])
    assert why_not(CPU, pool.producer()) is None
    build.output(pool.producer().outputs[1])
    assert "output 1 is used" in (why_not(CPU, pool.producer()) or "")


def test_constraint_on_constant_inputs(builder: Callable[..., Any]) -> None:
    target = changed(CPU, "Add", constraints=replace(CPU.operators["Add"].constraints, constant_inputs=(1,)))
    build = builder()
    dynamic = build.op("Add", build.input(4), build.input(4)).producer()
    fixed = build.op("Add", build.input(4), build.constant(np.ones(4, np.float32))).producer()
    assert why_not(target, dynamic) == "input 1 is not constant"
    assert why_not(target, fixed) is None


# -- Q/DQ models ---------------------------------------------------------------------------------------------------


def test_correct_convolution_is_legal(conv: Callable[..., ir.Model]) -> None:
    assert reasons(conv()) == []
    assert reasons(conv(weight={"scale": 0.1})) == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"kind": "i8"}, "its input 0 is int8, the target takes uint8"),
        ({"result": {"kind": "i8"}}, "its result is int8, the target takes uint8"),
        ({"weight": {"kind": "u8"}}, "its weight is uint8, the target takes int8"),
        ({"weight": {"kind": "i4"}}, "its weight is int4, the target takes int8"),
        ({"weight": {"zero": 3}}, "its weight has zero point 3, i8/sym has 0"),
        ({"weight": {"axis": 1}}, "its weight has scales along axis 1, not 0"),
        ({"bias": {"kind": "i16"}}, "its bias is int16, the target takes int32"),
        ({"bias": {"zero": 1}}, "its bias has a zero point"),
        ({"bias": {"scale": 0.1}}, "its bias scale is not activation scale × weight scale"),
        ({"bias": {"scale": [0.01, 0.02, 0.03, 0.04001]}}, "off by 0.00025, relative"),
        ({"bias": {"scale": [0.01, 0.02]}}, "2 scales where the weight has 4"),
        ({"result": {"scale": 1e-35}}, "below the target's floor"),
        ({"weight": {"scale": [0.1, 0.2, 0.3, np.inf]}}, "not positive and finite"),
    ],
)
def test_one_violation(conv: Callable[..., ir.Model], arguments: dict[str, Any], reason: str) -> None:
    found = reasons(conv(**arguments))
    assert any(reason in item for item in found), found


def test_activations_of_4_bits_are_bytes(conv: Callable[..., ir.Model]) -> None:
    """ONNX has the type, but no profile's kernels compute on it; weights are stored in it."""
    weight = {"kind": "i4"}
    assert reasons(conv(kind="i8", result={"kind": "i8"}, weight=weight), load("lowbit-cpu")) == []
    found = reasons(conv(kind="i4", result={"kind": "i4"}, weight=weight), load("lowbit-cpu"))
    assert "its input 0 is int4, the target takes int8 or int16" in found
    assert "its result is int4, the target takes int8 or int16" in found


def test_bias_scale_tolerance(conv: Callable[..., ir.Model]) -> None:
    exact = np.float32(0.1) * np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    assert reasons(conv(bias={"scale": np.nextafter(exact, np.float32(1))})) == []
    assert len(reasons(conv(bias={"scale": exact * np.float32(1 + 4e-6)}))) == 1


@pytest.mark.parametrize(
    ("change", "arguments", "reason"),
    [
        (
            {"weights": (QFormat(8, symmetric=True, narrow=True),)},
            {"weight": {"array": np.full((4, 4, 1, 1), -128)}},
            "codes -128",
        ),
        (
            {"weights": (QFormat(7, symmetric=True),)},
            {"weight": {"array": np.full((4, 4, 1, 1), 64)}},
            "i7/sym holds -64 to 63",
        ),
        ({"granularity": (Granularity.TENSOR,)}, {}, "a scale per channel, the target takes one per tensor"),
        (
            {"granularity": (Granularity.CHANNEL,)},
            {"weight": {"scale": 0.1}},
            "one scale, the target takes one per channel",
        ),
        ({"activations": (QFormat(8, signed=False, symmetric=True),)}, {}, "zero point 0, u8/sym has 128"),
    ],
)
def test_violations_under_a_stricter_rule(
    conv: Callable[..., ir.Model], change: dict[str, Any], arguments: dict[str, Any], reason: str
) -> None:
    found = reasons(conv(**arguments), changed(CPU, "Conv", **change))
    assert any(reason in item for item in found), found


def test_zero_point_constraint_and_powers_of_two(conv: Callable[..., ir.Model]) -> None:
    constraints = replace(CPU.operators["Conv"].constraints, zero_point=ZeroPoint.ZERO)
    target = changed(CPU, "Conv", constraints=constraints)
    assert reasons(conv(), target) == []
    assert reasons(conv(result={"zero": 7}), target) == ["its result has zero point 7, the target takes 0 only"]
    shifting = replace(CPU, power_of_two_scales=True)
    assert "its weight has a scale that is not a power of two" in reasons(conv(), shifting)


def test_float_weight_between_codes_is_a_violation_unless_kept_on_purpose(builder: Callable[..., Any]) -> None:
    def model(shield: bool) -> ir.Model:
        build = builder()
        weight = build.constant(np.ones((4, 4, 1, 1), np.float32))
        bias = (
            build.codes(np.ones(4), "i32", [2.0**-20] * 4, axis=0) if shield else build.constant(np.ones(4, np.float32))
        )
        return build.output(build.pair(build.op("Conv", build.pair(build.input(1, 4, 8, 8)), weight, bias)))

    assert reasons(model(shield=True)) == []
    assert any("its weight is float between quantized activations" in item for item in reasons(model(shield=False)))


def test_float_bias(builder: Callable[..., Any]) -> None:
    build = builder()
    weight = build.codes(np.ones((4, 4, 1, 1)), "i8", 0.1)
    bias = build.constant(np.ones(4, np.float32))
    model = build.output(build.pair(build.op("Conv", build.pair(build.input(1, 4, 8, 8)), weight, bias)))
    assert reasons(model) == ["its bias is float"]


def test_grouped_transposed_convolution_repeats_its_scales(builder: Callable[..., Any]) -> None:
    build = builder()
    weight = build.codes(np.ones((4, 2, 1, 1)), "i8", [0.1, 0.2], axis=1)
    scale = np.tile(np.float32(0.1) * np.array([0.1, 0.2], np.float32), 2)
    bias = build.codes(np.ones(4), "i32", scale, axis=0)
    node = build.op("ConvTranspose", build.pair(build.input(1, 4, 8, 8), "i8"), weight, bias, group=2)
    assert reasons(build.output(build.pair(node, "i8")), NPU) == []


def test_absorbed_activation_and_bias(builder: Callable[..., Any]) -> None:
    build = builder()
    product = build.op(
        "MatMul", build.pair(build.input(2, 4), "i8"), build.codes(np.ones((4, 4)), "i8", [0.1] * 4, axis=1)
    )
    added = build.op("Add", build.constant(np.ones(4, np.float32)), product)
    model = build.output(build.pair(added, "i8"))
    assert reasons(model, NPU) == []
    strict = replace(NPU, fallback=Fallback.REFUSE)
    assert reasons(model, strict) == []
    alone = changed(strict, "MatMul", fuse=())
    assert [item.node for item in check_model(model, alone)] != []


@pytest.mark.parametrize(("scale", "legal"), [(0.1, True), (0.2, False)])
def test_ties(builder: Callable[..., Any], scale: float, legal: bool) -> None:
    build = builder()
    first, second = build.pair(build.input(1, 4), "i8"), build.pair(build.input(1, 4), "i8", scale)
    model = build.output(build.pair(build.op("Concat", first, second, axis=0), "i8"))
    assert (reasons(model, NPU) == []) is legal
    assert reasons(build.model, CPU) != []


def test_second_activation_has_its_own_formats(builder: Callable[..., Any]) -> None:
    def model(kind: str) -> ir.Model:
        build = builder()
        product = build.op("MatMul", build.pair(build.input(4, 4)), build.pair(build.input(4, 4), kind))
        return build.output(product)  # cpu-x86 may write real numbers here

    assert reasons(model("i8")) == []
    assert reasons(model("u8")) == ["its input 1 is uint8, the target takes int8"]
    assert reasons(model("u8"), changed(CPU, "MatMul", output=Output.QUANTIZED)) == []  # then it is a float node


def test_formats_mix_only_where_the_profile_says_so(builder: Callable[..., Any]) -> None:
    build = builder()
    total = build.op("Add", build.pair(build.input(4), "i8"), build.pair(build.input(4), "i16"))
    model = build.output(build.pair(total, "i16"))
    assert reasons(model, NPU) == []
    assert reasons(model, changed(NPU, "Add", mixed=False)) == ["its activations mix int8 and int16"]


def test_blocks(builder: Callable[..., Any]) -> None:
    def model(axis: int, block: int) -> ir.Model:
        build = builder()
        shape = [64, 64]
        shape[axis] //= block
        weight = build.codes(np.ones((64, 64)), "i8", np.full(shape, 0.1), axis=axis, block_size=block)
        return build.output(build.op("MatMul", build.pair(build.input(2, 64)), weight))

    blocky = changed(CPU, "MatMul", granularity=(Granularity.BLOCK,), block_sizes=(32,))
    assert reasons(model(0, 32), blocky) == []
    assert reasons(model(0, 16), blocky) == ["its weight has blocks of 16, the target takes [32]"]
    assert reasons(model(1, 32), blocky) == ["its weight has blocks along axis 1, not 0"]
    assert reasons(model(0, 32)) == ["its weight has a scale per block, the target takes one per channel or tensor"]


def test_result_quantized_in_two_ways(builder: Callable[..., Any]) -> None:
    build = builder()
    total = build.op("Add", build.pair(build.input(4), "i8"), build.pair(build.input(4), "i8"))
    build.output(build.pair(total, "i8", 0.1))
    model = build.output(build.pair(total, "i8", 0.2))
    assert reasons(model, NPU) == ["its result is quantized in different ways by different readers"]


def test_a_node_meant_to_be_float_is_not_judged_as_integer(builder: Callable[..., Any]) -> None:
    build = builder()
    resized = build.op("Relu", build.pair(build.input(1, 4, 8, 8), "i8"))
    model = build.output(build.pair(resized, "i8", 0.2))
    node = resized.producer()
    assert [item.reason for item in check_model(model, NPU)] == [
        "its inputs and outputs must share scale, zero point and type, and do not"
    ]
    assert check_model(model, NPU, {node.name}) == []
    refusing = replace(NPU, fallback=Fallback.REFUSE)
    assert [item.reason for item in check_model(model, refusing, {node.name})] == [
        "it stays float, which edge-npu refuses: what surrounds it is float"
    ]


def test_a_float_weight_is_illegal_even_where_it_is_meant(builder: Callable[..., Any]) -> None:
    build = builder()
    weight = build.constant(np.ones((4, 4, 1, 1), np.float32))
    product = build.op("Conv", build.pair(build.input(1, 4, 8, 8)), weight)
    model = build.output(build.pair(product))
    found = check_model(model, CPU, {product.producer().name})
    assert ["its weight is float" in item.reason for item in found] == [True]


def test_constraint_on_an_integer_node(conv: Callable[..., ir.Model]) -> None:
    only = replace(CPU.operators["Conv"].constraints, attributes={"group": (2,)})
    assert reasons(conv(group=1), changed(CPU, "Conv", constraints=only)) == [
        "its attribute group is 1, the target takes 2"
    ]


def test_versions_boundary_and_fallback(builder: Callable[..., Any], conv: Callable[..., ir.Model]) -> None:
    model = conv()
    assert reasons(model, replace(CPU, opset=20)) == ["it needs opset 21, the target takes up to 20"]
    assert reasons(model, replace(CPU, ir_version=9)) == ["it has IR version 10, the target takes up to 9"]
    assert len(reasons(model, replace(CPU, input_output=InputOutput.QUANTIZED))) == 2
    build = builder()
    sine = build.output(build.op("Sin", build.input(4)))
    assert reasons(sine) == []
    refusing = replace(CPU, fallback=Fallback.REFUSE)
    assert reasons(sine, refusing) == ["it stays float, which cpu-x86 refuses: no integer Sin"]
    assert reasons(model, refusing) == []


def test_a_file_is_checked_and_nodes_are_named(tmp_path: Path, conv: Callable[..., ir.Model]) -> None:
    path = tmp_path / "model.onnx"
    ir.save(conv(kind="i8"), path)
    found = check_model(path, CPU)
    assert found
    assert all("theConv" in item.node and "(Conv)" in item.node for item in found)
    assert str(found[0]).startswith(found[0].node)


def test_a_constant_that_is_stored_as_codes_is_constant() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 21]> g (float[4] x) => (float[4] y)
        <int8 d = {5}, float s = {0.5}> { c = DequantizeLinear(d, s) y = Div(x, c) }"""
    )
    assert why_not_constraints(Constraints(constant_inputs=(1,)), model.graph[1]) is None
    assert why_not_constraints(Constraints(constant_inputs=(0,)), model.graph[1]) == "input 0 is not constant"


# -- tables --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "axis", "zero", "reason"),
    [
        ("i8", 0, 0, ""),
        ("i4", 0, 0, ""),
        ("i16", 0, 0, "its weight is int16, the target takes int8 or int4"),
        ("i8", 0, 3, "its weight has zero point 3, i8/sym/narrow has 0"),
        ("i8", 1, 0, "its weight has scales along axis 1, not 0"),
    ],
)
def test_rows_of_a_table_are_rescaled(
    builder: Callable[..., Any], kind: str, axis: int, zero: int, reason: str
) -> None:
    build = builder()
    indices = build.input(4, dtype=ir.DataType.INT64)
    stored = build.constant(np.ones((8, 8)).astype(TYPES[kind]))
    table = build.dequantize(stored, kind, np.full(8, 0.1), zero, axis=axis)
    build.output(build.pair(build.op("Gather", table, indices), "i16"))
    assert reasons(build.model, NPU) == ([reason] if reason else [])


def test_a_table_with_one_scale_is_moved(builder: Callable[..., Any]) -> None:
    build = builder()
    indices = build.input(4, dtype=ir.DataType.INT64)
    table = build.dequantize(build.constant(np.ones((8, 8), np.int8)), "i8")
    build.output(build.pair(build.op("Gather", table, indices), "i16"))
    assert reasons(build.model, NPU) == ["its inputs and outputs must share scale, zero point and type, and do not"]
