from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.passes.lower.linear_graphs import Graph, attributes, codes_apart, integer_nodes, lowered, reasons

SCALE_X, SCALE_Y = 0.031, 0.07


def convolution(
    seed: int,
    spatial: tuple[int | str, ...],
    *,
    transposed: bool = False,
    channels: int = 4,
    outputs: int = 6,
    group: int = 1,
    kernel: tuple[int, ...] = (3, 3),
    kind: str = "i8",
    weights: str = "i8",
    weight_zero: int = 0,
    per_tensor: bool = False,
    behind: Any = None,
    span: tuple[int, int] = (-127, 128),
    **given: Any,
) -> tuple[Any, dict[str, tuple[int, ...]], float]:
    random = np.random.default_rng(seed)
    graph = Graph(random)
    scale_x = SCALE_X / 200 if kind == "i16" else SCALE_X
    x = graph.quantized("x", scale_x, 300 if kind == "i16" else -11, kind)
    shape = (channels, outputs // group, *kernel) if transposed else (outputs, channels // group, *kernel)
    codes = random.integers(*span, shape)
    scale = (
        np.float32(0.011) if per_tensor else np.exp(random.uniform(-7, -3, outputs // group if transposed else outputs))
    )
    w = graph.weight(codes, scale, axis=int(transposed), kind=weights, zero=weight_zero)
    accumulator = scale_x * np.asarray(scale, np.float32)
    if transposed and not per_tensor:
        accumulator = np.tile(accumulator, group)
    b = graph.bias(random.integers(-4000, 4000, outputs), accumulator)
    op = "ConvTranspose" if transposed else "Conv"
    y = graph.node(op, [x, w, b], group=group, **given)
    if behind is not None:
        y = behind(graph, y, outputs)
    out = graph.quantized(y, SCALE_Y, 5, "i8")
    shapes = {"x": (2, channels, *spatial)}
    return graph.model(shapes, out, len(spatial) + 2), shapes, SCALE_Y


CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "plain": {"spatial": (7, 8)},
    "one axis": {"spatial": (9,), "kernel": (3,), "pads": [2, 0]},
    "three axes": {"spatial": (4, 5, 3), "kernel": (2, 3, 1), "pads": [0, 1, 0, 1, 1, 0]},
    "strides and uneven pads": {"spatial": (9, 8), "strides": [2, 3], "pads": [1, 0, 2, 1]},
    "dilations": {"spatial": (9, 8), "dilations": [2, 3], "pads": [1, 2, 1, 2]},
    "groups": {"spatial": (5, 5), "channels": 6, "group": 3},
    "depthwise": {"spatial": (5, 5), "channels": 6, "group": 6, "pads": [1, 1, 1, 1]},
    "same upper": {"spatial": (7, 6), "auto_pad": "SAME_UPPER", "strides": [2, 2]},
    "same lower": {"spatial": (7, 6), "auto_pad": "SAME_LOWER", "kernel": (2, 3)},
    "valid": {"spatial": (7, 6), "auto_pad": "VALID"},
    "one scale": {"spatial": (5, 5), "per_tensor": True},
    "16 bits": {"spatial": (7, 8), "kind": "i16", "pads": [1, 1, 1, 1]},
    "4 bits": {"spatial": (5, 5), "weights": "i4", "span": (-8, 8)},
    "16 and 4 bits": {"spatial": (5, 5), "weights": "i4", "span": (-8, 8), "kind": "i16"},
    "unsigned weights": {"spatial": (5, 5), "weights": "u8", "span": (1, 255), "weight_zero": 128},
}


@pytest.mark.parametrize("given", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_a_convolution_is_within_one_code_of_its_float_form(given: dict[str, Any]) -> None:
    for seed in range(2):
        greatest, share = codes_apart(*convolution(seed, **given))
        assert greatest <= 1
        assert share < 0.01  # ties


TRANSPOSED: dict[str, dict[str, Any]] = {
    "plain": {"spatial": (4, 5)},
    "one axis": {"spatial": (5,), "kernel": (4,), "strides": [3], "pads": [2, 1]},
    "three axes": {"spatial": (2, 3, 2), "kernel": (2, 3, 1), "strides": [1, 2, 2]},
    "strides, pads and output padding": {
        "spatial": (4, 5),
        "strides": [2, 3],
        "pads": [1, 0, 2, 1],
        "output_padding": [1, 2],
    },
    "dilations": {"spatial": (4, 5), "dilations": [2, 3], "strides": [2, 2]},
    "groups": {"spatial": (4, 5), "channels": 6, "group": 3, "strides": [2, 2]},
    "depthwise": {"spatial": (4, 5), "channels": 6, "group": 6, "strides": [2, 2], "kernel": (2, 2)},
    "a kernel smaller than the stride": {"spatial": (4, 5), "kernel": (1, 2), "strides": [3, 3]},
    "one scale": {"spatial": (4, 5), "per_tensor": True},
    "16 bits": {"spatial": (4, 5), "kind": "i16", "strides": [2, 2]},
    "4 bits": {"spatial": (4, 5), "weights": "i4", "span": (-8, 8), "strides": [2, 2]},
    "output shape": {"spatial": (4, 5), "strides": [2, 2], "output_shape": [8, 10]},
    "same upper": {"spatial": (4, 5), "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    "same lower": {"spatial": (4, 5), "strides": [2, 2], "auto_pad": "SAME_LOWER"},
}


@pytest.mark.parametrize("given", TRANSPOSED.values(), ids=TRANSPOSED)
def test_a_transposed_convolution_is_within_one_code_of_its_float_form(given: dict[str, Any]) -> None:
    greatest, share = codes_apart(*convolution(3, transposed=True, **given))
    assert greatest <= 1
    assert share < 0.01


def relu6(graph: Graph, value: str, _: int) -> str:
    low, high = graph.constant("zero", np.float32(0)), graph.constant("six", np.float32(6))
    return graph.node("Clip", [value, low, high])


def bounds(graph: Graph, value: str, outputs: int) -> str:
    """What equalization makes of Relu6 per channel."""
    most = graph.constant("most", graph.random.uniform(0.2, 9, (1, outputs, 1, 1)).astype(np.float32))
    return graph.node("Min", [graph.node("Relu", [value]), most])


def addend(graph: Graph, value: str, outputs: int) -> str:
    return graph.node(
        "Add", [value, graph.constant("c", graph.random.normal(0, 1, (1, outputs, 1, 1)).astype(np.float32))]
    )


def test_activations_become_clamps() -> None:
    model, shapes, scale = convolution(1, (6, 6), behind=relu6)
    assert codes_apart(model, shapes, scale)[0] <= 1
    form, _ = lowered(model)
    assert (attributes(form)["low"], attributes(form)["high"]) == (5, 91)


def test_bounds_per_channel_become_a_minimum_of_codes() -> None:
    model, shapes, scale = convolution(2, (6, 6), behind=bounds)
    assert codes_apart(model, shapes, scale)[0] <= 1
    assert [node.op_type for node in lowered(model)[0].graph][1:3] == ["QConv", "Min"]


def test_a_constant_per_channel_behind_a_convolution_joins_its_bias() -> None:
    model, shapes, scale = convolution(2, (6, 6), behind=addend)
    assert codes_apart(model, shapes, scale)[0] <= 1
    assert integer_nodes(lowered(model)[0]) == ["QConv"]


def test_weights_stay_where_they_are_stored() -> None:
    model, _, _ = convolution(0, (6, 6))
    form, _ = lowered(model)
    node = next(node for node in form.graph if node.op_type == "QConv")
    weight, bias = node.inputs[1], node.inputs[2]
    assert weight is not None
    assert weight.name in model.graph.initializers
    assert bias is not None
    assert bias.const_value is not None
    assert tuple(bias.const_value.shape) == (6, 1, 1)


@pytest.mark.parametrize("bits", [4, 3, 2])
def test_weights_are_packed_in_as_few_bits_as_hold_them(bits: int) -> None:
    form, _ = lowered(convolution(0, (5, 5), weights="i4", span=(-(1 << (bits - 1)), 1 << (bits - 1)))[0])
    assert integer_nodes(form) == ["QConvPacked"]
    assert attributes(form)["bits"] == bits
    assert list(attributes(form)["weight_shape"]) == [6, 4, 3, 3]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "padding of an unknown size": (
        {"spatial": ("H", "W"), "auto_pad": "SAME_UPPER", "strides": [2, 2]},
        "only a run can tell",
    ),
    "weights too far from their zero point": (
        {"spatial": (5, 5), "weights": "u8", "span": (0, 256), "weight_zero": 3},
        "do not fit 8 bits",
    ),
}


@pytest.mark.parametrize(("given", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_integer_form_says_why(given: dict[str, Any], reason: str) -> None:
    form, ctx = lowered(convolution(0, **given)[0])
    assert integer_nodes(form) == []
    assert any(reason in text for text in reasons(ctx))


def test_a_constant_per_position_has_no_integer_form() -> None:
    def positions(graph: Graph, value: str, _: int) -> str:
        return graph.node(
            "Add", [value, graph.constant("c", graph.random.normal(0, 1, (1, 1, 3, 3)).astype(np.float32))]
        )

    _, ctx = lowered(convolution(0, (5, 5), behind=positions)[0])
    assert any("not one number per channel" in text for text in reasons(ctx))


def test_a_constant_behind_an_activation_has_no_integer_form() -> None:
    _, ctx = lowered(convolution(0, (5, 5), behind=lambda graph, y, n: addend(graph, relu6(graph, y, n), n))[0])
    assert any("behind its activation" in text for text in reasons(ctx))


def test_bounds_below_the_least_result_have_no_integer_form() -> None:
    def negative(graph: Graph, value: str, outputs: int) -> str:
        most = graph.constant("most", np.full((1, outputs, 1, 1), -1, np.float32))
        return graph.node("Min", [graph.node("Relu", [value]), most])

    _, ctx = lowered(convolution(0, (5, 5), behind=negative)[0])
    assert any("below the least" in text for text in reasons(ctx))
