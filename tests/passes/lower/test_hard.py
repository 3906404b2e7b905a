from __future__ import annotations

import numpy as np
import pytest

from qcompiler.quant.annotations import annotation
from tests.passes.lower.graphs import Parameters, codes_apart, graph, lower

WORD = Parameters(0.0002, -300, "i16")
UNIT = Parameters(1 / 65535, -32768, "i16")


@pytest.mark.parametrize(("alpha", "beta"), [(0.2, 0.5), (1 / 6, 0.5), (0.25, -0.1), (0.6, 0.9)])
@pytest.mark.parametrize("result", [UNIT, Parameters(1 / 32767, 0, "i16"), Parameters(1 / 255, -128)])
def test_hard_sigmoid_is_one_clamped_rescale(alpha: float, beta: float, result: Parameters) -> None:
    body = f"y = HardSigmoid <alpha = {alpha}, beta = {beta}> (a)"
    worst, found = codes_apart(body, {"a": (("N", 9000), WORD)}, {"y": result})
    assert found == ["Requantize"]
    assert worst <= 1


def test_what_the_codes_mean_is_not_moved_with_the_line() -> None:
    model = graph("y = HardSigmoid (a)", {"a": ((9,), WORD)}, {"y": UNIT})
    lower(model)
    meaning = annotation(next(node for node in model.graph if node.op_type == "Requantize").outputs[0])
    assert meaning is not None
    assert (meaning.of, meaning.zero_point) == ("y", -32768)


def test_an_absorbed_clamp_narrows_it() -> None:
    bounds = {"least": np.float32(0.2), "most": np.float32(0.7)}
    body = "b = HardSigmoid (a) y = Clip (b, least, most)"
    assert codes_apart(body, {"a": (("N", 9000), WORD)}, {"y": UNIT}, bounds)[0] <= 1


@pytest.mark.parametrize(
    "result", [Parameters(0.00011, -29000, "i16"), Parameters(0.0002, -300, "i16"), Parameters(0.03, -100)]
)
def test_hard_swish_is_a_product_with_it(result: Parameters) -> None:
    worst, found = codes_apart("y = HardSwish (a)", {"a": (("N", 20000), WORD)}, {"y": result})
    assert found == ["Requantize", "QMul"]
    assert worst <= (1 if result.kind == "i8" else 2)


def test_a_falling_line_is_a_table() -> None:
    inputs = {"a": (("N", 900), WORD)}
    _, found = codes_apart("y = HardSigmoid <alpha = -0.2> (a)", inputs, {"y": Parameters(1 / 255, -128)})
    assert found == ["QLookupInterpolated"]
