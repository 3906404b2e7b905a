"""Token identifiers without data: what is drawn fits the tables, and the report says what it is worth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import qcompiler
from qcompiler.calibration import words
from qcompiler.calibration.data import inputs_of, load
from qcompiler.calibration.tokens import drawn
from qcompiler.calibration.trust import Made

TEXT = """<ir_version: 10, opset_import: ["": 21]>
    encoder (int64[N, L] input_ids, int64[N, L] token_type_ids, int64[N, L] position_ids, int64[N, L] attention_mask)
        => (float[N, L, 4] y)
    { w = Gather(table, input_ids)  t = Gather(kinds, token_type_ids)  p = Gather(places, position_ids)
      a = Add(w, t)  b = Add(a, p)  c = MatMul(b, matrix)  r = Relu(c)  y = MatMul(r, back) }"""
SHAPES = {"table": (50, 6), "kinds": (2, 6), "places": (40, 6), "matrix": (6, 8), "back": (8, 4)}


@pytest.fixture
def encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model that reads words, kinds and positions."""
    monkeypatch.chdir(tmp_path)
    proto = onnx.parser.parse_model(TEXT)
    generator = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        content = generator.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(content, name))
    onnx.save(proto, tmp_path / "encoder.onnx")
    return tmp_path / "encoder.onnx"


def test_identifiers_are_rows_of_their_tables(encoder: Path) -> None:
    model = ir.load(encoder)
    assert words.tables(model.graph) == {"input_ids": 50, "token_type_ids": 2, "position_ids": 40}
    found = drawn(model, inputs_of(model), 64, seed=1)
    assert found is not None
    assert found.words == 50
    loaded = load(found.feeds, inputs_of(model))
    assert len(loaded) == 64
    seen: set[int] = set()
    lengths = set()
    for feed in loaded:
        assert feed["input_ids"].shape == (1, 32)
        length = int(feed["attention_mask"].sum())
        lengths.add(length)
        np.testing.assert_array_equal(feed["attention_mask"][0], np.arange(32) < length)
        assert not feed["input_ids"][0, length:].any()
        np.testing.assert_array_equal(feed["position_ids"][0, :length], np.arange(length))
        assert feed["token_type_ids"].max() < 2
        seen |= set(feed["input_ids"][0, :length].tolist())
    assert seen == set(range(50))
    assert min(lengths) >= 4
    assert len(lengths) > 10
    again = drawn(model, inputs_of(model), 64, seed=1)
    assert again is not None
    np.testing.assert_array_equal(again.feeds[5]["input_ids"], found.feeds[5]["input_ids"])


def test_a_model_without_tables_reads_no_tokens(parse: Callable[[str], ir.Model]) -> None:
    model = parse("""<ir_version: 10, opset_import: ["": 21]>
        g (float[N, 3, 8, 8] x) => (float[N, 3, 8, 8] y) { y = Relu(x) }""")
    assert drawn(model, inputs_of(model), 4) is None


def test_none_says_what_drawn_words_are_worth(encoder: Path) -> None:
    result = qcompiler.compile(encoder, "edge-npu", calibration="none", latency=False, cache=False, limit=16, keep=True)
    assert result.report.calibration is not None
    assert "identifiers drawn from a table of 50 words" in result.report.calibration.source
    assert any("not what texts do" in text for text in result.report.warnings)
    assert any("--evaluation" in text for text in result.report.warnings)


def test_drawn_words_are_no_noise() -> None:
    assert not Made(words=50).noise
    assert not Made(words=50).near
