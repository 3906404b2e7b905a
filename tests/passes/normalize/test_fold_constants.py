"""Constants are computed, shape arithmetic is followed, and what must stay stays."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.passes.normalize.fold_constants import FoldConstants
from qcompiler.passes.normalize.import_model import ImportModel

HEADER = '<ir_version: 10, opset_import: ["" : 21]>'


@pytest.mark.parametrize(
    "expression",
    [
        "Add (w, w)",
        "Transpose <perm = [1, 0]> (w)",
        "Cast <to = 1> (i)  i = Cast <to = 7> (w)",
        "Reshape (w, flat)",
        "Unsqueeze (w, one)",
        "Squeeze (i, one)  i = Unsqueeze (w, one)",
        "Flatten (w)",
        "Concat <axis = 0> (w, w)",
        "Gather (w, one)",
        "Slice (w, one, flat4)",
        "Expand (w, shape)",
        "Exp (w)",
        "ReduceSum (w, one)",
        "Where (i, w, half)  i = Greater (w, half)",
        "Tile (w, shape2)",
        "ScatterND (w, indices, half1)",
    ],
)
def test_operators_on_constants_are_computed(
    expression: str, parse: Callable, apply: Callable, equal: Callable, kinds: Callable
) -> None:
    text = f"""{HEADER}
        g (float[2, 2] x) => (float[N, M, K] y)
        <float[2, 2] w = {{1, 2, 3.5, 4}}, int64[1] one = {{1}}, int64[1] flat = {{4}}, int64[1] flat4 = {{4}},
         float half = {{0.5}},
         float[1] half1 = {{0.5}}, int64[2] shape = {{2, 2}}, int64[2] shape2 = {{1, 2}},
         int64[1, 2] indices = {{0, 1}}, int64[3] three = {{1, 1, -1}},
         int64[1] all = {{-1}}>
        {{
            c = {expression}
            row = Reshape (c, three)
            s = ReduceSum (x)
            y = Add (row, s)
        }}"""
    model = parse(text)
    apply(model, ImportModel(), FoldConstants())
    assert kinds(model) == {"ReduceSum": 1, "Add": 1}
    equal(parse(text), model)


@pytest.mark.parametrize("named", [True, False])
def test_the_static_part_of_a_shape_is_folded(
    named: bool, parse: Callable, apply: Callable, equal: Callable, kinds: Callable
) -> None:
    """The usual export of ``x.view(x.size(0), -1, x.size(1) // 2)``."""
    text = f"""{HEADER}
        g (float[N, 6, 4] x) => (float[N, A, B] y)
        <int64 zero = {{0}}, int64 one = {{1}}, int64[1] front = {{0}}, int64 two = {{2}}, int64[1] rest = {{-1}}>
        {{
            shape = Shape (x)
            batch = Gather (shape, zero)
            channels = Gather (shape, one)
            half = Div (channels, two)
            b = Unsqueeze (batch, front)
            h = Unsqueeze (half, front)
            target = Concat <axis = 0> (b, rest, h)
            y = Reshape (x, target)
        }}"""
    model = parse(text)
    if not named:
        model.graph.inputs[0].shape = ir.Shape([None, 6, 4])
    apply(model, ImportModel(), FoldConstants())
    assert kinds(model) == {"Reshape": 1}
    assert list(model.graph.node(0).inputs[1].const_value.numpy()) == [0, -1, 3]
    equal(parse(text), model)


def test_the_symbolic_batch_stays(parse: Callable, apply: Callable, equal: Callable, kinds: Callable) -> None:
    """``cls.expand(x.size(0), -1, -1)`` as PyTorch exports it: only what is proven folds."""
    text = f"""{HEADER}
        g (float[N, 3, 4] x) => (float[N, 4, 4] y)
        <float[1, 1, 4] cls = {{1, 2, 3, 4}}, int64 zero = {{0}}, int64[1] front = {{0}}, int64[1] keep = {{-1}},
         int64[1] three = {{3}}, int64 minus = {{-1}}>
        {{
            shape = Shape (x)
            batch = Gather (shape, zero)
            b = Unsqueeze (batch, front)
            target = Concat <axis = 0> (b, keep, keep)
            ones = ConstantOfShape <value = int64[1] {{1}}> (three)
            minuses = Mul (ones, minus)
            open = Equal (target, minuses)
            chosen = Where (open, ones, target)
            many = Expand (cls, chosen)
            y = Concat <axis = 1> (many, x)
        }}"""
    model = parse(text)
    apply(model, ImportModel(), FoldConstants())
    found = kinds(model)
    assert {"ConstantOfShape", "Mul", "Equal"}.isdisjoint(found)
    assert {"Shape", "Expand"} <= set(found)
    equal(parse(text), model)


def test_equal_shape_vectors_are_shared(parse: Callable, apply: Callable, equal: Callable, kinds: Callable) -> None:
    text = f"""{HEADER}
        g (float[N, 3] x) => (float[N, 3] y)
        <float one = {{1}}>
        {{
            e = Exp (x)
            s1 = Shape (x)
            s2 = Shape (e)
            a = Expand (one, s1)
            b = Expand (one, s2)
            c = Add (a, b)
            y = Add (c, e)
        }}"""
    model = parse(text)
    apply(model, ImportModel(), FoldConstants())
    assert kinds(model)["Shape"] == 1
    equal(parse(text), model)


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("RandomNormalLike (w)", "random"),
        ("Expand (w, wide)", "bytes"),
        ("Tile (w, huge)", "bytes"),
        ("Cast <to = 1> (i)  i = Range (zero, many, one)", "bytes"),
        ("OneHot (zeros, many, pair)", "bytes"),
    ],
)
def test_what_is_random_or_grows_stays(
    expression: str, reason: str, parse: Callable, apply: Callable, skips: Callable, kinds: Callable
) -> None:
    model = parse(f"""{HEADER}
        g (float[2, 2] x) => (float s)
        <float[2, 2] w = {{1, 2, 3, 4}}, int64[2] huge = {{1000, 2}}, int64[3] wide = {{500, 2, 2}}, int64 zero = {{0}},
         int64 many = {{2000}}, int64 one = {{1}},
         int64[2] zeros = {{0, 1}}, float[2] pair = {{0, 1}}>
        {{
            c = {expression}
            p = ReduceSum <keepdims = 0> (c)
            q = ReduceSum <keepdims = 0> (x)
            s = Add (p, q)
        }}""")
    found = skips(apply(model, ImportModel(), FoldConstants(size_limit=1000)))
    assert any(reason in text for text in found)
    assert kinds(model) == {"ReduceSum": 2, "Add": 1} | dict.fromkeys(re.findall(r"[A-Z][A-Za-z]+", expression), 1)


def test_a_constant_output_of_the_model_stays(
    parse: Callable, apply: Callable, skips: Callable, equal: Callable
) -> None:
    text = f"""{HEADER}
        g (float[2] x) => (float[2] y, float[2] fixed)
        <float[2] w = {{1, 2}}>
        {{ y = Relu (x)  fixed = Exp (w) }}"""
    model = parse(text)
    found = skips(apply(model, ImportModel(), FoldConstants()))
    assert any("output of the model" in text for text in found)
    equal(parse(text), model)


def test_names_of_folded_tensors_are_kept(parse: Callable, apply: Callable) -> None:
    model = parse(f"""{HEADER}
        g (float[2] x) => (float[2] y)
        <float[2] w = {{1, 2}}>
        {{ root = Sqrt (w)  y = Mul (x, root) }}""")
    apply(model, ImportModel(), FoldConstants())
    assert set(model.graph.initializers) == {"root"}
    np.testing.assert_allclose(model.graph.initializers["root"].const_value.numpy(), np.sqrt([1, 2]), rtol=1e-6)
