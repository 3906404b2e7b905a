from __future__ import annotations

import numpy as np
import pytest

from tests.passes.lower.graphs import Parameters, codes_apart, graph, lower, operators, reasons

STREAM = Parameters(0.00031, 12, "i16")
BRANCH = Parameters(0.00017, -300, "i16")
NARROW = Parameters(0.043, -9)
WIDE = Parameters(0.00052, 3, "i16")
RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("op", ["Add", "Sub", "Sum", "Mul"])
@pytest.mark.parametrize(("a", "b", "y"), [(STREAM, BRANCH, WIDE), (NARROW, STREAM, NARROW), (NARROW, NARROW, WIDE)])
def test_two_activations(op: str, a: Parameters, b: Parameters, y: Parameters) -> None:
    if op == "Sum":
        a = b  # also equal parameters
    if op == "Mul":
        y = Parameters(y.scale * 5, y.zero_point, y.kind)
    inputs = {"a": (("N", 7, 16), a), "b": ((7, 16), b)}
    worst, found = codes_apart(f"y = {op} (a, b)", inputs, {"y": y})
    assert worst <= 1
    assert found == [{"Add": "QAdd", "Sum": "QAdd", "Sub": "QSub", "Mul": "QMul"}[op]]


def test_a_stream_added_to_itself() -> None:
    worst, found = codes_apart("y = Add (a, a)", {"a": ((3, 8), STREAM)}, {"y": WIDE})
    assert worst <= 1
    assert found == ["QAdd"]


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
def test_a_constant_tensor_left_in_float_gets_codes_of_its_own(op: str) -> None:
    constant = RANDOM.normal(0, 0.3, (16,)).astype(np.float32) + np.float32(2.0)
    constants = {"k": constant}
    worst, found = codes_apart(f"y = {op} (a, k)", {"a": ((4, 16), NARROW)}, {"y": Parameters(0.11, -7)}, constants)
    assert worst <= 1
    assert found == [{"Add": "QAdd", "Sub": "QSub", "Mul": "QMul", "Div": "QMul"}[op]]


def test_a_constant_tensor_in_codes_is_read_as_it_is() -> None:
    constants = {"kq": RANDOM.integers(-32767, 32767, (16,)).astype(np.int16), "ks": np.float32(0.0001)}
    constants["kz"] = np.int16(0)
    body = "k = DequantizeLinear (kq, ks, kz) y = Sub (k, a)"
    model = graph(body, {"a": ((4, 16), STREAM)}, {"y": WIDE}, constants)
    lower(model)
    (node,) = [node for node in model.graph if node.op_type == "QSub"]
    assert node.inputs[0] is model.graph.initializers["kq"]
    assert codes_apart(body, {"a": ((4, 16), STREAM)}, {"y": WIDE}, constants)[0] <= 1


@pytest.mark.parametrize("number", [0.125, 0.70710678, 3.7, -0.5, -1.9])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize("op", ["Mul", "Div"])
def test_a_factor_of_one_number_goes_into_the_rescale(number: float, shape: tuple[int, ...], op: str) -> None:
    constants = {"k": np.full(shape, number, np.float32)}
    step = STREAM.scale * (abs(number) if op == "Mul" else 1 / abs(number))
    outputs = {"y": Parameters(step * 1.3, 40, "i16")}
    worst, found = codes_apart(f"y = {op} (a, k)", {"a": ((4, 16), STREAM)}, outputs, constants)
    assert worst <= 1
    assert found == ["Requantize" if number > 0 else "QSub"]


def test_a_factor_that_widens_the_result_stays_an_operand() -> None:
    constants = {"k": np.full((1, 1, 1), 0.5, np.float32)}
    worst, found = codes_apart("y = Mul (a, k)", {"a": ((4, 16), STREAM)}, {"y": STREAM}, constants)
    assert worst <= 1
    assert found == ["QMul"]


def test_a_factor_of_zero_gives_zeros() -> None:
    constants = {"k": np.float32(0)}
    worst, _ = codes_apart("y = Mul (k, a)", {"a": ((4, 16), STREAM)}, {"y": WIDE}, constants)
    assert worst == 0


def test_an_absorbed_activation_is_the_clamp_of_the_sum() -> None:
    inputs = {"a": ((4, 16), NARROW), "b": ((4, 16), STREAM)}
    body = "t = Add (a, b) y = Relu (t)"
    worst, found = codes_apart(body, inputs, {"y": Parameters(0.05, -100)})
    assert worst <= 1
    assert found == ["QAdd"]


class TestPowersOfTwo:
    A = Parameters(2.0**-8, 5)
    B = Parameters(2.0**-4, -20)
    Y = Parameters(2.0**-5, 1)

    @pytest.mark.parametrize("op", ["Add", "Sub", "Mul"])
    def test_nothing_is_multiplied_to_rescale(self, op: str) -> None:
        inputs = {"a": ((4, 16), self.A), "b": ((16,), self.B)}
        worst, found = codes_apart(f"y = {op} (a, b)", inputs, {"y": self.Y}, multiplier_bits=0)
        assert worst <= 1
        assert found == [f"Q{op}Shift"]

    def test_constants_get_scales_of_that_kind(self) -> None:
        constants = {"k": RANDOM.normal(0, 3, (16,)).astype(np.float32)}
        for op, wanted in (("Add", "QAddShift"), ("Mul", "QMulShift")):
            worst, found = codes_apart(
                f"y = {op} (a, k)", {"a": ((4, 16), self.A)}, {"y": self.Y}, constants, multiplier_bits=0
            )
            assert worst <= 1
            assert found == [wanted]

    @pytest.mark.parametrize(("number", "wanted"), [(0.25, "RequantizeShift"), (-2.0, "QSubShift"), (0.3, "QMulShift")])
    def test_a_number_goes_into_the_shift_where_it_is_one(self, number: float, wanted: str) -> None:
        constants = {"k": np.float32(number)}
        worst, found = codes_apart(
            "y = Mul (a, k)", {"a": ((4, 16), self.A)}, {"y": self.Y}, constants, multiplier_bits=0
        )
        assert worst <= 1
        assert found == [wanted]

    def test_scales_that_are_none_are_named(self) -> None:
        inputs = {"a": ((4, 16), NARROW), "b": ((16,), self.B)}
        model = graph("y = Add (a, b)", inputs, {"y": self.Y})
        assert any("no power of two" in reason for reason in reasons(lower(model, multiplier_bits=0)))


class TestReasons:
    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            ("y = Div (a, b)", "divides by a tensor that is computed"),
            ("y = Sum (a, b, a)", "adds 3 tensors"),
            ("y = Div (a, zero)", "divides by zero"),
            ("y = Add (a, endless)", "not finite"),
        ],
    )
    def test_a_reason_is_given_and_nothing_is_left_over(self, body: str, reason: str) -> None:
        constants = {"zero": np.zeros(16, np.float32), "endless": np.array([np.inf] * 16, np.float32)}
        inputs = {"a": ((4, 16), NARROW), "b": ((16,), NARROW)}
        constants = {name: array for name, array in constants.items() if name in body}
        model = graph(body, inputs, {"y": NARROW}, constants)
        before = len(model.graph), len(model.graph.initializers)
        assert any(reason in item for item in reasons(lower(model)))
        assert (len(model.graph), len(model.graph.initializers)) <= before
        assert body.split()[2] in operators(model)
