"""Sum, dead code, clamps, shared biases."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from qcompiler.passes.normalize.canonicalize_activations import CanonicalizeActivations
from qcompiler.passes.normalize.import_model import ImportModel
from qcompiler.passes.normalize.remove_dead_code import RemoveDeadCode
from qcompiler.passes.normalize.sum_to_add import SumToAdd
from qcompiler.passes.normalize.unshare_biases import UnshareBiases

HEADER = '<ir_version: 10, opset_import: ["" : 21]>'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("a = Sum (x, z)  y = Relu (a)", {"Add": 1, "Relu": 1}),
        ("y = Sum (x, z)", {"Add": 1}),
        ("a = Sum (x)  y = Relu (a)", {"Relu": 1}),
        ("y = Sum (x)", {"Identity": 1}),
        ("a = Exp (x)  y = Sum (a)", {"Exp": 1}),
        ("y = Sum (x, z, x, z)", {"Add": 3}),
    ],
)
def test_sum_becomes_add(
    body: str, expected: dict, parse: Callable, apply: Callable, equal: Callable, kinds: Callable
) -> None:
    text = f"{HEADER} g (float[2, 3] x, float[2, 3] z) => (float[2, 3] y) {{ {body} }}"
    model = parse(text)
    apply(model, ImportModel(), SumToAdd())
    assert kinds(model) == expected
    equal(parse(text), model)


def test_the_add_keeps_the_names_of_the_sum(parse: Callable, apply: Callable) -> None:
    model = parse(f"{HEADER} g (float[2] x) => (float[2] y) {{ [join] a = Sum (x, x, x)  y = Relu (a) }}")
    apply(model, ImportModel(), SumToAdd())
    last = model.graph.node(1)
    assert (last.name, last.outputs[0].name) == ("join", "a")


def test_dead_code_goes_and_captured_values_stay(parse: Callable, apply: Callable, kinds: Callable) -> None:
    text = f"""{HEADER}
        g (float[2] x, bool flag) => (float[2] y)
        <float[2] w = {{1, 2}}, float[2] unused = {{1, 2}}>
        {{
            captured = Exp (x)
            a = Mul (x, unused)
            b = Neg (a)
            parts, more = Split <axis = 0, num_outputs = 2> (x)
            y = If (flag) <then_branch = t () => (float[2] p) {{ p = Add (captured, w) }},
                           else_branch = e () => (float[2] q) {{ q = Neg (captured) }}>
        }}"""
    model = parse(text)
    apply(model, RemoveDeadCode())
    assert kinds(model) == {"Exp": 1, "If": 1}
    assert set(model.graph.initializers) == {"w"}


CLAMPS = [
    ("y = Clip (x, zero)", {"Relu": 1}),
    ("y = Max (zero, x)", {"Relu": 1}),
    ("y = Max (x, zero1)", {"Relu": 1}),
    ("y = Min (x, six)", {"Clip": 1}),
    ("a = Relu (x)  y = Clip (a, zero, six)", {"Clip": 1}),
    ("a = Relu (x)  y = Min (a, six)", {"Clip": 1}),
    ("a = Max (x, zero)  b = Min (six, a)  c = Relu (b)  y = Relu (c)", {"Clip": 1}),
    ("a = Clip (x, , six)  y = Relu (a)", {"Clip": 1}),
    ("y = Clip (x, six, zero)", {"Clip": 1}),
    ("a = Clip (x, one, six)  y = Clip (a, , zero)", {"Clip": 1}),
    ("y = Clip (x)", {"Clip": 1}),
    ("a = Relu (x)  b = Clip (a, zero, six)  y = Add (a, b)", {"Relu": 1, "Clip": 1, "Add": 1}),
    ("y = Max (x, row)", {"Max": 1}),
    ("y = Max (x, x)", {"Max": 1}),
    ("a = Min (x, six)  y = HardSwish (a)", {"Clip": 1, "HardSwish": 1}),
]


@pytest.mark.parametrize(("body", "expected"), CLAMPS)
def test_clamps_have_one_form(
    body: str, expected: dict, parse: Callable, apply: Callable, equal: Callable, kinds: Callable
) -> None:
    text = f"""{HEADER}
        g (float[2, 3] x) => (float[2, 3] y)
        <float zero = {{0}}, float[1] zero1 = {{0}}, float one = {{1}}, float six = {{0.6}}, float[3] row = {{0, 1, 2}}>
        {{ {body} }}"""
    model = parse(text)
    apply(model, ImportModel(), CanonicalizeActivations())
    assert kinds(model) == expected
    equal(parse(text), model, limit=0.0)


def test_bounds_that_are_computed_stay(parse: Callable, apply: Callable, skips: Callable) -> None:
    model = parse(f"{HEADER} g (float[2] x, float low) => (float[2] y) {{ y = Clip (x, low) }}")
    assert any("not constant" in text for text in skips(apply(model, ImportModel(), CanonicalizeActivations())))


def test_layers_get_their_own_bias_and_weights_split_by_role(parse: Callable, apply: Callable, equal: Callable) -> None:
    text = f"""{HEADER}
        g (int64[2] i) => (float[2, 2] y)
        <float[2, 2] table = {{1, 2, 3, 4}}, float[2] b = {{0.5, 1}}>
        {{
            x = Gather (table, i)
            p = Gemm <transB = 1> (x, table, b)
            q = Gemm <transB = 1> (p, table, b)
            r = MatMul (q, table)
            s = Add (r, b)
            t = Gemm (s, table, b)
            y = Mul (t, b)
        }}"""
    model = parse(text)
    apply(model, ImportModel(), UnshareBiases())
    nodes = {node.outputs[0].name: node for node in model.graph}
    biases = [nodes[name].inputs[2] for name in "pqt"] + [nodes["s"].inputs[1]]
    assert len(set(biases)) == 4
    assert nodes["p"].inputs[1] is nodes["q"].inputs[1]  # the same axis: one tensor is enough
    assert nodes["r"].inputs[1] is nodes["t"].inputs[1]
    assert len({nodes[name].inputs[1] for name in "pr"} | {nodes["x"].inputs[0]}) == 3
    equal(parse(text), model)


def test_a_bias_that_others_see_is_copied(parse: Callable, apply: Callable, equal: Callable) -> None:
    """A public weight, an operand elsewhere, a tensor of a body: none may change when the bias is corrected."""
    public, operand, inner = "z = Identity (c)", "z = Mul (y, c)", "z = If (k) <then_branch = t () => (float[2, 3] p)"
    inner += " { p = Add (x, c) }, else_branch = e () => (float[2, 3] q) { q = Neg (x) }>"
    for size, other in (("3", public), ("2, 3", operand), ("2, 3", inner)):
        text = f"""{HEADER} g (float[2, 3] x, bool[1] k) => (float[2, 3] y, float[{size}] z)
            <float[3, 3] w = {{1, 2, 3, 4, 5, 6, 7, 8, 9}}, float[3] b = {{1, 2, 3}}>
            {{ c = Identity (b)  y = Gemm (x, w, c)  {other} }}"""
        model = parse(text)
        apply(model, ImportModel(), UnshareBiases())
        layer = next(node for node in model.graph if node.op_type == "Gemm")
        bias = layer.inputs[2]
        assert len(list(bias.uses())) == 1
        assert not bias.is_graph_output()
        equal(parse(text), model)
