"""Legality of graphs of integer operators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.quant.annotations import Annotation, annotate
from qcompiler.quant.functions import catalogue
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.quant.packing import pack
from qcompiler.target.integer import IntegerArithmetic
from qcompiler.target.legality import check_model
from qcompiler.target.load import load
from qcompiler.target.lowered import family, why_not_rescales
from qcompiler.target.schema import Fallback, Target

EDGE, SHIFTS = load("edge-npu"), load("fpga-pot")
CONV = {"strides": [1, 1], "dilations": [1, 1], "pads": [0, 0, 0, 0], "group": 1, "x_zero_point": 0}
Make = Callable[..., ir.Model]


def node(
    graph: ir.Graph, op_type: str, inputs: list[ir.Value], attributes: dict[str, Any], dtype: ir.DataType
) -> ir.Value:
    made = ir.Node(DOMAIN, op_type, inputs, ir.convenience.convert_attributes(attributes), name=f"the{op_type}")
    made.outputs[0].name, made.outputs[0].type = f"{op_type}_codes", ir.TensorType(dtype)
    graph.append(made)
    return made.outputs[0]


@pytest.fixture
def conv(builder: Callable[..., Any]) -> Make:
    """A lowered Conv of 2 channels; every argument breaks something."""

    def make(
        op_type: str = "QConv",
        x: ir.DataType = ir.DataType.INT8,
        weight: Any = 7,
        bias: int = 100,
        multiplier: Any = 1 << 30,
        shift: Any = 40,
        scale: float = 0.25,
        **attributes: Any,
    ) -> ir.Model:
        build = builder()
        data = build.input(1, 3, 4, 4, dtype=x)
        codes: np.ndarray[Any, Any] = np.full((2, 3, 1, 1), weight, np.int8)
        packing: dict[str, Any] = {}
        if "Packed" in op_type:
            bits = attributes.pop("bits")
            codes, packing = pack(codes, bits), {"bits": bits, "weight_shape": [2, 3, 1, 1]}
        wide = "Wide" in op_type
        inputs = [data, build.constant(codes), build.constant(np.full((2, 1, 1), bias, np.int64 if wide else np.int32))]
        if "Shift" not in op_type:
            inputs.append(build.constant(np.full((2, 1, 1), multiplier, np.int32)))
        inputs.append(build.constant(np.full((2, 1, 1), shift, np.uint8)))
        clamp = {"y_zero_point": 0, "to": 3, "low": -128, "high": 127}
        to = ir.DataType(attributes.get("to", 3))
        result = node(build.graph, op_type, inputs, {**CONV, **packing, **clamp, **attributes}, to)
        annotate(result, Annotation("y", scale, 0))
        model: ir.Model = build.output(result)
        if op_type in catalogue.operators():
            catalogue.attach(model)
        return model

    return make


def reasons(model: ir.Model, target: Target) -> list[str]:
    return [violation.reason for violation in check_model(model, target)]


def limited(target: Target, **arithmetic: Any) -> Target:
    return replace(target, integer=IntegerArithmetic(**arithmetic))


def test_what_the_profile_has_is_legal(conv: Make) -> None:
    assert reasons(conv(), EDGE) == []
    assert reasons(conv("QConvShift"), SHIFTS) == []
    assert reasons(conv("QConvWide", ir.DataType.INT16, to=5, low=-32768, high=32767), EDGE) == []
    assert reasons(conv("QConvPackedShift", bits=3, weight=3), SHIFTS) == []


def test_families() -> None:
    assert [family(name) for name in ("QConvWidePackedShift", "QGemm", "RequantizeShift")] == [
        "QConv",
        "QGemm",
        "Requantize",
    ]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"multiplier": -5}, "its multiplier is negative (-5)"),
        ({"shift": 0}, "its shift is 0, the target shifts by 1 to 62"),
        ({"shift": [[[40]], [[63]]]}, "its shift is 40 to 63, the target shifts by 1 to 62"),
        ({"x": ir.DataType.INT16}, "its x is int16, QConv takes int8"),
        ({"x": ir.DataType.UINT8}, "its x is uint8, QConv takes int8"),
        ({"low": 5, "high": 4}, "its clamp 5 to 4 is no range of int8"),
        ({"high": 200}, "its clamp -128 to 200 is no range of int8"),
        ({"to": 2, "low": 0}, "its result is uint8, codes are signed integers"),
        ({"y_zero_point": 300}, "its result has zero point 300, outside -128 to 127"),
        ({"x_zero_point": -129}, "its x has zero point -129, outside -128 to 127"),
        ({"weight": -128}, "its weight has codes -128 to -128, i8/sym/narrow holds -127 to 127"),
        ({"bias": 2**31 - 1}, "its accumulator can reach 33 bits, the target's has 32"),
        ({"scale": 2.0**-110}, "its codes have scale 7.7e-34, below the target's floor 7.89e-31"),
    ],
)
def test_each_parameter_is_checked(conv: Make, arguments: dict[str, Any], reason: str) -> None:
    assert reason in reasons(conv(**arguments), EDGE)


def test_violations_name_the_node(conv: Make) -> None:
    assert [str(item) for item in check_model(conv(shift=0), EDGE)] == [
        "theQConv (QConv): its shift is 0, the target shifts by 1 to 62"
    ]


def test_narrower_hardware(conv: Make) -> None:
    assert reasons(conv(), limited(EDGE, multiplier_bits=31)) == []
    assert reasons(conv(), limited(EDGE, multiplier_bits=16)) == [
        f"its multiplier {1 << 30} takes 31 bits, the target has 16"
    ]
    assert reasons(conv(), limited(EDGE, shift=(1, 31))) == ["its shift is 40, the target shifts by 1 to 31"]
    assert reasons(conv(bias=0), limited(EDGE, accumulator_bits=16)) == []  # 3 * 128 * 7 = 2688
    assert reasons(conv(bias=32000), limited(EDGE, accumulator_bits=16)) == [
        "its accumulator can reach 17 bits, the target's has 16"
    ]
    wide = conv("QConvWide", ir.DataType.INT16)
    assert reasons(wide, limited(EDGE, wide_accumulator_bits=0)) == [
        "it adds products of 16-bit codes, edge-npu has no accumulator for them"
    ]


def test_padding_counts_in_accumulators(conv: Make) -> None:
    target = limited(EDGE, accumulator_bits=16)
    padded = conv(bias=30080, pads=[1, 1, 1, 1], x_zero_point=-128)
    assert reasons(padded, target) == []  # 3 * 127 * 7 + 30080 = 32747


def test_shifts_only(conv: Make) -> None:
    assert reasons(conv(), SHIFTS) == [
        "the function QConv multiplies to rescale, fpga-pot only shifts",
        "the function Requantize multiplies to rescale, fpga-pot only shifts",
        "it multiplies to rescale, fpga-pot only shifts",
    ]
    assert reasons(conv("QConvShift", scale=0.3), SHIFTS) == ["its codes have scale 0.3, which is not a power of two"]
    wide = reasons(conv("QConvWideShift", ir.DataType.INT16), SHIFTS)
    assert "its x is int16, the target takes int8" in wide


def test_packed_weights_need_a_narrow_format(conv: Make) -> None:
    assert reasons(conv("QConvPacked", bits=4), EDGE) == []
    rule = replace(EDGE.operators["Conv"], weights=EDGE.operators["Conv"].weights[:1])
    target = replace(EDGE, operators={**EDGE.operators, "Conv": rule})
    assert reasons(conv("QConvPacked", bits=4), target) == ["its weight is packed in 4 bits, the target takes 8"]


def test_operators_that_the_profile_lacks(conv: Make) -> None:
    target = replace(EDGE, operators={name: rule for name, rule in EDGE.operators.items() if name != "Conv"})
    assert reasons(conv(), target) == ["edge-npu has no integer Conv"]
    assert reasons(conv("QMagic"), EDGE)[-1] == "QMagic is no operator of ai.qcompiler"


def test_constants_must_be_constant(conv: Make) -> None:
    model = conv()
    the_conv = model.graph.node(0)
    for index in (1, 3, 4):
        computed = ir.Value(name=f"fed{index}", type=ir.TensorType(the_conv.inputs[index].dtype))  # type: ignore[union-attr, arg-type]
        model.graph.inputs.append(computed)
        the_conv.replace_input_with(index, computed)
    names = ("multiplier", "shift", "weight")
    assert reasons(model, EDGE) == [f"its {name} is not a constant" for name in names]


def test_functions_must_be_those_of_the_set(conv: Make) -> None:
    model = conv()
    del model.functions[DOMAIN, "Requantize", ""]
    assert reasons(model, EDGE) == ["the function of Requantize is missing: no runtime could run it"]
    model = conv()
    body = model.functions[DOMAIN, "QConv", ""]
    first = next(iter(body))
    first.name, body.doc_string = "renamed", "a comment"
    assert reasons(model, EDGE) == []
    first.op_type = "Identity"
    assert reasons(model, EDGE) == ["the function QConv is not the one of ai.qcompiler version 1"]
    model = conv()
    model.graph.opset_imports[DOMAIN] = 2
    assert reasons(model, EDGE) == ["ai.qcompiler is imported in version 2, version 1 is known"]


def test_float_islands(conv: Make) -> None:
    model = conv()
    codes = model.graph.outputs[0]
    scale = ir.Value(
        name="scale", const_value=ir.Tensor(np.array(0.25, np.float32)), type=ir.TensorType(ir.DataType.FLOAT)
    )
    model.graph.register_initializer(scale)
    real = ir.Node("", "DequantizeLinear", [codes, scale], name="border")
    tan = ir.Node("", "Tan", real.outputs, name="island")
    for item, name in ((real, "real"), (tan, "y")):
        item.outputs[0].name, item.outputs[0].type = name, ir.TensorType(ir.DataType.FLOAT)
        model.graph.append(item)
    model.graph.outputs[0] = tan.outputs[0]
    assert reasons(model, EDGE) == []
    refusing = replace(EDGE, fallback=Fallback.REFUSE)
    assert [str(item) for item in check_model(model, refusing)] == [
        "island (Tan): it stays float, which edge-npu refuses: no integer Tan"
    ]


def test_kernels_with_one_type_for_all(conv: Make) -> None:
    model = conv(to=5, low=-32768, high=32767)
    assert reasons(model, EDGE) == []
    assert reasons(model, load("mcu")) == ["it reads int8 and writes int16"]
    first = model.graph.node(0)
    assert why_not_rescales(first, ir.DataType.INT16, EDGE) is None
    assert why_not_rescales(first, ir.DataType.INT8, load("mcu")) is None
    assert why_not_rescales(first, ir.DataType.INT16, load("mcu")) == "QConv does not write int16 there on mcu"
    first.op_type = "QAveragePool"
    assert why_not_rescales(first, ir.DataType.INT8, load("mcu")) == "QAveragePool keeps its scale on mcu"


def test_results_with_parameters_of_their_own(conv: Make) -> None:
    rule = replace(EDGE.operators["Conv"], fixed={"i8": (0.5, 3)})
    target = replace(EDGE, operators={**EDGE.operators, "Conv": rule})
    assert reasons(conv(), target) == ["its result has scale 0.25 and zero point 0, the kernel gives 0.5 and 3"]


def test_multipliers_behind_wide_accumulators(conv: Make) -> None:
    target = limited(EDGE, wide_multiplier_bits=15)
    assert reasons(conv("QConvWide", ir.DataType.INT16), target) == []  # its sums need no more than 32 bits
    long = conv("QConvWide", ir.DataType.INT16, bias=2**33, multiplier=1 << 20)
    assert reasons(long, target) == [f"its multiplier {1 << 20} takes 21 bits, the target has 15"]
