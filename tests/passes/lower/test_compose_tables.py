from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.ir import facts
from qcompiler.passes.lower.compose_tables import ComposeTables
from qcompiler.pipeline.base import Context, Fact
from qcompiler.quant.annotations import annotation
from tests.passes.lower.graphs import Parameters, feed_of, graph, lower, operators, run

BYTE = Parameters(0.05, 3)
WORD = Parameters(0.0002, -300, "i16")
NUMBERS = {"three": np.float32(3), "six": np.float32(6), "none": np.float32(0), "sixth": np.float32(1 / 6)}


def coded(real: str, codes: str) -> str:
    """A Q/DQ pair with the parameters ``p_...``."""
    told = f"{codes}_s, {codes}_z"
    return f"{codes}_q = QuantizeLinear ({real}, {told}) {codes} = DequantizeLinear ({codes}_q, {told})"


def parameters(**named: Parameters) -> dict[str, np.generic]:
    found: dict[str, np.generic] = {}
    for name, item in named.items():
        found[f"{name}_s"] = np.float32(item.scale)
        found[f"{name}_z"] = np.int8(item.zero_point) if item.kind == "i8" else np.int16(item.zero_point)
    return found


HARD_SWISH = " ".join(
    [
        "u = Add (a, three)", coded("u", "b"), "v = Clip (b, none, six)", coded("v", "c"), "w = Mul (a, c)",
        coded("w", "d"), "y = Mul (d, sixth)",
    ]
)  # fmt: skip
SILU = f"u = Sigmoid (a) {coded('u', 'b')} y = Mul (a, b)"
MISH = f"u = Softplus (a) {coded('u', 'b')} v = Tanh (b) {coded('v', 'c')} y = Mul (a, c)"
CASES = {
    "hard-swish": (HARD_SWISH, {**NUMBERS, **parameters(b=WORD, c=WORD, d=WORD)}),
    "silu": (SILU, parameters(b=Parameters(1 / 65535, -32768, "i16"))),
    "silu-bytes": (SILU, parameters(b=Parameters(1 / 255, -128))),
    "mish": (MISH, parameters(b=Parameters(0.0002, -30000, "i16"), c=Parameters(1 / 127))),
}


def composed(
    body: str, constants: dict[str, np.generic], source: Parameters = BYTE
) -> tuple[ir.Model, list[np.ndarray], dict[str, np.ndarray], Context]:
    """The composed model, what the lowered one computed before, and for which feed."""
    inputs = {"a": (("N", 5, 40), source)}
    model = graph(body, inputs, {"y": Parameters(0.03, -90)}, constants)
    feed = feed_of(inputs, np.random.default_rng(2))
    ctx = lower(model)
    before = run(model, feed)
    ComposeTables().run(model, ctx)
    assert facts.check(Fact.LOWERED, model) == []
    return model, before, feed, ctx


@pytest.mark.parametrize("name", CASES)
def test_a_chain_becomes_one_table_with_the_same_bits(name: str) -> None:
    model, before, feed, ctx = composed(*CASES[name])
    assert operators(model) == ["QLookup"]
    np.testing.assert_array_equal(run(model, feed)[0], before[0])
    meaning = annotation(next(node for node in model.graph if node.op_type == "QLookup").outputs[0])
    assert meaning is not None
    assert meaning.of == "y"
    edits = ctx.edit.count
    ComposeTables().run(model, ctx)
    assert ctx.edit.count == edits


def test_sixteen_bits_have_too_many_codes() -> None:
    model, _, _, _ = composed(*CASES["silu"], source=WORD)
    assert operators(model) == ["QLookupInterpolated", "QMul"]


def test_what_others_read_stays_and_the_rest_is_composed() -> None:
    constants = {**CASES["mish"][1], **parameters(e=Parameters(0.02))}
    inputs = {"a": ((9,), BYTE)}
    outputs = {"y": Parameters(0.03, -90), "z": Parameters(0.02)}
    model = graph(f"{MISH} z = Neg (b)", inputs, outputs, constants)
    feed = feed_of(inputs, np.random.default_rng(3))
    ctx = lower(model)
    before = run(model, feed)
    ComposeTables().run(model, ctx)
    for one, other in zip(run(model, feed), before, strict=True):
        np.testing.assert_array_equal(one, other)
    assert "QMul" in operators(model)


def test_two_tensors_are_no_chain() -> None:
    inputs = {"a": ((9,), BYTE), "k": ((9,), BYTE)}
    body = SILU.replace("Mul (a, b)", "Mul (k, b)")
    model = graph(body, inputs, {"y": Parameters(0.03)}, CASES["silu-bytes"][1])
    ctx = lower(model)
    ComposeTables().run(model, ctx)
    assert operators(model) == ["QLookup", "QMul"]


def test_factors_per_channel_are_no_chain() -> None:
    constants = {**CASES["silu-bytes"][1], "f": np.float32([1, 2, 3, 4])}
    body = f"u = Sigmoid (a) {coded('u', 'b')} y = Mul (b, f)"
    model = graph(body, {"a": ((3, 4), BYTE)}, {"y": Parameters(0.03, -90)}, constants)
    ctx = lower(model)
    ComposeTables().run(model, ctx)
    assert operators(model) == ["QLookup", "QMul"]


def test_rescales_alone_are_left() -> None:
    body = f"u = Mul (a, six) {coded('u', 'b')} y = Mul (b, sixth)"
    model, _, _, _ = composed(body, {**NUMBERS, **parameters(b=Parameters(0.3, 3))})
    assert set(operators(model)) == {"Requantize"}
