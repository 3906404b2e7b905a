from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qcompiler.quant.annotations import Annotation, annotation
from tests.passes.lower.graphs import Parameters, codes_apart, graph, lower, operators, reasons, run

NARROW, NARROW_OUT = Parameters(0.05, 3), Parameters(0.045, -9)
WIDE, WIDE_OUT = Parameters(0.0002, 3, "i16"), Parameters(0.00021, -9, "i16")
IMAGE: tuple[int | str, ...] = ("N", 3, 9, 8)

AVERAGES = {
    "plain": "kernel_shape = [3, 2], strides = [2, 1]",
    "padding not counted": "kernel_shape = [3, 2], strides = [2, 1], pads = [1, 0, 1, 1]",
    "padding counted": "kernel_shape = [3, 2], strides = [2, 1], pads = [1, 0, 1, 1], count_include_pad = 1",
    "rounded up": "kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1",
    "rounded up, padding": "kernel_shape = [3, 3], strides = [3, 2], ceil_mode = 1, pads = [1, 1, 1, 1]",
    "rounded up, padding counted": (
        "kernel_shape = [3, 3], strides = [3, 2], ceil_mode = 1, pads = [1, 1, 1, 1], count_include_pad = 1"
    ),
    "same upper": 'kernel_shape = [4, 3], strides = [2, 2], auto_pad = "SAME_UPPER"',
    "same lower": 'kernel_shape = [4, 3], strides = [2, 2], auto_pad = "SAME_LOWER"',
    "valid": 'kernel_shape = [4, 3], strides = [2, 2], auto_pad = "VALID"',
    "dilated": "kernel_shape = [2, 3], dilations = [2, 1]",
}


@pytest.mark.parametrize("kind", AVERAGES)
@pytest.mark.parametrize(("before", "after"), [(NARROW, NARROW_OUT), (WIDE, WIDE_OUT), (NARROW, WIDE_OUT)])
def test_average_pool_is_within_one_code_of_the_float_operator(
    kind: str, before: Parameters, after: Parameters
) -> None:
    apart, names = codes_apart(f"y = AveragePool <{AVERAGES[kind]}> (a)", {"a": (IMAGE, before)}, {"y": after})
    assert apart <= 1
    assert names == ["QAveragePoolWide" if before.kind == "i16" else "QAveragePool"]


BODIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "one axis": ("y = AveragePool <kernel_shape = [3], strides = [2], pads = [1, 1]> (a)", "QAveragePool", {}),
    "whole input": ("y = AveragePool <kernel_shape = [9]> (a)", "QGlobalAveragePool", {}),
    "global": ("y = GlobalAveragePool (a)", "QGlobalAveragePool", {}),
    "mean": ("y = ReduceMean <keepdims = 0> (a, k)", "QReduceMean", {"k": np.array([-1, 1], np.int64)}),
    "mean of all but the batch": ("y = ReduceMean (a, k)", "QReduceMean", {"k": np.array([1, 2], np.int64)}),
    "sum": ("y = ReduceSum (a, k)", "QReduceMean", {"k": np.array([1], np.int64)}),
}


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize(("before", "after"), [(NARROW, NARROW_OUT), (WIDE, WIDE_OUT)])
def test_means_and_sums_are_within_one_code(kind: str, before: Parameters, after: Parameters) -> None:
    body, operator, constants = BODIES[kind]
    apart, names = codes_apart(body, {"a": (("N", 3, 9), before)}, {"y": after}, constants)
    assert apart <= 1
    assert names == [operator + ("Wide" if before.kind == "i16" else "")]


def test_a_window_of_unknown_position_needs_no_sizes_where_all_count_the_same() -> None:
    body = "y = AveragePool <kernel_shape = [2, 2]> (a)"
    model = graph(body, {"a": (("N", 3, "H", "W"), NARROW)}, {"y": NARROW_OUT})
    feed = {"in_a": np.random.default_rng(0).normal(size=(2, 3, 5, 7)).astype(np.float32)}
    wanted = run(model, feed, optimize=False)[0]
    lower(model)
    assert operators(model) == ["QAveragePool"]
    assert np.abs(run(model, feed)[0] - wanted).max() <= 0.0451


def test_activations_behind_a_pool_become_its_clamp() -> None:
    body = "t = AveragePool <kernel_shape = [2, 2]> (a) y = Relu (t)"
    apart, names = codes_apart(body, {"a": (IMAGE, NARROW)}, {"y": NARROW_OUT})
    assert apart <= 1
    assert names == ["QAveragePool"]


# -- maxima ------------------------------------------------------------------------------------------------------

MAXIMA = {
    "plain": "MaxPool <kernel_shape = [3, 2], strides = [2, 1]> (a)",
    "padded": "MaxPool <kernel_shape = [3, 2], strides = [2, 1], pads = [1, 0, 1, 1]> (a)",
    "rounded up": "MaxPool <kernel_shape = [2, 3], strides = [2, 3], ceil_mode = 1> (a)",
    "same": 'MaxPool <kernel_shape = [4, 3], strides = [2, 2], auto_pad = "SAME_UPPER"> (a)',
    "dilated": "MaxPool <kernel_shape = [2, 3], dilations = [2, 1]> (a)",
    "one axis only": "MaxPool <kernel_shape = [1, 3]> (a)",
    "nothing": "MaxPool <kernel_shape = [1, 1]> (a)",
    "global": "GlobalMaxPool (a)",
}
PLAIN = {"global": ["ReduceMax"]}
WIDENED = {
    "global": ["Cast", "ReduceMax", "Cast"],
    "one axis only": ["QMaxPool"],
    "nothing": [],
}


@pytest.mark.parametrize("kind", MAXIMA)
@pytest.mark.parametrize("parameters", [NARROW, WIDE])
def test_maxima_move_codes_without_any_error(kind: str, parameters: Parameters) -> None:
    apart, names = codes_apart(f"y = {MAXIMA[kind]}", {"a": (IMAGE, parameters)}, {"y": parameters})
    assert apart == 0
    wanted = PLAIN.get(kind, ["MaxPool"]) if parameters is NARROW else WIDENED.get(kind, ["QMaxPool", "QMaxPool"])
    assert names == wanted


@pytest.mark.parametrize("parameters", [NARROW, WIDE])
@pytest.mark.parametrize("kind", ["plain", "global"])
def test_what_maxima_mean_is_written_beside_them(kind: str, parameters: Parameters) -> None:
    model = graph(f"y = {MAXIMA[kind]}", {"a": (IMAGE, parameters)}, {"y": parameters})
    lower(model)
    codes = model.graph.outputs[0].producer().inputs[0]
    assert annotation(codes) == Annotation("y", float(np.float32(parameters.scale)), parameters.zero_point)


def test_a_maximum_at_another_scale_is_requantized() -> None:
    apart, names = codes_apart(f"y = {MAXIMA['plain']}", {"a": (IMAGE, WIDE)}, {"y": WIDE_OUT})
    assert apart <= 1
    assert names == ["QMaxPool", "QMaxPool", "Requantize"]


# -- targets without multipliers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", AVERAGES)
def test_without_multipliers_windows_are_divided_by_sums_of_shifts(kind: str) -> None:
    apart, names = codes_apart(
        f"y = AveragePool <{AVERAGES[kind]}> (a)",
        {"a": (IMAGE, Parameters(0.0625, 3))},
        {"y": Parameters(0.03125, -9)},
        multiplier_bits=0,
    )
    assert apart <= 1
    assert names == ["QAveragePoolShift"]


@pytest.mark.parametrize("kind", BODIES)
def test_without_multipliers_means_are_sums_of_shifts(kind: str) -> None:
    body, operator, constants = BODIES[kind]
    inputs = {"a": (("N", 3, 9), Parameters(0.0625, 3))}
    apart, names = codes_apart(body, inputs, {"y": Parameters(0.03125, -9)}, constants, multiplier_bits=0)
    assert apart <= 1
    assert names == [f"{operator}Shift"]


def test_an_area_of_a_power_of_two_is_divided_by_one_shift() -> None:
    model = graph("y = GlobalAveragePool (a)", {"a": ((1, 3, 8, 8), Parameters(0.0625))}, {"y": Parameters(0.0625)})
    lower(model, multiplier_bits=0)
    node = next(node for node in model.graph if node.op_type == "QGlobalAveragePoolShift")
    left, negative, shift = (value.const_value.numpy() for value in node.inputs[1:])
    assert (left.tolist(), negative.tolist(), int(shift)) == ([0], [False], 22)


# -- what has no integer form ------------------------------------------------------------------------------------

SYMBOLIC: tuple[int | str, ...] = ("N", 3, "H", "W")
REFUSED: list[tuple[str, str, tuple[int | str, ...], dict[str, Any], dict[str, Any], str]] = [
    ("sizes", "AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (a)", SYMBOLIC, {}, {}, "windows count"),
    ("rounding", "AveragePool <kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1> (a)", SYMBOLIC, {}, {}, "up"),
    (
        "same",
        'AveragePool <kernel_shape = [3, 3], strides = [2, 2], auto_pad = "SAME_UPPER"> (a)',
        SYMBOLIC,
        {},
        {},
        "padding depends",
    ),
    ("area", "GlobalAveragePool (a)", SYMBOLIC, {}, {}, "how many elements"),
    ("axis", "ReduceMean (a, k)", SYMBOLIC, {"k": np.array([2], np.int64)}, {}, "how many elements"),
    ("accumulator", "GlobalAveragePool (a)", (1, 1, 64, 64), {}, {"accumulator_bits": 16}, "accumulator has 16 bits"),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case[0])
def test_what_cannot_be_known_stays_float_with_a_reason(case: Any) -> None:
    _, body, shape, constants, arithmetic, reason = case
    model = graph(f"y = {body}", {"a": (shape, NARROW)}, {"y": NARROW_OUT}, constants)
    ctx = lower(model, **arithmetic)
    assert len(reasons(ctx)) == 1
    assert reason in reasons(ctx)[0]


def test_sums_of_16_bit_codes_need_an_accumulator_for_them() -> None:
    model = graph("y = GlobalAveragePool (a)", {"a": (IMAGE, WIDE)}, {"y": WIDE_OUT})
    assert "adds no 16-bit codes" in reasons(lower(model, wide_accumulator_bits=0))[0]


def test_axes_that_are_computed_stay_float() -> None:
    body = "s = Shape <start = 3> (a) k = Sub (s, s) y = ReduceMean (a, k)"
    model = graph(body, {"a": (SYMBOLIC, NARROW)}, {"y": NARROW_OUT})
    assert any("axes are computed" in reason or "float" in reason for reason in reasons(lower(model)))


def test_narrow_multipliers_keep_averages_within_one_code() -> None:
    for bits in (8, 16):
        inputs = {"a": (IMAGE, NARROW)}
        body = f"y = AveragePool <{AVERAGES['padding not counted']}> (a)"
        apart, _ = codes_apart(body, inputs, {"y": NARROW_OUT}, multiplier_bits=bits)
        assert apart <= 1
