"""Additive masks before Softmax in the spellings of exporters, and numbers that are large for other reasons."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.calibration import data
from qcompiler.ir import io, regions
from qcompiler.ir.edit import Edit
from qcompiler.passes.normalize.recognize_masks import RecognizeMasks
from qcompiler.pipeline.base import Context, Pass

Parse = Callable[[str], ir.Model]
Apply = Callable[..., Context]

HEAD = """<ir_version: 10, opset_import: ["" : 21]>
agraph (float[2, 4, 8, 8] s, int64[2, 8] ids, float[2, 1, 8, 8] soft, float[2, 4, 8, 16] h) => (float[2, 4, 8, 8] y)
<float one = {1}, float zero = {0}, float big = {-10000}, float positive = {10000}, float least = {-3.4028235e38},
 float two = {2}, float half = {0.5}, int64[2] middle = {1, 2}, float[1, 1, 1, 8] row = {0, 0, 0, 0, 0, 0, -1e9, -1e9},
 float[8] slope = {0, -200, -400, -600, -800, -1000, -1200, -1400}, float[8] mixed = {0, 1, 2, 3, -1e9, -1e9, 5, 6},
 float[8] small = {0, 0, 0, 0, -100, -100, -100, -100}, float[8] both = {1e9, -1e9, 0, 0, 0, 0, 0, 0},
 int64[1] zero_i = {0}, int64[1] six = {6}, float[16, 8] w = {LARGE}>""".replace("LARGE", ", ".join(["1000"] * 128))

FLAGS = "f = Cast <to = 1> (ids) u = Unsqueeze (f, middle)"

FOUND: dict[str, tuple[str, float, set[str], set[str]]] = {
    # name: (body, constant, operands marked, sums marked)
    "initializer": ("a = Add (s, row) y = Softmax (a)", -1e9, {"row"}, {"a"}),
    "initializer-first": ("a = Add (row, s) y = Softmax (a)", -1e9, {"row"}, {"a"}),
    "mixed": ("a = Add (s, mixed) y = Softmax (a)", -1e9, {"mixed"}, {"a"}),
    "bert": (f"{FLAGS} i = Sub (one, u) m = Mul (i, big) a = Add (s, m) y = Softmax (a)", -1e4, {"m"}, {"a"}),
    "bert-shifted": (
        f"{FLAGS} i = Sub (u, one) m = Mul (positive, i) a = Add (s, m) y = Softmax (a)", -1e4, {"m"}, {"a"},
    ),
    "moved": (
        ("f = Cast <to = 1> (ids) i = Sub (one, f) m = Mul (i, least) u = Unsqueeze (m, middle) "
        "a = Add (s, u) y = Softmax (a)"),
        float(np.float32(-3.4028235e38)), {"m", "u"}, {"a"},
    ),
    "subtracted": (
        f"{FLAGS} i = Sub (one, u) m = Mul (i, positive) a = Sub (s, m) y = Softmax (a)", -1e4, set(), {"a"},
    ),
    "where-operand": (
        "k = Cast <to = 9> (ids) u = Unsqueeze (k, middle) m = Where (u, zero, big) a = Add (s, m) y = Softmax (a)",
        -1e4, {"m"}, {"a"},
    ),
    "where-over-scores": (
        "k = Cast <to = 9> (ids) u = Unsqueeze (k, middle) a = Where (u, s, big) y = Softmax (a)", -1e4, set(), {"a"},
    ),
    "compared": (
        ("k = Equal (ids, zero_i) c = Cast <to = 1> (k) u = Unsqueeze (c, middle) m = Mul (u, big) "
        "a = Add (s, m) y = Softmax (a)"),
        -1e4, {"m"}, {"a"},
    ),
    "two-masks": (
        (f"{FLAGS} i = Sub (one, u) m = Mul (i, big) t = Add (m, row) "
        "a = Add (s, t) y = Softmax (a)"), -1e9, {"t"}, {"a"},
    ),
    "behind": (
        "a = Add (s, row) d = Transpose <perm = [0, 1, 3, 2]> (a) y = LogSoftmax (d)", -1e9, {"row"}, {"a", "d"},
    ),
    "scaled": ("a = Add (s, row) d = Mul (a, half) y = Softmax (d)", -1e9, {"row"}, {"a", "d"}),
    "bias-behind": ("a = Add (s, row) d = Add (soft, a) y = Softmax (d)", -1e9, {"row"}, {"a", "d"}),
    "sliced": (
        "e = Expand (row, shape) r = Squeeze (row) x = Reshape (r, shape) a = Add (s, x) y = Softmax (a)",
        -1e9, {"row", "r", "x"}, {"a"},
    ),
}  # fmt: skip

NOTHING = {
    "no-softmax": "a = Add (s, row) y = Relu (a)",
    "small": "a = Add (s, small) y = Softmax (a)",
    "slope": "a = Add (s, slope) y = Softmax (a)",
    "both-signs": "a = Add (s, both) y = Softmax (a)",
    "positive": "a = Add (s, positive) y = Softmax (a)",
    "computed": "m = MatMul (h, w) a = Add (s, m) y = Softmax (a)",
    "scaled-scores": "r = Relu (s) m = Mul (r, big) a = Add (s, m) y = Softmax (a)",
    "function-between": "a = Add (s, row) r = Relu (a) y = Softmax (r)",
    "multiplied": "a = Mul (s, row) y = Softmax (a)",
    "no-flag": "q = Sub (two, soft) m = Mul (q, big) a = Add (s, m) y = Softmax (a)",
}


def run(model: ir.Model) -> Context:
    context = Context(Edit(model))
    RecognizeMasks().run(model, context)
    assert context.edit.count == 0
    return context


def marks(model: ir.Model, role: str) -> dict[str, float]:
    return {str(item.name): info.constant for item, info in regions.masked_values(model.graph) if info.role == role}


def build(parse: Parse, body: str) -> ir.Model:
    text = HEAD.replace("int64[1] six", "int64[4] shape = {1, 1, 1, 8}, int64[1] six")
    return parse(f"{text}\n{{ {body} }}")


@pytest.mark.parametrize("name", FOUND)
def test_found(parse: Parse, name: str) -> None:
    body, constant, operands, sums = FOUND[name]
    model = build(parse, body)
    context = run(model)
    found = marks(model, "operand")
    assert set(found) == operands
    assert all(number == constant for number in found.values())
    found = marks(model, "sum")
    assert set(found) == sums
    assert found["a"] == constant
    assert "additive mask" in context.records[-1].notes[0].text


def test_a_scale_behind_scales_the_constant(parse: Parse) -> None:
    model = build(parse, FOUND["scaled"][0])
    run(model)
    assert marks(model, "sum") == {"a": -1e9, "d": -5e8}


@pytest.mark.parametrize("name", NOTHING)
def test_not_a_mask(parse: Parse, name: str) -> None:
    model = build(parse, NOTHING[name])
    context = run(model)
    assert list(regions.masked_values(model.graph)) == []
    assert context.records == [] or context.records[-1].notes == []


def test_minus_infinity_is_said(parse: Parse) -> None:
    model = build(parse, "a = Add (s, row) y = Softmax (a)")
    value = model.graph.initializers["row"]
    value.const_value = ir.Tensor(np.where(np.arange(8) > 5, -np.inf, 0).astype(np.float32).reshape(1, 1, 1, 8))
    context = run(model)
    assert math.isinf(marks(model, "sum")["a"])
    assert any("-inf" in note.text for note in context.records[-1].notes)


def test_one_mask_for_many(parse: Parse) -> None:
    model = build(parse, "a = Add (s, row) p = Softmax (a) b = Add (p, row) q = Softmax (b) y = Add (p, q)")
    context = run(model)
    assert set(marks(model, "sum")) == {"a", "b"}
    assert context.records[-1].notes[0].text.startswith("2 Softmax")


def test_recognising_again_changes_nothing(parse: Parse) -> None:
    model = build(parse, FOUND["bert"][0])
    run(model)
    before = list(regions.masked_values(model.graph))
    run(model)
    assert list(regions.masked_values(model.graph)) == before


@pytest.mark.parametrize(
    ("name", "constant", "sums"), [("minilm_l6_stsb", -1e4, 6), ("stories260k_lm", -1e9, 5), ("vit_mnist", None, 0)]
)
@pytest.mark.parametrize("normalised", [False, True], ids=["as exported", "normalised"])
def test_real_models(
    zoo: ModuleType, family: tuple[Pass, ...], name: str, constant: float | None, sums: int, normalised: bool
) -> None:
    model = io.load(zoo.load(name).model)
    context = Context(Edit(model))
    for each in family if normalised else ():
        each.run(model, context)
    RecognizeMasks().run(model, context)
    assert len(marks(model, "sum")) == sums
    assert len(marks(model, "operand")) == (0 if constant is None else 1)
    assert set(marks(model, "sum").values()) <= {constant}


@pytest.mark.parametrize(
    ("number", "other", "found"), [(-1e9, 0, True), (-1e4, 2, True), (1e9, 0, False), (-100, 0, False)]
)
def test_a_mask_that_is_fed_is_found_in_the_samples(parse: Parse, number: float, other: float, found: bool) -> None:
    model = parse("""<ir_version: 10, opset_import: ["" : 21]>
        g (float[N, 4, 8] s, float[N, 8] mask) => (float[N, 4, 8] y) <int64[1] one = {1}>
        { u = Unsqueeze (mask, one) a = Add (s, u) y = Softmax (a) }""")
    run(model)
    assert list(regions.masked_values(model.graph)) == []
    mask = np.full((3, 8), other, np.float32)
    mask[1, 5:] = number  # only one of the samples is padded
    samples = data.load({"s": np.ones((3, 4, 8), np.float32), "mask": mask}, data.inputs_of(model))
    RecognizeMasks().run(model, Context(Edit(model), calibration=samples))
    assert marks(model, "operand") == ({"mask": number, "u": number} if found else {})
    assert marks(model, "sum") == ({"a": number} if found else {})
