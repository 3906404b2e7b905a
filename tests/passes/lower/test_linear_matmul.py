from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.target.integer import IntegerArithmetic
from tests.passes.lower.linear_graphs import Graph, attributes, codes_apart, integer_nodes, lowered, reasons, run

SCALE_X, SCALE_Y = 0.03, 0.05
Built = tuple[ir.Model, dict[str, tuple[int, ...]], float]


def product(
    seed: int,
    shape: tuple[int, ...],
    *,
    op: str = "MatMul",
    outputs: int = 5,
    kind: str = "i8",
    to: str = "i8",
    weights: str = "i8",
    span: tuple[int, int] = (-127, 128),
    per_tensor: bool = False,
    stored_bias: bool = False,
    added: Sequence[tuple[int, ...]] = (),
    behind: Callable[[Graph, str], str] = lambda _, value: value,
    **given: Any,
) -> Built:
    """``x @ w`` with a constant weight, a bias in any of the forms it comes in."""
    random = np.random.default_rng(seed)
    graph = Graph(random)
    scale_x, scale_y = SCALE_X / (200 if kind == "i16" else 1), SCALE_Y / (200 if to == "i16" else 1)
    x = graph.quantized("x", scale_x, -17, kind)
    turned = bool(given.get("transB"))
    codes = random.integers(*span, (outputs, shape[-1]) if turned else (shape[-1], outputs))
    scale = np.float32(0.012) if per_tensor else np.exp(random.uniform(-7, -3, outputs)).astype(np.float32)
    if to == "i16":  # the accumulator, and so the bias, is finer than the result
        scale = scale / np.float32(40)
    operands = [x, graph.weight(codes, scale, axis=0 if turned else 1, kind=weights)]
    if stored_bias:
        operands.append(graph.bias(random.integers(-3000, 3000, outputs), scale_x * scale))
    y = graph.node(op, operands, **given)
    for index, size in enumerate(added):
        y = graph.node("Add", [y, graph.constant(f"c{index}", random.normal(0, 1, size).astype(np.float32))])
    out = graph.quantized(behind(graph, y), scale_y, -3, to)
    return graph.model({"x": shape}, out, len(shape)), {"x": shape}, scale_y


PRODUCTS: dict[str, dict[str, Any]] = {
    "matmul": {"shape": (2, 3, 16)},
    "a vector": {"shape": (16,)},
    "a vector is added": {"shape": (2, 3, 16), "added": [(5,)]},
    "a row is added": {"shape": (2, 3, 16), "added": [(1, 1, 5)]},
    "positions are added": {"shape": (2, 3, 16), "added": [(5,), (1, 3, 5)]},
    "a number is added": {"shape": (2, 3, 16), "added": [(1,)]},
    "gemm": {"shape": (4, 16), "op": "Gemm", "stored_bias": True},
    "gemm, weight transposed": {"shape": (4, 16), "op": "Gemm", "stored_bias": True, "transB": 1},
    "gemm without bias": {"shape": (4, 16), "op": "Gemm", "transB": 1},
    "one scale": {"shape": (4, 16), "op": "Gemm", "stored_bias": True, "per_tensor": True},
    "16 bits in": {"shape": (2, 3, 16), "kind": "i16", "added": [(5,)]},
    "16 bits out": {"shape": (2, 3, 16), "to": "i16", "added": [(5,)]},
    "16 bits in and out": {"shape": (4, 16), "kind": "i16", "to": "i16"},
    "4 bits": {"shape": (2, 3, 16), "weights": "i4", "span": (-8, 8), "added": [(5,)]},
    "4 bits, transposed": {"shape": (4, 17), "op": "Gemm", "transB": 1, "weights": "i4", "span": (-8, 8)},
}


@pytest.mark.parametrize("given", PRODUCTS.values(), ids=PRODUCTS)
def test_a_product_is_within_one_code_of_its_float_form(given: dict[str, Any]) -> None:
    for seed in range(2):
        greatest, share = codes_apart(*product(seed, **given))
        assert greatest <= 1
        assert share < (0.1 if given.get("to") == "i16" else 0.02)  # 16 bits show that the bias is rounded


def two_activations(
    seed: int,
    a: tuple[int | str, ...],
    b: tuple[int | str, ...],
    kinds: tuple[str, str] = ("i8", "i8"),
    to: str = "i8",
    behind: Callable[[Graph, str], str] = lambda _, value: value,
) -> Built:
    graph = Graph(np.random.default_rng(seed))
    scale_y = SCALE_Y * 6 / (200 if to == "i16" else 1)
    operands = [
        graph.quantized(name, SCALE_X / (200 if kind == "i16" else 1), zero, kind)
        for name, kind, zero in zip("ab", kinds, (-9, 21), strict=True)
    ]
    out = graph.quantized(behind(graph, graph.node("MatMul", operands)), scale_y, 2, to)
    shapes: Any = {"a": a, "b": b}
    return graph.model(shapes, out, max(len(a), len(b))), shapes, scale_y


@pytest.mark.parametrize("kinds", [("i8", "i8"), ("i16", "i8"), ("i8", "i16"), ("i16", "i16")], ids="-".join)
@pytest.mark.parametrize("to", ["i8", "i16"])
def test_a_product_of_activations_is_within_one_code_of_its_float_form(kinds: tuple[str, str], to: str) -> None:
    model, shapes, scale = two_activations(4, (2, 3, 5, 16), (3, 16, 4), kinds, to)
    assert codes_apart(model, shapes, scale)[0] <= 1
    assert integer_nodes(lowered(model)[0]) == ["QMatMulWide" if "i16" in kinds else "QMatMul"]


def test_a_constant_with_one_scale_is_an_activation_like_any_other() -> None:
    graph = Graph(np.random.default_rng(0))
    x = graph.quantized("x", SCALE_X, 3)
    w = graph.weight(graph.random.integers(-127, 128, (2, 16, 4)), 0.01)
    model = graph.model({"x": (2, 5, 16)}, graph.quantized(graph.node("MatMul", [x, w]), SCALE_Y, 0), 3)
    assert codes_apart(model, {"x": (2, 5, 16)}, SCALE_Y)[0] <= 1
    assert integer_nodes(lowered(model)[0]) == ["QMatMul"]


def test_a_constant_of_16_bits_is_an_activation_like_any_other() -> None:
    graph = Graph(np.random.default_rng(0))
    w = graph.weight(graph.random.integers(-9000, 9000, (16, 4)), 0.0003, kind="i16")
    model = graph.model(
        {"x": (5, 16)}, graph.quantized(graph.node("MatMul", [graph.quantized("x", SCALE_X, 3), w]), SCALE_Y, 0), 2
    )
    assert codes_apart(model, {"x": (5, 16)}, SCALE_Y)[0] <= 1
    assert integer_nodes(lowered(model)[0]) == ["QMatMulWide"]


def test_a_constant_may_be_the_left_operand() -> None:
    graph = Graph(np.random.default_rng(0))
    w = graph.weight(graph.random.integers(-127, 128, (4, 16)), 0.01)
    model = graph.model(
        {"x": (2, 16, 5)}, graph.quantized(graph.node("MatMul", [w, graph.quantized("x", SCALE_X, 3)]), SCALE_Y, 0), 3
    )
    assert codes_apart(model, {"x": (2, 16, 5)}, SCALE_Y)[0] <= 1
    assert integer_nodes(lowered(model)[0]) == ["QMatMul"]


@pytest.mark.parametrize("kind", ["i8", "i16"])
def test_a_sum_of_unknown_length_says_how_long_it_may_get(kind: str) -> None:
    model, _, scale = two_activations(1, ("N", 3, "T"), ("N", "T", 4), (kind, kind))
    form, ctx = lowered(model)
    assert any("sums of up to" in text for text in reasons(ctx))
    random = np.random.default_rng(0)
    feed = {name: random.normal(0, 1, size).astype(np.float32) for name, size in (("a", (2, 3, 40)), ("b", (2, 40, 4)))}
    assert np.abs(run(form, feed) - run(model, feed, optimize=False)).max() <= scale * 1.01


def relu(graph: Graph, value: str) -> str:
    return graph.node("Relu", [value])


def test_a_relu_becomes_the_least_code() -> None:
    form, _ = lowered(product(0, (2, 16), behind=relu)[0])
    assert (attributes(form)["low"], attributes(form)["high"]) == (-3, 127)


@pytest.mark.parametrize("to", ["i8", "i16"])
def test_bounds_per_channel_become_a_minimum_of_codes(to: str) -> None:
    def bounds(graph: Graph, value: str) -> str:
        return graph.node("Min", [value, graph.constant("most", np.linspace(0, 3, 5, dtype=np.float32))])

    model, shapes, scale = product(0, (2, 16), to=to, behind=bounds)
    greatest, _ = codes_apart(model, shapes, scale)
    assert greatest <= 1
    assert "Min" in [node.op_type for node in lowered(model)[0].graph]


def test_rescales_of_powers_of_two_have_no_multiplier() -> None:
    graph = Graph(np.random.default_rng(0))
    x = graph.quantized("x", 2.0**-5, -17)
    scale = np.exp2(graph.random.integers(-9, -5, 5)).astype(np.float32)
    w = graph.weight(graph.random.integers(-127, 128, (16, 5)), scale, axis=1)
    model = graph.model({"x": (3, 16)}, graph.quantized(graph.node("MatMul", [x, w]), 2.0**-4, 1), 2)
    form, _ = lowered(model, IntegerArithmetic(multiplier_bits=0))
    assert integer_nodes(form) == ["QGemmShift"]
    feed = {"x": graph.random.normal(0, 1, (3, 16)).astype(np.float32)}
    assert np.abs(run(form, feed) - run(model, feed, optimize=False)).max() <= 2.0**-4


REFUSED: dict[str, tuple[Callable[[], Built], IntegerArithmetic | None, str]] = {
    "a scale for every input channel": (
        lambda: _with_input_scales(),
        None,
        "do not belong to output channels",
    ),
    "a transposed activation": (lambda: product(0, (16, 16), op="Gemm", transA=1), None, "transposes its activation"),
    "a factor": (lambda: product(0, (4, 16), op="Gemm", alpha=2.0), None, "scales its terms"),
    "a constant that widens the result": (lambda: product(0, (1, 16), added=[(3, 5)]), None, "may widen"),
    "a constant per row": (lambda: product(0, (3, 16), added=[(3, 1)]), None, "for all channels"),
    "a weight of 16 bits in a Gemm": (lambda: product(0, (3, 16), op="Gemm", weights="i16"), None, "8 bits or fewer"),
    "an accumulator that is too narrow": (
        lambda: product(0, (4, 64)),
        IntegerArithmetic(accumulator_bits=16),
        "the target's has 16 bits",
    ),
    "no products of 16 bits": (
        lambda: product(0, (4, 16), kind="i16"),
        IntegerArithmetic(wide_accumulator_bits=0),
        "multiplies no 16-bit",
    ),
    "no products of two activations of 16 bits": (
        lambda: two_activations(0, (3, 4), (4, 2), ("i16", "i16")),
        IntegerArithmetic(wide_accumulator_bits=0),
        "multiplies no 16-bit",
    ),
    "a sum of activations that is too long": (
        lambda: two_activations(0, (3, 40), (40, 2)),
        IntegerArithmetic(accumulator_bits=20),
        "the target's has 20 bits",
    ),
    "a constant behind a product of activations": (
        lambda: two_activations(
            0,
            (3, 4),
            (4, 2),
            behind=lambda graph, y: graph.node("Add", [y, graph.constant("c", np.ones(2, np.float32))]),
        ),
        None,
        "product of two activations",
    ),
    "a rescale that is no power of two": (
        lambda: product(0, (4, 16)),
        IntegerArithmetic(multiplier_bits=0),
        "power of two",
    ),
}


def _with_input_scales() -> Built:
    graph = Graph(np.random.default_rng(0))
    x = graph.quantized("x", SCALE_X, 3)
    w = graph.weight(graph.random.integers(-127, 128, (8, 4)), np.linspace(0.1, 1, 8), axis=0)
    return graph.model({"x": (2, 8)}, graph.quantized(graph.node("MatMul", [x, w]), 1.0, 0), 2), {"x": (2, 8)}, 1.0


@pytest.mark.parametrize(("build", "arithmetic", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_integer_form_says_why(
    build: Callable[[], Built], arithmetic: IntegerArithmetic | None, reason: str
) -> None:
    form, ctx = lowered(build()[0], arithmetic)
    assert integer_nodes(form) == []
    assert any(reason in text for text in reasons(ctx)), reasons(ctx)


def test_large_weights_are_packed_when_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from qcompiler.ir.edit import Edit

    eager, _ = lowered(product(3, (4, 16), weights="i4", span=(-8, 8))[0])
    monkeypatch.setattr(Edit, "lazy_above", 1)
    lazy, _ = lowered(product(3, (4, 16), weights="i4", span=(-8, 8))[0])
    weights = []
    for form in (eager, lazy):
        value = next(node for node in form.graph if node.op_type == "QGemmPacked").inputs[1]
        assert value is not None
        assert value.const_value is not None
        weights.append(value.const_value)
    assert isinstance(weights[1], ir.LazyTensor)
    np.testing.assert_array_equal(weights[0].numpy(), weights[1].numpy())
