from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.ir import facts
from qcompiler.ir.edit import Edit
from qcompiler.passes.lower.fold_requantize import FoldRequantize
from qcompiler.pipeline.base import Context, Fact
from qcompiler.quant.annotations import annotation
from tests.passes.lower.graphs import Parameters, feed_of, graph, lower, operators, reasons, run

FINE = Parameters(0.00031, 12, "i16")
STREAM = Parameters(0.00052, -30, "i16")
COARSE = Parameters(0.09, 5)
Inputs = dict[str, tuple[tuple[int | str, ...], Parameters]]


def again(source: str, result: str, name: str) -> str:
    """Statements that quantize ``source`` with the parameters called ``name``."""
    return (
        f"{result}_q = QuantizeLinear ({source}, {name}_scale, {name}_zero) "
        f"{result} = DequantizeLinear ({result}_q, {name}_scale, {name}_zero) "
    )


def constants(**parameters: Parameters) -> dict[str, Any]:
    kinds = {"i8": np.int8, "i16": np.int16}
    held: dict[str, Any] = {}
    for name, item in parameters.items():
        held |= {f"{name}_scale": np.float32(item.scale), f"{name}_zero": kinds[item.kind](item.zero_point)}
    return held


def fold(model: ir.Model) -> Context:
    ctx = Context(edit=Edit(model))
    FoldRequantize().run(model, ctx)
    assert facts.check(Fact.LOWERED, model) == []
    return ctx


def folded(
    body: str, inputs: Inputs, y: Parameters, held: dict[str, Any], **arithmetic: Any
) -> tuple[ir.Model, Context, float]:
    """The graph lowered and folded, and the greatest distance from the Q/DQ graph in codes."""
    model = graph(body, inputs, {"y": y}, held)
    feed = feed_of(inputs, np.random.default_rng(0))
    wanted = run(model, feed, optimize=False)[0]
    lower(model, **arithmetic)
    ctx = fold(model)
    distance = np.abs(np.rint((run(model, feed)[0] - wanted) / np.float64(y.scale))).max()
    return model, ctx, float(distance)


SOURCES: dict[str, tuple[str, Inputs, str]] = {
    "Requantize": (again("a", "t", "m"), {"a": ((4, 64), FINE)}, "Requantize"),
    "QAdd": ("s = Add (a, b) " + again("s", "t", "m"), {"a": ((4, 64), FINE), "b": ((64,), FINE)}, "QAdd"),
    "QSub": ("s = Sub (a, b) " + again("s", "t", "m"), {"a": ((4, 64), FINE), "b": ((64,), COARSE)}, "QSub"),
    "QMul": ("s = Mul (a, b) " + again("s", "t", "m"), {"a": ((4, 64), FINE), "b": ((64,), COARSE)}, "QMul"),
    "QMatMul": (
        "s = MatMul (a, b) " + again("s", "t", "m"),
        {"a": ((4, 64), COARSE), "b": ((64, 8), Parameters(0.01))},
        "QMatMul",
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_two_rescales_become_one(name: str) -> None:
    between = STREAM if name != "QMatMul" else Parameters(0.03, -30, "i16")
    y = COARSE if name != "QMatMul" else Parameters(5.0, -3)
    body, inputs, wanted = SOURCES[name]
    model, ctx, distance = folded(body + "y = Identity (t)", inputs, y, constants(m=between))
    assert operators(model) == [wanted]
    assert reasons(ctx) == []
    assert distance <= 1
    (node,) = [node for node in model.graph if node.op_type == wanted]
    meaning = annotation(node.outputs[0])
    assert meaning is not None
    assert (meaning.scale, meaning.zero_point) == (pytest.approx(y.scale), y.zero_point)
    assert node.outputs[0].dtype is ir.DataType.INT8


def test_a_factor_per_channel_folds_as_well() -> None:
    held = constants(m=STREAM) | {"wq": np.arange(-40, 40, dtype=np.int8).reshape(5, 16)}
    held |= {"ws": np.geomspace(0.002, 0.2, 16).astype(np.float32), "wz": np.zeros(16, np.int8)}
    body = "w = DequantizeLinear <axis = 1> (wq, ws, wz) s = MatMul (a, w) " + again("s", "t", "m") + "y = Relu (t)"
    model, _, distance = folded(body, {"a": ((7, 5), COARSE)}, COARSE, held)
    assert operators(model) == ["QGemm"]
    assert distance <= 1


def test_powers_of_two_fold_by_adding_shifts() -> None:
    first, between, last = Parameters(2.0**-10, 3, "i16"), Parameters(2.0**-9, -4, "i16"), Parameters(2.0**-4, 1)
    for body, wanted in (("", "RequantizeShift"), ("s = Add (a, a) ", "QAddShift"), ("s = Mul (a, a) ", "QMulShift")):
        text = body + again("s" if body else "a", "t", "m") + "y = Identity (t)"
        model, _, distance = folded(text, {"a": ((50,), first)}, last, constants(m=between), multiplier_bits=0)
        assert operators(model) == [wanted]
        assert distance <= 1


def test_what_saturates_between_saturates_still() -> None:
    """The codes between end at ±0.1, far inside the result's ±11."""
    narrow = Parameters(0.1 / 32767, 0, "i16")
    body = again("a", "t", "m") + "y = Identity (t)"
    y = Parameters(0.01, 5)
    model, ctx, distance = folded(body, {"a": ((500,), FINE)}, y, constants(m=narrow))
    assert operators(model) == ["Requantize"]
    assert reasons(ctx) == []
    assert distance <= 1
    (node,) = [node for node in model.graph if node.op_type == "Requantize"]
    assert (node.attributes["low"].as_int(), node.attributes["high"].as_int()) == (-5, 15)


def test_coarse_codes_between_are_kept() -> None:
    body = again("a", "t", "m") + "y = Identity (t)"
    model, ctx, distance = folded(body, {"a": ((500,), FINE)}, STREAM, constants(m=COARSE))
    assert operators(model) == ["Requantize", "Requantize"]
    assert any("coarser" in reason for reason in reasons(ctx))
    assert distance <= 1


def test_codes_that_others_read_stay() -> None:
    held = constants(m=STREAM)
    body = again("a", "t", "m") + "y = Mul (t, t) z = Relu (t)"
    model = graph(body, {"a": ((50,), FINE)}, {"y": COARSE, "z": COARSE}, held)
    lower(model)
    before = operators(model)
    fold(model)
    assert operators(model) == before


@pytest.mark.parametrize("kind", ["i8", "i16"])
def test_a_rescale_that_changes_nothing_vanishes(kind: str) -> None:
    same = Parameters(0.01, 5, kind)
    model = graph("s = Add (a, a) y = Relu (s)", {"a": ((50,), same)}, {"y": same})
    lower(model)
    (add,) = [node for node in model.graph if node.op_type == "QAdd"]
    low, high = add.attributes["low"].as_int(), add.attributes["high"].as_int()
    edit = Edit(model)
    shift, multiplier = edit.constant("c", np.array(20, np.uint8)), edit.constant("b", np.array(2**20, np.int32))

    def behind(least: int, zero: int) -> ir.Node:
        attributes = {"x_zero_point": 5, "y_zero_point": zero, "to": 3 if kind == "i8" else 5}
        node = edit.insert(
            "Requantize", [add.outputs[0], multiplier, shift],
            attributes={**attributes, "low": least, "high": high}, domain="ai.qcompiler", after=add,
        )  # fmt: skip
        node.outputs[0].type, node.outputs[0].shape = add.outputs[0].type, add.outputs[0].shape
        for use in list(add.outputs[0].uses()):
            if use.node is not node:
                edit.set_input(use.node, use.idx, node.outputs[0])
        return node

    from qcompiler.quant.functions import catalogue

    behind(low, 5)
    behind(low + 1, 5)  # before the other: this one clamps, so it is folded and not dropped
    catalogue.attach(model)
    fold(model)
    assert operators(model) == ["QAdd"]
    (add,) = [node for node in model.graph if node.op_type == "QAdd"]
    assert add.attributes["low"].as_int() == low + 1


def test_the_multiplier_gets_no_wider() -> None:
    body = "s = Add (a, b) " + again("s", "t", "m") + "y = Identity (t)"
    inputs: Inputs = {"a": ((4, 64), FINE), "b": ((64,), FINE)}
    model, _, _ = folded(body, inputs, COARSE, constants(m=STREAM), multiplier_bits=8)
    (node,) = [node for node in model.graph if node.op_type == "QAdd"]
    for value in node.inputs[2:4]:
        assert value is not None
        assert value.const_value is not None
        assert 0 < int(value.const_value.numpy()) < 2**8


@pytest.mark.parametrize("number", [0.125, 0.9, -0.125])
@pytest.mark.parametrize("bits", [31, 16])
def test_a_number_that_is_multiplied_in_a_rescale_stays_in_it(number: float, bits: int) -> None:
    """The ratio of the scales around such a rescale is not its factor."""
    held = constants(m=STREAM) | {"k": np.float32(number)}
    body = "s = Mul (a, b) " + again("s", "t", "m") + "y = Mul (t, k)"
    inputs: Inputs = {"a": ((4, 64), FINE), "b": ((64,), COARSE)}
    model, _, distance = folded(body, inputs, Parameters(0.09 * abs(number), 5), held, multiplier_bits=bits)
    assert operators(model) == (["QMul"] if number > 0 else ["QMul", "QSub"])
    assert distance <= 1


def test_codes_between_may_be_a_little_coarser_as_long_as_that_costs_no_second_code() -> None:
    body = "s = Mul (a, b) " + again("s", "t", "m") + "y = Identity (t)"
    inputs: Inputs = {"a": ((4, 64), FINE), "b": ((64,), COARSE)}
    for ratio, wanted in ((1.9, ["QMul"]), (2.1, ["QMul", "Requantize"])):
        y = Parameters(STREAM.scale / ratio, 0, "i16")
        model, _, distance = folded(body, inputs, y, constants(m=STREAM))
        assert operators(model) == wanted
        assert distance <= 1
