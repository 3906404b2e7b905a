from __future__ import annotations

import numpy as np
import pytest

from tests.passes.lower.graphs import Parameters, codes_apart, graph, lower, reasons

BYTE = Parameters(0.05, 3)
WORD = Parameters(0.0002, -300, "i16")
RESULT = Parameters(0.00021, -5000, "i16")


@pytest.mark.parametrize("slope", [0.1, 1.0, 1.7, 0.0, -0.25])
@pytest.mark.parametrize("result", [RESULT, Parameters(0.04, -60)])
def test_one_slope_over_sixteen_bits_is_exact_to_one_code(slope: float, result: Parameters) -> None:
    body = f"y = LeakyRelu <alpha = {slope:.3f}> (a)"
    worst, found = codes_apart(body, {"a": (("N", 3000), WORD)}, {"y": result})
    assert worst <= 1
    assert found[:2] == ["Requantize", "Requantize"]
    assert ("Mul" in found) == (slope <= 0)


def test_the_size_of_a_number() -> None:
    worst, _ = codes_apart("y = Abs (a)", {"a": (("N", 3000), WORD)}, {"y": RESULT})
    assert worst <= 1


@pytest.mark.parametrize("source", [BYTE, WORD])
@pytest.mark.parametrize("result", [RESULT, Parameters(0.04, -60), Parameters(0.04, 127)])
def test_slopes_per_channel(source: Parameters, result: Parameters) -> None:
    slope = np.float32([0.1, -0.3, 0.0, 2.0]).reshape(4, 1, 1)
    worst, found = codes_apart("y = PRelu (a, slope)", {"a": (("N", 4, 8, 8), source)}, {"y": result}, {"slope": slope})
    assert worst <= 1
    assert found == ["Requantize", "Requantize", "Mul", "Add", "Clip", "Cast"]


def test_an_absorbed_clamp_bounds_both_halves() -> None:
    body = "b = LeakyRelu <alpha = 0.5> (a) y = Clip (b, least, most)"
    bounds = {"least": np.float32(0.7), "most": np.float32(2.1)}
    worst, _ = codes_apart(body, {"a": (("N", 3000), WORD)}, {"y": RESULT}, bounds)
    assert worst <= 1


def test_a_target_that_only_shifts() -> None:
    inputs = {"a": ((2, 4, 9), Parameters(2.0**-5, 3))}
    slope = {"slope": np.float32([0.25, 0.5, -2.0, 1.0]).reshape(4, 1)}
    worst, found = codes_apart("y = PRelu (a, slope)", inputs, {"y": Parameters(2.0**-4)}, slope, multiplier_bits=0)
    assert worst <= 1
    assert found[:2] == ["RequantizeShift", "RequantizeShift"]
    model = graph("y = PRelu (a, slope)", inputs, {"y": Parameters(2.0**-4)}, {"slope": np.float32([[0.3]] * 4)})
    assert "power of two" in reasons(lower(model, multiplier_bits=0))[0]


def test_a_slope_that_is_computed() -> None:
    model = graph("y = PRelu (a, b)", {"a": ((4, 9), WORD), "b": ((9,), WORD)}, {"y": RESULT})
    assert "slope is not a constant" in reasons(lower(model))[0]
