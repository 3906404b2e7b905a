"""Tiny models of odd structure, from file to file: every target's result loads in ONNX Runtime and stays close."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import qcompiler

IMAGE = "float[N,3,8,8] x"
TOKENS = "float[N,5,8] x"
CONV = "a = Conv <pads = [1,1,1,1]> (x, w4_3_3_3, v4)"
LAST = "y = Conv (r, w2_4_1_1)"
SIDES = "then_branch = t () => (float[N,4,8,8] p) {{ {0} }}, else_branch = e () => (float[N,4,8,8] q) {{ {1} }}"
BRANCH = f"r = If (k) <{SIDES}>"

# Name: (nodes, inputs, outputs). Constants are called by what they are: ``w4_3`` and ``v4`` random numbers of that
# shape, ``n0_5`` the number 0.5, ``i1_2`` the integers [1, 2].
MODELS = {
    "added to itself": (f"{CONV} r = Add (a, a) {LAST}", IMAGE, "y"),
    "multiplied by itself": (f"{CONV} r = Mul (a, a) {LAST}", IMAGE, "y"),
    "product with itself": ("m = MatMul (x, w8_8) p = MatMul (m, m) y = MatMul (p, w8_4)", "float[N,8,8] x", "y"),
    "attention": (
        (
            "m = MatMul (x, w8_8) t = Transpose <perm = [0,2,1]> (m) s = MatMul (m, t) p = Softmax (s)"
            " o = MatMul (p, m) y = MatMul (o, w8_4)"
        ),
        TOKENS,
        "y",
    ),
    "constant first operand": ("m = MatMul (w4_8, x) y = MatMul (m, w8_4)", "float[N,8,8] x", "y"),
    "batch of weights": ("y = MatMul (x, w2_8_4)", "float[N,2,5,8] x", "y"),
    "vector of weights": ("m = MatMul (x, v8) y = Add (m, v5)", TOKENS, "y"),
    "public and consumed": (f"{CONV} r = Relu (a) {LAST}", IMAGE, "y a r"),
    "public weight and bias": (f"{CONV} r = Relu (a) {LAST} w = Identity (w4_3_3_3) b = Identity (v4)", IMAGE, "y w b"),
    "same output twice": (f"{CONV} y = Relu (a) z = Identity (y)", IMAGE, "y z"),
    "passed through": (f"{CONV} z = Identity (x)", IMAGE, "a z"),
    "no bias": ("a = Gemm (x, w8_8) y = Gemm <transB = 1> (a, w4_8)", "float[N,8] x", "y"),
    "bias by row": ("t = Reshape (x, i2_8) y = Gemm (t, w8_4, w2_4)", "float[1,16] x", "y"),
    "bias by row, one column": ("t = Reshape (x, i2_8) y = Gemm (t, w8_4, w2_1)", "float[1,16] x", "y"),
    "computed addend": ("a = Gemm (x, w8_8, v8) y = Gemm (x, w8_8, a)", "float[4,8] x", "y"),
    "grouped transposed": (
        "a = ConvTranspose <group = 2, strides = [2,2]> (x, w4_3_3_3, v6) r = Relu (a) y = Conv (r, w2_6_1_1)",
        "float[N,4,5,5] x",
        "y",
    ),
    "one weight, two layers": (
        "a = Conv <pads = [1,1,1,1]> (x, w3_3_3_3, v3) r = Relu (a) y = Conv (r, w3_3_3_3, v3)",
        IMAGE,
        "y",
    ),
    "tied table": (
        "e = Gather (w16_8, i) r = ReduceMean <keepdims = 0> (e, i1) y = Gemm <transB = 1> (r, w16_8)",
        "int64[N,4] i",
        "y",
    ),
    "shared vector": (
        "m = MatMul (x, w8_8) a = Add (v8, m) n = MatMul (a, w8_8) c = Add (n, v8) y = Add (c, v8)",
        TOKENS,
        "y",
    ),
    "tie with a constant": (
        f"{CONV} c = Concat <axis = 1> (w1_1_8_8, a, w1_1_8_8) y = Conv (c, w2_6_1_1)",
        "float[1,3,8,8] x",
        "y",
    ),
    "tie with itself": (f"{CONV} c = Concat <axis = 1> (a, a) y = Conv (c, w2_8_1_1)", IMAGE, "y"),
    "parts read differently": (
        (
            f"{CONV} p, q = Split <axis = 1, num_outputs = 2> (a) s = Sigmoid (q) m = Mul (q, s)"
            " c = Conv (p, w2_2_1_1) d = Conv (m, w2_2_1_1) y = Add (c, d)"
        ),
        IMAGE,
        "y",
    ),
    "unused part": (f"{CONV} p, q = Split <axis = 1, num_outputs = 2> (a) y = Conv (q, w2_2_1_1)", IMAGE, "y"),
    "bilinear between codes": (f'{CONV} r = Resize <mode = "linear"> (a, , n1_1_2_2) {LAST}', IMAGE, "y"),
    "constant before a difference": (f"{CONV} r = Sub (n0_5, a) {LAST}", IMAGE, "y"),
    "bounds at run time": (f"{CONV} g = ReduceMax <keepdims = 0> (x) r = Clip (a, , g) {LAST}", IMAGE, "y"),
    "empty operand": (f"{CONV} r = Concat <axis = 1> (a, w1_0_8_8) {LAST}", "float[1,3,8,8] x", "y"),
    "empty result": (f"{CONV} f = Flatten (x) z = MatMul (f, w192_0)", "float[1,3,8,8] x", "a z"),
    "shape computed": (
        f"{CONV} s = Shape <end = 2> (a) q = Concat <axis = 0> (s, i64) r = Reshape (a, q) y = MatMul (r, w64_6)",
        "float[N,3,H,H] x",
        "y",
    ),
    "bodies capture": (
        f"{CONV} {BRANCH.format('p = Relu (a)', 'q = Mul (a, n0_5)')} {LAST}",
        f"{IMAGE}, bool[1] k",
        "y",
    ),
    "one body captures": (
        f"{CONV} {BRANCH.format('p = Relu (a)', 'q = Conv <pads = [1,1,1,1]> (x, w4_3_3_3)')} {LAST}",
        f"{IMAGE}, bool[1] k",
        "y",
    ),
    "loop captures": (
        (
            f"{CONV} r = Loop (two, , a) <body = l (int64 j, bool c, float[N,4,8,8] s) => (bool d, float[N,4,8,8] u)"
            f" {{ d = Identity (c) u = Add (s, a) }}> {LAST}"
        ),
        IMAGE,
        "float[N,2,8,8] y",
    ),
    "names of ours": (
        (
            "x_quantized = Conv <pads = [1,1,1,1]> (x, w4_3_3_3, v4) x_scale = Relu (x_quantized)"
            " x_zero_point = Conv (x_scale, w2_4_1_1)"
        ),
        IMAGE,
        "x_zero_point",
    ),
}
TARGETS = ["cpu-x86", "edge-npu", "edge-npu-per-tensor", "mcu"]


def constant(name: str) -> np.ndarray | None:
    """The array that a name of the table stands for."""
    if name == "two":
        return np.array(2, np.int64)
    match = re.fullmatch(r"([wvni])((?:\d+_?)+)", name)
    if match is None:
        return None
    numbers = [int(item) for item in match[2].split("_")]
    if match[1] == "i":
        return np.array(numbers, np.int64)
    if match[1] == "n":
        return np.float32(0.5).reshape(()) if numbers == [0, 5] else np.array(numbers, np.float32)
    random = np.random.default_rng(len(name) + sum(numbers))
    return (random.normal(size=numbers) / np.sqrt(max(1, np.prod(numbers[1:])))).astype(np.float32)


def write(name: str, path: Path) -> None:
    body, inputs, outputs = MODELS[name]
    typed = outputs if "[" in outputs else ", ".join(f"float {output}" for output in outputs.split())
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> g ({inputs}) => ({typed}) {{ {body} }}')
    for item in proto.graph.output:
        if "[" not in outputs:  # as they are inferred
            item.type.tensor_type.ClearField("shape")
    named = {word for word in re.findall(r"\w+", body) if word not in inputs.split()}
    for word in sorted(named):
        if (array := constant(word)) is not None:
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, word))
    onnx.save(proto, path)


def feeds(session: onnxruntime.InferenceSession, count: int) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(5)

    def sample(kind: str, shape: list[int | str]) -> np.ndarray:
        sizes = [size if isinstance(size, int) else {"N": 1, "H": 8}[size] for size in shape]
        if kind == "tensor(bool)":
            return random.random(sizes) < 0.5
        if kind == "tensor(int64)":
            return random.integers(0, 16, sizes)
        return random.normal(size=sizes).astype(np.float32)

    return [{item.name: sample(item.type, item.shape) for item in session.get_inputs()} for _ in range(count)]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", MODELS)
def test_odd_structure(name: str, target: str, tmp_path: Path) -> None:
    source, output = tmp_path / "model.onnx", tmp_path / "quantized.onnx"
    write(name, source)
    exact = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    samples = feeds(exact, 24)
    qcompiler.compile(source, target, calibration=samples, output=output, latency=False, cache=False)
    onnx.checker.check_model(output, full_check=True)
    quantized = onnxruntime.InferenceSession(output, providers=["CPUExecutionProvider"])
    noise, power = 0.0, 0.0
    for feed in samples:
        for wanted, got in zip(exact.run(None, feed), quantized.run(None, feed), strict=True):
            assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
            noise += float(np.square(got.astype(np.float64) - wanted).sum())
            power += float(np.square(wanted.astype(np.float64)).sum())
    assert noise < 0.01 * power
