"""One form for fully connected layers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from qcompiler.passes.normalize.canonicalize_matmul import CanonicalizeMatmul
from qcompiler.passes.normalize.import_model import ImportModel

NUMBERS = np.random.default_rng(0).standard_normal(12)
WEIGHT = ", ".join(f"{value:.4f}" for value in NUMBERS)


def _text(body: str, size: str = "N, 4", outputs: str = "float[N, 3] y") -> str:
    return f"""
        <ir_version: 10, opset_import: ["" : 21]>
        g (float[{size}] x) => ({outputs})
        <float[4, 3] w = {{{WEIGHT}}}, float[3, 4] wt = {{{WEIGHT}}},
         float[3] b = {{1, 2, 3}}, float[1, 3] row = {{1, 2, 3}},
         float[1] one = {{5}}, float number = {{7}}, float[2, 3] table = {{1, 2, 3, 4, 5, 6}},
         float[2, 1] column = {{1, 2}}>
        {{ {body} }}"""


GEMMS = {
    "matmul-add": "m = MatMul (x, w)  y = Add (m, b)",
    "add-on-the-left": "m = MatMul (x, w)  y = Add (b, m)",
    "row-bias": "m = MatMul (x, w)  y = Add (m, row)",
    "gemm": "y = Gemm (x, w, b)",
    "factors": "y = Gemm <alpha = 0.5, beta = 3.0, transB = 1> (x, wt, b)",
    "one-number": "y = Gemm (x, w, one)",
    "scalar": "y = Gemm (x, w, number)",
    "row": "y = Gemm (x, w, row)",
    "zero-beta": "y = Gemm <beta = 0.0> (x, w, b)",
    "no-bias": "y = Gemm <alpha = 2.0> (x, w)",
}


@pytest.mark.parametrize("name", GEMMS)
def test_rank_two_with_bias_is_one_plain_gemm(
    name: str, parse: Callable, apply: Callable, equal: Callable, kinds: Callable
) -> None:
    model = parse(_text(GEMMS[name]))
    apply(model, ImportModel(), CanonicalizeMatmul())
    assert kinds(model) == {"Gemm": 1}
    node = model.graph.node(0)
    assert {key: attribute.value for key, attribute in node.attributes.items()} == {"transB": 1}
    assert [list(value.shape) for value in node.inputs[1:]] == ([[3, 4], [3]] if len(node.inputs) > 2 else [[3, 4]])
    equal(parse(_text(GEMMS[name])), model)


def test_the_gemm_is_called_like_the_layer(parse: Callable, apply: Callable) -> None:
    model = parse(_text("[fc] m = MatMul (x, w)  [plus] y = Add (m, b)"))
    apply(model, ImportModel(), CanonicalizeMatmul())
    assert model.graph.node(0).name == "fc"
    assert model.graph.node(0).outputs[0].name == "y"


@pytest.mark.parametrize("bias", ["b", "row"])
def test_higher_rank_stays_matmul_and_add(
    bias: str, parse: Callable, apply: Callable, equal: Callable, kinds: Callable
) -> None:
    text = _text(f"m = MatMul (x, w)  y = Add ({bias}, m)", "N, 5, 4", "float[N, 5, 3] y")
    model = parse(text)
    apply(model, ImportModel(), CanonicalizeMatmul())
    assert kinds(model) == {"MatMul": 1, "Add": 1}
    add = model.graph.node(1)
    assert add.inputs[0] is model.graph.node(0).outputs[0]
    assert list(add.inputs[1].shape) == [3]
    equal(parse(text), model)


STAY = {
    "no bias": ("y = MatMul (x, w)", {"MatMul": 1}),
    "bias of another shape": ("m = MatMul (x, w)  y = Add (m, one)", {"MatMul": 1, "Add": 1}),
    "bias not constant": (
        "r = ReduceSum <keepdims = 0> (x)  m = MatMul (x, w)  y = Add (m, r)",
        {"ReduceSum": 1, "MatMul": 1, "Add": 1},
    ),
    "result used twice": ("m = MatMul (x, w)  a = Add (m, b)  y = Mul (a, m)", {"MatMul": 1, "Add": 1, "Mul": 1}),
    "table": ("m = MatMul (x, w)  y = Add (m, table)", {"MatMul": 1, "Add": 1}),
}


@pytest.mark.parametrize("name", STAY)
def test_what_is_no_bias_stays(name: str, parse: Callable, apply: Callable, equal: Callable, kinds: Callable) -> None:
    body, expected = STAY[name]
    model = parse(_text(body))
    apply(model, ImportModel(), CanonicalizeMatmul())
    assert kinds(model) == expected
    equal(parse(_text(body)), model)


def test_an_input_is_transposed_by_a_node(parse: Callable, apply: Callable, equal: Callable, kinds: Callable) -> None:
    text = _text("y = Gemm <transA = 1> (x, w, b)", "4, 6")
    model = parse(text)
    apply(model, ImportModel(), CanonicalizeMatmul())
    assert kinds(model) == {"Transpose": 1, "Gemm": 1}
    equal(parse(text), model)


def test_shared_weights_and_biases_are_not_changed_for_others(
    parse: Callable, apply: Callable, equal: Callable, skips: Callable
) -> None:
    text = _text(
        "a = Gemm <alpha = 2.0> (x, w, b)  c = Gemm (x, w, row)  m = MatMul (x, w)"
        "  d = Mul (m, b)  e = Add (a, c)  y = Add (d, e)"
    )
    model = parse(text)
    found = skips(apply(model, ImportModel(), CanonicalizeMatmul()))
    assert any("shared" in text for text in found)
    equal(parse(text), model)


def test_factors_of_computed_operands_stay(parse: Callable, apply: Callable, equal: Callable, skips: Callable) -> None:
    text = _text("y = Gemm <alpha = 0.5, transB = 1> (x, x)", "4, 4", "float[4, 4] y")
    model = parse(text)
    found = skips(apply(model, ImportModel(), CanonicalizeMatmul()))
    assert any("alpha=0.5 multiplies a tensor that is not constant" in reason for reason in found)
    equal(parse(text), model)


@pytest.mark.parametrize("table", ["table", "column"])
def test_a_bias_that_differs_by_row_is_added_behind(
    table: str, parse: Callable, apply: Callable, equal: Callable, kinds: Callable
) -> None:
    text = _text(f"[fc] y = Gemm <beta = 2.0> (x, w, {table})", "2, 4", "float[2, 3] y")
    model = parse(text)
    for _ in range(2):
        apply(model, ImportModel(), CanonicalizeMatmul())
        assert kinds(model) == {"Gemm": 1, "Add": 1}
    assert [node.name for node in model.graph] == ["fc", "fc_bias"]
    assert model.graph.outputs[0].name == "y"
    equal(parse(text), model)
