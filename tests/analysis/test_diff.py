"""diff() of two small models: what changed, and which layer adds the error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcompiler.analysis.diff import diff
from qcompiler.calibration.data import Dataset, load
from qcompiler.quant.annotations import Annotation, annotate

Parse = Callable[[str], ir.Model]
HEAD = '<ir_version: 10, opset_import: ["" : 21]>\n'
FLOAT = HEAD + """
m (float[1,4] x) => (float[1,4] y) <float[1,4] c = {1,2,3,4}> {
  [one] a = Abs(x)
  [two] b = Mul(a, c)
  [three] d = Neg(b)
  [four] y = Sub(d, a)
}
"""
QUANTIZED = HEAD + """
m (float[1,4] x) => (float[1,4] y) <float[4] c = {1,2,3,4}, float s = {0.5}, uint8 z = {0}> {
  [one] a = Abs(x)
  [two] b = Mul(a, c)
  q = QuantizeLinear(b, s, z)
  r = DequantizeLinear(q, s, z)
  [three] d = Neg(r)
  [four] y = Sub(d, a)
}
"""


@pytest.fixture
def files(parse: Parse, tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "float.onnx", tmp_path / "quantized.onnx"
    for path, text in zip(paths, (FLOAT, QUANTIZED), strict=True):
        onnx.save(ir.to_proto(parse(text)), path)
    return paths


@pytest.fixture
def data() -> Dataset:
    samples = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    return load({"x": samples}, {"x": (np.float32, (1, 4))})


def test_structure(files: tuple[Path, Path]) -> None:
    result = diff(*files)
    assert [(row.name, row.first, row.second) for row in result.operators] == [
        ("DequantizeLinear", 0, 1), ("QuantizeLinear", 0, 1),
    ]  # fmt: skip
    facts = {row.name: (row.first, row.second) for row in result.facts}
    assert facts["nodes"] == (4, 6)
    assert facts["bytes"] == tuple(path.stat().st_size for path in files)
    assert [(row.name, row.first, row.second) for row in result.weights] == [("c", "float 1×4", "float 4")]
    assert result.quality is None
    assert result.matched == 4


def test_the_layer_that_adds_the_error_is_named(files: tuple[Path, Path], data: Dataset) -> None:
    result = diff(*files, data)
    assert result.quality is not None
    assert [layer.node for layer in result.quality.layers] == ["one", "two", "three", "four"]
    assert result.falls[0].layer.node == "two"
    assert result.falls[0].before == 200
    assert result.quality.outputs[0].sqnr == pytest.approx(result.quality.layers[-1].sqnr, abs=0.01)


def test_a_model_differs_in_nothing_from_itself(files: tuple[Path, Path], data: Dataset) -> None:
    result = diff(files[0], files[0], data)
    assert result.operators == result.weights == result.falls == ()
    assert result.quality is not None
    assert result.quality.value == 200


def test_codes_are_compared_as_the_numbers_they_mean(files: tuple[Path, Path], parse: Parse, data: Dataset) -> None:
    """The same network with codes between "two" and "three", which say what they mean."""
    model = parse(HEAD + """
m (float[1,4] x) => (float[1,4] y) <float[4] c = {1,2,3,4}, float s = {0.5}, int8 z = {-9}> {
  [one] a = Abs(x)
  [two] h = Mul(a, c)
  q = QuantizeLinear(h, s, z)
  w = Identity(q)
  r = DequantizeLinear(w, s, z)
  [three] d = Neg(r)
  [four] y = Sub(d, a)
}""")
    for value in (node.outputs[0] for node in model.graph if node.outputs[0].name in ("q", "w")):
        annotate(value, Annotation("b", 0.5, -9))
    path = files[0].with_name("integer.onnx")
    onnx.save(ir.to_proto(model), path)
    result = diff(files[0], path, data)
    assert result.quality is not None
    assert [layer.value for layer in result.quality.layers] == ["a", "b", "d", "y"]
    assert 10 < result.quality.layers[1].sqnr < 60
    assert result.falls[0].layer.node == "two"
