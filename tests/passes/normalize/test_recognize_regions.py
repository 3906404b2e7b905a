"""Every spelling of a region is found, and what only looks like one is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import ModuleType

import onnx_ir as ir
import pytest

from qcompiler.ir import io, regions, shapes
from qcompiler.ir.edit import Edit
from qcompiler.passes.normalize.recognize_regions import RecognizeRegions
from qcompiler.pipeline.base import Context, Pass

Parse = Callable[[str], ir.Model]
Apply = Callable[..., Context]

HEAD = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>\n'
VECTOR = "agraph (float[2, 3, 4] x) => (float[2, 3, 4] y)"
SCALARS = """<float[1] eps = {1e-5}, float[1] two = {2}, float[1] three = {3}, float[1] one = {1},
 float[1] half = {0.5},
 float[1] minushalf = {-0.5}, float[1] tenth = {0.1},
 float[1] root = {1.4142135}, float[1] inverse = {0.70710678}, float[1] cubic = {0.044715}, float[1] pi = {0.7978846},
 float[1] quick = {1.702}, float[4] g = {1, 2, 3, 4}, float[4] b = {0, 1, 0, 1}, int64[1] last = {-1},
 float[3, 1] c = {1, 2, 3}, int64[2] pixels = {1, 2}>"""

LAYER_NORM = {
    "fused": "y = LayerNormalization (x, g, b)",
    "torch-old": """m = ReduceMean (x, last) d = Sub (x, m) p = Pow (d, two) v = ReduceMean (p, last)
        e = Add (v, eps) s = Sqrt (e) n = Div (d, s) f = Mul (n, g) y = Add (f, b)""",
    "two-subtractions": """m = ReduceMean (x, last) d = Sub (x, m) d2 = Sub (x, m) p = Pow (d2, two)
        v = ReduceMean (p, last) e = Add (v, eps) s = Sqrt (e) n = Div (d, s) f = Mul (n, g) y = Add (b, f)""",
    "two-means": """m = ReduceMean (x, last) d = Sub (x, m) m2 = ReduceMean (x, last) d2 = Sub (x, m2) p = Mul (d2, d2)
        v = ReduceMean (p, last) e = Add (eps, v) s = Sqrt (e) r = Reciprocal (s) n = Mul (r, d) y = Mul (n, g)""",
    "keras": """m = ReduceMean (x, last) d = Sub (x, m) p = Mul (d, d) v = ReduceMean (p, last)
        e = Add (v, eps) s = Pow (e, minushalf) n = Mul (d, s) f = Mul (g, n) y = Add (f, b)""",
    "plain": """m = ReduceMean (x, last) d = Sub (x, m) p = Mul (d, d) v = ReduceMean (p, last)
        e = Add (v, eps) s = Sqrt (e) y = Div (d, s)""",
}
RMS_NORM = {
    "llama": """p = Pow (x, two) v = ReduceMean (p, last) e = Add (v, eps) s = Sqrt (e) r = Div (one, s)
        n = Mul (x, r) y = Mul (g, n)""",
    "square": """p = Mul (x, x) v = ReduceMean (p, last) e = Add (v, eps) s = Sqrt (e) n = Div (x, s) y = Mul (n, g)""",
    "reciprocal": """p = Mul (x, x) v = ReduceMean (p, last) e = Add (v, eps) s = Sqrt (e) r = Reciprocal (s)
        n = Mul (x, r) y = Mul (n, g)""",
    "power": """p = Mul (x, x) v = ReduceMean (p, last) e = Add (v, eps) s = Pow (e, minushalf) n = Mul (x, s)
        y = Mul (n, g)""",
    "fused": "y = com.microsoft.SimplifiedLayerNormalization (x, g)",
}
GELU = {
    "fused": "y = Gelu (x)",
    "fused-fast": "y = com.microsoft.FastGelu (x)",
    "erf-half-last": "d = Div (x, root) e = Erf (d) a = Add (e, one) m = Mul (x, a) y = Mul (m, half)",
    "erf-half-first": "d = Mul (x, inverse) e = Erf (d) a = Add (one, e) h = Mul (x, half) y = Mul (h, a)",
    "erf-half-inside": "d = Mul (x, inverse) e = Erf (d) a = Add (e, one) h = Mul (a, half) y = Mul (h, x)",
    "tanh": """p = Pow (x, three) k = Mul (p, cubic) i = Add (x, k) s = Mul (i, pi) t = Tanh (s) a = Add (t, one)
        m = Mul (x, a) y = Mul (half, m)""",
    "tanh-products": """q = Mul (x, x) p = Mul (q, x) k = Mul (cubic, p) i = Add (k, x) s = Mul (pi, i) t = Tanh (s)
        a = Add (one, t) h = Mul (half, x) y = Mul (h, a)""",
    "quick": "q = Mul (x, quick) s = Sigmoid (q) y = Mul (x, s)",
}
SILU = {"plain": "s = Sigmoid (x) y = Mul (s, x)"}

NOTHING = {
    "l2-normalisation": "p = Mul (x, x) v = ReduceSum (p, last) s = Sqrt (v) y = Div (x, s)",
    "no-epsilon": "p = Mul (x, x) v = ReduceMean (p, last) s = Sqrt (v) y = Div (x, s)",
    "large-epsilon": "p = Mul (x, x) v = ReduceMean (p, last) e = Add (v, one) s = Sqrt (e) y = Div (x, s)",
    "variance-of-another": """m = ReduceMean (x, last) d = Sub (x, m) z = Relu (x) p = Mul (z, z)
        v = ReduceMean (p, last) e = Add (v, eps) s = Sqrt (e) y = Div (d, s)""",
    "cube": "p = Pow (x, three) v = ReduceMean (p, last) e = Add (v, eps) s = Sqrt (e) y = Div (x, s)",
    "inverse": "p = Mul (x, x) v = ReduceMean (p, last) e = Add (v, eps) s = Sqrt (e) y = Div (s, x)",
    "instance-norm": """m = ReduceMean (x, pixels) d = Sub (x, m) p = Mul (d, d) v = ReduceMean (p, pixels)
        e = Add (v, eps) s = Sqrt (e) n = Div (d, s) y = Mul (n, c)""",
    "root-used-elsewhere": """p = Mul (x, x) v = ReduceMean (p, last) e = Add (v, eps) s = Sqrt (e) q = Div (x, s)
        y = Add (q, s)""",
    "erf-wrong-root": "d = Div (x, two) e = Erf (d) a = Add (e, one) m = Mul (x, a) y = Mul (m, half)",
    "erf-no-half": "d = Div (x, root) e = Erf (d) a = Add (e, one) y = Mul (x, a)",
    "erf-no-one": "d = Div (x, root) e = Erf (d) m = Mul (x, e) y = Mul (m, half)",
    "erf-of-another": "z = Relu (x) d = Div (z, root) e = Erf (d) a = Add (e, one) m = Mul (x, a) y = Mul (m, half)",
    "tanh-wrong-cubic": """p = Pow (x, three) k = Mul (p, tenth) i = Add (x, k) s = Mul (i, pi) t = Tanh (s)
        a = Add (t, one) m = Mul (x, a) y = Mul (half, m)""",
    "gate": "z = Relu (x) s = Sigmoid (z) y = Mul (x, s)",
    "sigmoid-of-double": "q = Mul (x, two) s = Sigmoid (q) y = Mul (x, s)",
    "sigmoid-alone": "y = Sigmoid (x)",
    "mish": "s = Softplus (x) t = Tanh (s) y = Mul (x, t)",
    "foreign": "y = com.microsoft.Unheard (x)",
}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        pytest.param(kind, body, id=f"{kind}-{name}")
        for kind, group in (("layer-norm", LAYER_NORM), ("rms-norm", RMS_NORM), ("gelu", GELU), ("silu", SILU))
        for name, body in group.items()
    ],
)
def test_found(parse: Parse, kind: str, body: str) -> None:
    model = parse(f"{HEAD}{VECTOR}\n{SCALARS}\n{{ {body} }}")
    RecognizeRegions().run(model, context(model))
    (found,) = regions.regions(model)
    assert found.kind == kind
    assert set(found.nodes) == set(model.graph)
    assert [item.name for item in found.inputs] == ["x"]
    assert [item.name for item in found.outputs] == ["y"]


@pytest.mark.parametrize("name", NOTHING)
def test_near_misses(parse: Parse, name: str) -> None:
    model = parse(f"{HEAD}{VECTOR}\n{SCALARS}\n{{ {NOTHING[name]} }}")
    RecognizeRegions().run(model, context(model))
    assert regions.regions(model) == []


def context(model: ir.Model) -> Context:
    return Context(Edit(model))


ATTENTION_HEAD = """agraph (float[2, 4, 8, 16] q, float[2, 4, 16, 8] k, float[2, 4, 8, 16] v, float[2, 1, 1, 8] mask,
    bool[2, 1, 1, 8] keep) => (float[2, 4, 8, 16] y)
<float scale = {0.25}, float root = {4}, float low = {-1e9},
 float[16, 8] w = {ONES}, float[8, 16] values = {ONES}>""".replace("ONES", ", ".join(["1"] * 128))

ATTENTION = {
    "plain": ("s = MatMul (q, k) p = Softmax (s) y = MatMul (p, v)", 3),
    "scaled": ("s = MatMul (q, k) t = Mul (s, scale) p = Softmax <axis = -1> (t) y = MatMul (p, v)", 4),
    "divided-masked": ("s = MatMul (q, k) t = Div (s, root) m = Add (t, mask) p = Softmax (m) y = MatMul (p, v)", 5),
    "mask-first": (
        "s = MatMul (q, k) t = Mul (scale, s) m = Add (mask, t) p = Softmax <axis = 3> (m) y = MatMul (p, v)", 5,
    ),
    "scaled-before": ("a = Mul (q, scale) s = MatMul (a, k) m = Add (s, mask) p = Softmax (m) y = MatMul (p, v)", 5),
    "both-scaled": ("a = Mul (q, scale) b = Mul (k, scale) s = MatMul (a, b) p = Softmax (s) y = MatMul (p, v)", 5),
    "where": ("s = MatMul (q, k) t = Div (s, root) m = Where (keep, t, low) p = Softmax (m) y = MatMul (p, v)", 5),
    "cast": ("s = MatMul (q, k) t = Cast <to = 1> (s) p = Softmax (t) r = Cast <to = 1> (p) y = MatMul (r, v)", 5),
    "two-biases": ("s = MatMul (q, k) t = Add (s, mask) u = Add (mask, t) p = Softmax (u) y = MatMul (p, v)", 5),
}  # fmt: skip
NO_ATTENTION = {
    "other-axis": "s = MatMul (q, k) p = Softmax <axis = 1> (s) y = MatMul (p, v)",
    "constant-values": "s = MatMul (q, k) p = Softmax (s) y = MatMul (p, values)",
    "constant-keys": "s = MatMul (q, w) p = Softmax (s) y = MatMul (p, v)",
    "no-values": "s = MatMul (q, k) y = Softmax (s)",
    "no-scores": "r = Relu (q) p = Softmax (r) y = MatMul (p, k)",
    "right-operand": "s = MatMul (q, k) p = Softmax (s) y = MatMul (q, p)",
    "function-between": "s = MatMul (q, k) r = Relu (s) p = Softmax (r) y = MatMul (p, v)",
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention(parse: Parse, name: str) -> None:
    body, count = ATTENTION[name]
    model = parse(f"{HEAD}{ATTENTION_HEAD}\n{{ {body} }}")
    shapes.infer(model)
    RecognizeRegions().run(model, context(model))
    (found,) = regions.regions(model)
    assert found.kind == "softmax-attention"
    assert len(found.nodes) == count
    assert {"q", "k", "v"} <= {item.name for item in found.inputs}
    assert [item.name for item in found.outputs] == ["y"]


@pytest.mark.parametrize("name", NO_ATTENTION)
def test_softmax_without_attention(parse: Parse, name: str) -> None:
    model = parse(f"{HEAD}{ATTENTION_HEAD}\n{{ {NO_ATTENTION[name]} }}")
    RecognizeRegions().run(model, context(model))
    assert regions.regions(model) == []


def test_recognising_again_starts_afresh(parse: Parse, apply: Apply) -> None:
    model = parse(f"{HEAD}{VECTOR}\n{SCALARS}\n{{ {GELU['erf-half-last']} }}")
    shapes.infer(model)
    for index, each in enumerate(model.graph):
        each.name = f"node_{index}"
    first = apply(model, RecognizeRegions())
    assert first.edit.count == 0
    assert [item.id for item in regions.regions(model)] == ["gelu:0"]
    assert first.records[-1].notes[0].text == "regions: 1 gelu"


def test_dynamic_ranks(parse: Parse) -> None:
    """Without shapes nothing is assumed about axes counted from the front."""
    text = f"{HEAD}agraph (float[] x) => (float[] y)\n{SCALARS}\n{{ {RMS_NORM['square']} }}"
    model = parse(text)
    model.graph.inputs[0].shape = None
    RecognizeRegions().run(model, context(model))
    assert [item.kind for item in regions.regions(model)] == ["rms-norm"]
    for each in model.graph:
        if each.op_type == "ReduceMean":
            each.replace_input_with(1, model.graph.initializers["pixels"])
    RecognizeRegions().run(model, context(model))
    assert regions.regions(model) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vit_mnist", {"layer-norm": 13, "softmax-attention": 6}),
        ("minilm_l6_stsb", {"layer-norm": 13, "gelu": 6, "softmax-attention": 6}),
        ("stories260k_lm", {"rms-norm": 11, "silu": 5, "softmax-attention": 5}),
        ("mobilenetv1_025_imagenet", {}),
        ("resnet20_cifar10", {}),
        ("dscnn_kws", {}),
    ],
)
@pytest.mark.parametrize("normalised", [False, True], ids=["as exported", "normalised"])
def test_real_models(
    zoo: ModuleType, family: tuple[Pass, ...], name: str, expected: dict[str, int], normalised: bool
) -> None:
    model = io.load(zoo.load(name).model)
    running = context(model)
    for each in family if normalised else ():
        each.run(model, running)
    RecognizeRegions().run(model, running)
    assert Counter(item.kind for item in regions.regions(model)) == expected
