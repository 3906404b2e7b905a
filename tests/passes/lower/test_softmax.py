from __future__ import annotations

import numpy as np
import pytest

from tests.passes.lower.graphs import Parameters, codes_apart, graph, lower, operators, reasons

SHARES = Parameters(1 / 255, -128)
FINE = Parameters(1 / 65535, -32768, "i16")


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("result", [SHARES, FINE, Parameters(0.0039049, -128), Parameters(3e-6, -32768, "i16")])
@pytest.mark.parametrize(
    "scores", [Parameters(0.05, 3), Parameters(0.00174, 6598, "i16"), Parameters(0.00044, 12982, "i16")]
)
def test_softmax_is_within_one_code_of_the_float_one(scores: Parameters, result: Parameters, axis: int) -> None:
    inputs = {"a": (("N", 12, 33), scores)}
    worst, found = codes_apart(f"y = Softmax <axis = {axis}> (a)", inputs, {"y": result})
    assert found == ["QSoftmax"]
    assert worst <= 1


def test_scores_as_coarse_as_a_mask_leave_one_term() -> None:
    inputs = {"a": ((3, 40), Parameters(150.0, 100, "i16"))}
    assert codes_apart("y = Softmax (a)", inputs, {"y": SHARES})[0] <= 1


@pytest.mark.parametrize("scores", [Parameters(2.0**-4, 3), Parameters(2.0**-11, 3, "i16")])
def test_a_target_that_only_shifts(scores: Parameters) -> None:
    worst, found = codes_apart(
        "y = Softmax (a)", {"a": ((5, 64), scores)}, {"y": Parameters(2.0**-8, -128)}, multiplier_bits=0
    )
    assert found == ["QSoftmaxShift"]
    assert worst <= 1


@pytest.mark.parametrize("bits", [8, 16])
def test_narrow_multipliers_hold_eight_bits(bits: int) -> None:
    inputs = {"a": ((5, 64), Parameters(0.06, 3))}
    assert codes_apart("y = Softmax (a)", inputs, {"y": SHARES}, multiplier_bits=bits)[0] <= 1


@pytest.mark.parametrize(
    ("shape", "result", "reason"),
    [((1, 70000), SHARES, "70000 terms"), ((1, 7), Parameters(2.0**-27, -32768, "i16"), "finer than")],
)
def test_what_has_no_integer_form(shape: tuple[int, ...], result: Parameters, reason: str) -> None:
    model = graph("y = Softmax (a)", {"a": (shape, Parameters(0.05, 3))}, {"y": result})
    assert reason in reasons(lower(model))[0]
    assert operators(model) == ["Softmax"]
    assert np.all([node.domain == "" for node in model.graph])
