"""Neighbours, absorbed activations and exclusions: which nodes stay float, and why."""

from __future__ import annotations

INPUT = "float[1,3,8,8] x"
CONV = {"w": (4, 3, 1, 1)}


def test_an_excluded_activation_is_not_absorbed(decide, why_float):
    """``cpu-x86`` has no rule for Relu of its own; excluding it must still keep the convolution from absorbing it."""
    model = decide("a = Conv(x, w) y = Relu(a)", INPUT, "float[1,4,8,8] y", CONV, "cpu-x86", ("Relu",))
    assert why_float(model) == {"Relu_y": "excluded by 'Relu'"}


def test_only_the_standard_activation_is_absorbed(decide, why_float):
    model = decide("a = Conv(x, w) y = com.example.Relu(a)", INPUT, "float[1,4,8,8] y", CONV, "cpu-x86")
    assert set(why_float(model)) == {"Relu_y"}


def test_an_activation_in_a_body_is_not_absorbed(decide, why_float):
    body = """a = Conv(x, w)
        y = If(k) <then_branch = t () => (float[1,4,8,8] p) { p = Relu(a) },
                   else_branch = e () => (float[1,4,8,8] q) { q = Relu(x) }>"""
    model = decide(body, f"{INPUT}, bool k", "float[1,4,8,8] y", CONV, "cpu-x86")
    assert set(why_float(model)) == {"If_y"}


def test_a_constant_operand_counts_alike_on_both_sides(decide, why_float):
    weights = CONV | {"c": (4, 1, 1), "v": (4, 4, 1, 1)}
    for operands in ("a, c", "c, a"):
        body = f"a = Conv(x, w) s = Mul({operands}) y = Conv(s, v)"
        model = decide(body, INPUT, "float[1,4,8,8] y", weights, "cpu-x86")
        assert set(why_float(model)) == {"Mul_s"}, operands


def test_a_sum_leaves_when_what_reads_its_absorbed_activation_leaves(decide, why_float):
    """Sigmoid leaves because Sin is float; the Add before the Relu must hear of it."""
    body = "a = Conv(x, w) b = Conv(x, v) s = Add(a, b) r = Relu(s) g = Sigmoid(r) y = Sin(g)"
    model = decide(body, INPUT, "float[1,4,8,8] y", CONV | {"v": (4, 3, 1, 1)}, "cpu-x86")
    assert set(why_float(model)) == {"Add_s", "Relu_r", "Sigmoid_g", "Sin_y"}
