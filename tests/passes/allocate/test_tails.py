"""Behind the last float island a graph without further matrix products stays float."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import onnx_ir as ir
import pytest

from qcompiler.quant import state
from qcompiler.target.integer import Lowering
from qcompiler.target.load import load
from qcompiler.target.schema import Target


def target(lowering: str) -> Target:
    return dataclasses.replace(load("edge-npu"), lowering=Lowering(lowering))


def floats(model: ir.Model) -> set[str]:
    return {
        str(node.name)
        for node in model.graph
        if (decision := state.node_decision(node)) is not None and not decision.integer
    }


@pytest.fixture
def decided(decide: Callable[..., ir.Model]) -> Callable[[str, str], ir.Model]:
    def make(text: str, lowering: str) -> ir.Model:
        return decide(text, "float[2,4] x", "float[2,4] y", {"w": (4, 4), "v": (4, 4)}, target(lowering))

    return make


ISLAND = "a = MatMul(x, w) c = Asinh(a) p = Mul(c, c) r = Sqrt(p) y = Mul(r, r)"
MATMUL = "a = MatMul(x, w) c = Asinh(a) p = Mul(c, c) y = MatMul(p, v)"


def test_what_follows_an_island_and_feeds_no_product_is_float(decided: Callable[[str, str], ir.Model]) -> None:
    model = decided(ISLAND, "integer")
    assert {"Asinh_c", "Mul_p", "Sqrt_r", "Mul_y"} <= floats(model)
    assert "MatMul_a" not in floats(model)
    reasons = {node.name: state.node_decision(node).reason for node in model.graph}  # type: ignore[union-attr]
    assert "outputs" in reasons["Mul_p"]


def test_a_matrix_product_behind_an_island_is_worth_the_way_back(decided: Callable[[str, str], ir.Model]) -> None:
    model = decided(MATMUL, "integer")
    assert floats(model) == {"Asinh_c"}


def test_graphs_of_float_operators_between_codes_stay_as_they_are(decided: Callable[[str, str], ir.Model]) -> None:
    assert "Mul_p" not in floats(decided(ISLAND, "qdq"))


def test_a_bias_behind_the_last_product_stays_with_it(decide: Callable[..., ir.Model]) -> None:
    text = "a = MatMul(x, w) c = Asinh(a) b = MatMul(c, v) y = Add(b, bias)"
    model = decide(text, "float[2,4] x", "float[2,4] y", {"w": (4, 4), "v": (4, 4), "bias": (4,)}, target("integer"))
    assert floats(model) == {"Asinh_c"}


def test_what_moves_or_adds_the_codes_of_the_last_product_stays(decided: Callable[[str, str], ir.Model]) -> None:
    """It lies behind an island only by way of codes; in float, it would read an int8 pair (see ``finalize``)."""
    model = decided("a = MatMul(x, w) c = Asinh(a) b = MatMul(c, v) s = Add(b, b) y = Transpose(s)", "integer")
    assert floats(model) == {"Asinh_c"}


def test_what_also_reads_an_island_behind_the_last_product_is_float(decided: Callable[[str, str], ir.Model]) -> None:
    model = decided("a = MatMul(x, w) c = Asinh(a) b = MatMul(c, v) y = Mul(b, c)", "integer")
    assert floats(model) == {"Asinh_c", "Mul_y"}
