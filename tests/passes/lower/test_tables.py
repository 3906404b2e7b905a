from __future__ import annotations

import numpy as np
import pytest

from qcompiler.analysis.code_ranges import CodeRanges
from tests.passes.lower.graphs import Parameters, codes_apart, feed_of, graph, lower, operators, reasons, run

BYTE = Parameters(0.05, 3)
WORD = Parameters(0.0002, -300, "i16")
CENTRED = Parameters(0.04, 0)

UNARY = [
    ("Sigmoid (a)", Parameters(1 / 255, -128), Parameters(1 / 65535, -32768, "i16")),
    ("Tanh (a)", Parameters(1 / 127), Parameters(1 / 32767, 0, "i16")),
    ("Erf (a)", Parameters(1 / 127), Parameters(1 / 32767, 0, "i16")),
    ('Gelu <approximate = "none"> (a)', Parameters(0.026, -121), Parameters(0.0001, -30000, "i16")),
    ('Gelu <approximate = "tanh"> (a)', Parameters(0.026, -121), Parameters(0.0001, -30000, "i16")),
    ("Elu <alpha = 1.5> (a)", CENTRED, None),
    ("Elu (a)", CENTRED, Parameters(0.0002, 0, "i16")),
    ("Selu (a)", CENTRED, None),
    ("Celu <alpha = 0.7> (a)", CENTRED, Parameters(0.0002, 0, "i16")),
    ("Softplus (a)", Parameters(0.03, -128), Parameters(0.0001, -32768, "i16")),
    ("Softsign (a)", Parameters(1 / 127), Parameters(1 / 8000, 0, "i16")),
    ("Mish (a)", Parameters(0.03, -110), Parameters(0.0001, -29000, "i16")),
    ("HardSigmoid <alpha = 0.25, beta = 0.4> (a)", Parameters(1 / 255, -128), Parameters(1 / 65535, -32768, "i16")),
    ("HardSwish (a)", Parameters(0.03, -110), None),
    ("Exp (a)", Parameters(2.0, -128), Parameters(0.02, -32768, "i16")),
    ("Sin (a)", Parameters(1 / 127), Parameters(1 / 32767, 0, "i16")),
    ("Cos (a)", Parameters(1 / 127), Parameters(1 / 32767, 0, "i16")),
    ("Atan (a)", Parameters(0.012), Parameters(1 / 20000, 0, "i16")),
    ("Neg (a)", Parameters(0.05, -4), Parameters(0.0002, 299, "i16")),
    ("LeakyRelu <alpha = 0.1> (a)", Parameters(0.04, -90), Parameters(0.0002, -9000, "i16")),
    ("LeakyRelu <alpha = 1.5> (a)", CENTRED, Parameters(0.0003, 9, "i16")),
    ("PRelu (a, slope)", Parameters(0.04, -90), Parameters(0.0002, -9000, "i16")),
    ("Pow (a, three)", Parameters(1.9), Parameters(0.009, 0, "i16")),
    ("Pow (two, a)", Parameters(0.4, -128), Parameters(0.0016, -32768, "i16")),
    ("Floor (a)", CENTRED, None),
    ("Round (a)", CENTRED, None),
    ("Abs (a)", Parameters(0.026, -128), Parameters(0.0002, -32768, "i16")),
    ("Sqrt (a)", Parameters(0.01, -128), None),
]
CONSTANTS = {"slope": np.float32([0.2]), "three": np.float32(3), "two": np.float32(2), "one": np.float32(1)}


def used(text: str) -> dict[str, np.ndarray]:
    return {name: array for name, array in CONSTANTS.items() if name in text.split("(")[1]}


SMOOTH = [item for item in UNARY if item[2] is not None]  # the others have a kink or a jump


@pytest.mark.parametrize(("text", "byte", "word"), UNARY, ids=[item[0] for item in UNARY])
def test_a_function_of_eight_bits_is_one_exact_table(text: str, byte: Parameters, word: Parameters | None) -> None:
    for result in (byte, word):
        if result is not None:
            # ONNX Runtime's float32 differs at ties.
            worst, found = codes_apart(f"y = {text}", {"a": (("N", 400), BYTE)}, {"y": result}, used(text))
            assert worst <= 1
            assert found == ["QLookup"]


@pytest.mark.parametrize(("text", "byte", "word"), SMOOTH, ids=[item[0] for item in SMOOTH])
def test_a_smooth_function_of_sixteen_bits_is_interpolated_to_one_code(
    text: str, byte: Parameters, word: Parameters
) -> None:
    for result in (byte, word):
        worst, _ = codes_apart(f"y = {text}", {"a": (("N", 5000), WORD)}, {"y": result}, used(text))
        assert worst <= 1


def test_a_constant_over_codes_is_a_table() -> None:
    inputs = {"a": ((300,), Parameters(0.01, -228 + 100))}
    worst, found = codes_apart("y = Div (one, a)", inputs, {"y": Parameters(0.05, -128)}, {"one": np.float32(1)})
    assert found == ["QLookup"]
    assert worst <= 1


def test_what_a_table_cannot_follow_stays_float_with_the_reason() -> None:
    model = graph("y = Floor (a)", {"a": ((9,), WORD)}, {"y": Parameters(0.0002, 0, "i16")})
    ctx = lower(model)
    assert "errs by up to" in reasons(ctx)[0]
    assert operators(model) == ["Floor"]


def test_a_table_that_is_not_within_one_code_says_so() -> None:
    model = graph("y = Selu (a)", {"a": ((9,), WORD)}, {"y": Parameters(0.0002, -20000, "i16")})
    ctx = lower(model)
    assert operators(model) == ["QLookupInterpolated"]
    assert any("Selu" in note.text and "codes" in note.text for record in ctx.records for note in record.notes)


@pytest.mark.parametrize(("source", "key"), [(BYTE, "table_entries"), (WORD, "interpolated_table_entries")])
def test_a_target_without_tables(source: Parameters, key: str) -> None:
    model = graph("y = Tanh (a)", {"a": ((9,), source)}, {"y": Parameters(1 / 127)})
    assert "no " in reasons(lower(model, **{key: 0}))[0]


def test_an_exponent_that_is_computed_has_no_table() -> None:
    model = graph("y = Pow (a, b)", {"a": ((9,), BYTE), "b": ((9,), BYTE)}, {"y": BYTE})
    assert "its exponent is not one constant" in reasons(lower(model))[0]


def test_an_absorbed_clamp_is_in_the_table_and_known_to_readers() -> None:
    model = graph("b = Elu (a) y = Relu (b)", {"a": ((300,), BYTE)}, {"y": Parameters(0.03, -100)})
    feed = feed_of({"a": ((300,), BYTE)}, np.random.default_rng(1))
    wanted = run(model, feed, optimize=False)[0]
    lower(model)
    assert operators(model) == ["QLookup"]
    assert np.abs(run(model, feed)[0] - wanted).max() < 0.031
    node = next(node for node in model.graph if node.op_type == "QLookup")
    assert CodeRanges().of(node.outputs[0]) == (-100, 107)
