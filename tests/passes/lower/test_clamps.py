from __future__ import annotations

import numpy as np
import pytest

from tests.passes.lower.graphs import Parameters, codes_apart, graph, lower, reasons

NARROW = Parameters(0.043, -9)
OTHER = Parameters(0.029, 17)
WIDE = Parameters(0.00031, 12, "i16")


@pytest.mark.parametrize(
    ("body", "constants"),
    [
        ("y = Relu (a)", {}),
        ("y = Clip (a, least, greatest)", {"least": -0.9, "greatest": 2.3}),
        ("y = Clip (a, , greatest)", {"greatest": 0.7}),
        ("y = Clip (a, least)", {"least": 0.7}),
        ("y = Min (a, k)", {"k": 0.4}),
        ("y = Max (k, a)", {"k": -0.4}),
        ("t = Relu (a) y = Min (t, k)", {"k": 0.4}),
    ],
)
@pytest.mark.parametrize(
    ("a", "y", "wanted"),
    [(NARROW, NARROW, "Clip"), (NARROW, OTHER, "Requantize"), (WIDE, WIDE, "Requantize"), (WIDE, NARROW, "Requantize")],
)
def test_a_clamp_is_a_clip_of_codes_or_part_of_a_rescale(
    body: str, constants: dict[str, float], a: Parameters, y: Parameters, wanted: str
) -> None:
    held = {name: np.float32(number) for name, number in constants.items()}
    worst, found = codes_apart(body, {"a": (("N", 50), a)}, {"y": y}, held)
    assert worst <= (a != y)
    assert found == [wanted]


def test_crossed_bounds_give_the_greater_bound_as_onnx_says() -> None:
    held = {"least": np.float32(0.9), "greatest": np.float32(-0.5)}
    assert codes_apart("y = Clip (a, least, greatest)", {"a": ((40,), NARROW)}, {"y": NARROW}, held)[0] == 0


def test_a_relu_that_the_codes_do_anyway_is_no_node() -> None:
    positive = Parameters(0.02, -128)
    assert codes_apart("y = Relu (a)", {"a": ((40,), positive)}, {"y": positive}) == (0, [])


@pytest.mark.parametrize("op", ["Min", "Max"])
@pytest.mark.parametrize("y", [NARROW, WIDE])
def test_several_tensors_are_compared_at_the_scale_of_the_result(op: str, y: Parameters) -> None:
    inputs = {"a": ((3, 16), NARROW), "b": ((16,), y), "c": ((3, 1), OTHER)}
    held = {"k": np.linspace(-1, 1, 16).astype(np.float32)}
    worst, found = codes_apart(f"y = {op} (a, b, c, k)", inputs, {"y": y}, held)
    assert worst <= 1
    assert found.count("Requantize") == (1 if y is NARROW else 2)
    assert found.count("Cast") == (0 if y is NARROW else 5)
    assert op in found


def test_a_bound_that_is_computed_has_no_integer_form() -> None:
    body = "t = ReduceMax <keepdims = 0> (a) y = Clip (b, , t)"
    model = graph(body, {"a": ((4, 8), NARROW), "b": ((4, 8), NARROW)}, {"y": NARROW})
    assert any("is float" in reason or "not one constant" in reason for reason in reasons(lower(model)))
