"""Which nodes a weight-only format concerns, and what is said of all others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import onnx_ir as ir
import pytest

from qcompiler.errors import PassError, UsageError
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.pipeline.base import Context
from qcompiler.quant import state
from qcompiler.target.load import load

TARGET = replace(load("lowbit-cpu"), default_format="w4")
BODY = """
a = MatMul (x, wa)
s = Softmax (a)
m = MatMul (s, a)
y = MatMul (m, wb)
"""
WEIGHTS = {"wa": (64, 40), "wb": (40, 3)}


def weight_formats(model: ir.Model) -> dict[str, str]:
    found = {str(node.name): state.own_edge_quant(node, 1) for node in model.graph if len(node.inputs) > 1}
    return {name: str(quant.format) for name, quant in found.items() if isinstance(quant, state.TensorQuant)}


def test_products_with_a_constant_matrix_and_nothing_else(
    decide: Callable[..., ir.Model], why_float: Callable[..., dict[str, str]], kept: Callable[..., object]
) -> None:
    model = decide(BODY, "float[40, 64] x", "float[40, 3] y", WEIGHTS, TARGET)
    assert weight_formats(model) == {"MatMul_a": "i4/axis=0/block=32", "MatMul_y": "i4/axis=0/block=32"}
    assert kept(model) == {}  # no activation
    reasons = why_float(model)
    assert reasons["MatMul_m"] == "it multiplies two activations"
    assert reasons["Softmax_s"] == "it has no weight: activations stay real numbers"


def test_what_is_excluded_stays_float(
    decide: Callable[..., ir.Model], why_float: Callable[..., dict[str, str]]
) -> None:
    model = decide(BODY, "float[40, 64] x", "float[40, 3] y", WEIGHTS, TARGET, ("MatMul_a",))
    assert list(weight_formats(model)) == ["MatMul_y"]
    assert why_float(model)["MatMul_a"] == "excluded by 'MatMul_a'"


@pytest.mark.parametrize(
    ("body", "shape", "words"),
    [
        ("y = Conv (x, w)", (4, 3, 1, 1), "no Conv of real activations and weights of few bits"),
        ("y = MatMul (x, w)", (2, 3, 8, 5), "its weight is no matrix"),
        ("y = MatMul (x, w)", (8,), "its weight is no matrix"),
        ("y = MatMul (w, x)", (5, 8), "its constant matrix comes first"),
    ],
)
def test_what_is_no_matrix_product_stays_float(
    decide: Callable[..., ir.Model], body: str, shape: tuple[int, ...], words: str
) -> None:
    with pytest.raises(PassError, match=words):
        decide(body, "float[2, 3, 8, 8] x", "float y", {"w": shape}, TARGET)


def test_a_gemm_must_be_a_plain_product(decide: Callable[..., ir.Model]) -> None:
    with pytest.raises(PassError, match="its attribute alpha is 2"):
        decide("y = Gemm <alpha = 2.0> (x, w)", "float[2, 8] x", "float[2, 5] y", {"w": (8, 5)}, TARGET)


def test_a_row_too_long_for_exact_sums_stays_float(decide: Callable[..., ir.Model]) -> None:
    with pytest.raises(PassError, match="65794 products, at most 65793 are exact"):
        decide("y = MatMul (x, w)", "float[2, 65794] x", "float[2, 2] y", {"w": (65794, 2)}, TARGET)


def test_short_rows_have_one_scale(decide: Callable[..., ir.Model]) -> None:
    model = decide("y = MatMul (x, w)", "float[2, 32] x", "float[2, 5] y", {"w": (32, 5)}, TARGET)
    assert weight_formats(model) == {"MatMul_y": "i4/axis=1"}


def test_other_targets_refuse_the_format() -> None:
    model = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 21}), ir_version=10)
    with pytest.raises(UsageError, match="edge-npu computes on codes"):
        AssignFormats().run(model, Context(None, target=load("edge-npu"), format="w4"))  # type: ignore[arg-type]
