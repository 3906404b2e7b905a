"""An embedding, from the command to the file: its bits are decided, stored, looked up and reported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import qcompiler
from qcompiler.calibration import words
from qcompiler.driver.options import CompileOptions
from qcompiler.driver.sensitivity import question
from qcompiler.errors import UsageError
from qcompiler.report.formats import LossBoundPart

TEXT = """
<ir_version: 10, opset_import: ["" : 21]>
g (int64[N, 6] ids) => (float[N, 6, 8] y) {
  e = Gather (t, ids) n = LayerNormalization (e, s, o) h = MatMul (n, w) r = Relu (h) y = MatMul (r, v)
}
"""
SHAPES = {"t": (512, 32), "w": (32, 64), "v": (64, 8)}
"""Three quarters of all weights are in the table."""


@pytest.fixture(autouse=True)
def _in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def model_of(text: str) -> onnx.ModelProto:
    random = np.random.default_rng(0)
    proto = onnx.parser.parse_model(text)
    arrays = {name: random.normal(0, 0.2, shape) for name, shape in SHAPES.items()}
    arrays |= {"s": np.ones(32), "o": np.zeros(32)}
    for name, array in arrays.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    return proto


@pytest.fixture
def model() -> onnx.ModelProto:
    return model_of(TEXT)


def samples(count: int = 32) -> dict[str, np.ndarray]:
    return {"ids": np.random.default_rng(1).integers(0, 512, (count, 6))}


def bits_of_tables(result: qcompiler.CompileResult, operator: str = "QGather") -> list[int]:
    return [node.attributes["bits"].as_int() for node in result.model.graph if node.op_type == operator]


def codes_of_table(result: qcompiler.CompileResult) -> bytes:
    node = next(node for node in result.model.graph if node.op_type.startswith("QGather"))
    assert node.inputs[1] is not None
    assert node.inputs[1].const_value is not None
    return node.inputs[1].const_value.tobytes()


@pytest.mark.parametrize(
    ("target", "formats", "operator"),
    [
        ("edge-npu", ("w8a8", "w4a8", "w2a8"), "QGather"),
        ("lowbit-cpu", ("w8a8", "w4a8", "w3a8"), "QGather"),
        ("lowbit-cpu", ("w8", "w4", "w3"), "QGatherWeightOnly"),
    ],
)
def test_a_table_gets_the_bits_that_the_plan_says(
    model: onnx.ModelProto, target: str, formats: tuple[str, ...], operator: str
) -> None:
    plain = qcompiler.compile(model, target, format=formats[0], calibration=samples(), latency=False)
    budget = plain.path.stat().st_size - 7000
    chosen = qcompiler.compile(
        model, target, candidates=formats, budget=f"size={budget}", calibration=samples(), latency=False
    )
    assert chosen.path.stat().st_size <= budget
    assert chosen.report.formats is not None
    group = next(group for group in chosen.report.formats.groups if group.weights == 512 * 32)
    assert group.choice != formats[0], "only the table holds so many bytes"
    assert bits_of_tables(chosen, operator) == [int(group.choice[1])]


@pytest.mark.parametrize(
    ("target", "form", "operator", "factors"),
    [("edge-npu", "w8a8", "QGather", (512,)), ("lowbit-cpu", "w8", "Gather", (512, 1))],
)
def test_rows_may_be_counted_from_the_end(
    model: onnx.ModelProto, target: str, form: str, operator: str, factors: tuple[int, ...]
) -> None:
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("axis", -2))
    found = qcompiler.compile(model, target, format=form, calibration=samples(), latency=False).model.graph
    held = [node for node in found if node.op_type == operator]
    assert factors in [value.shape for node in held for value in node.inputs if value is not None], "one per row"


@pytest.mark.parametrize(("form", "narrow", "bits"), [("w8a8", "w3a8", [3, 8]), ("w8", "w3", [3])])
def test_two_that_look_up_one_table_may_have_two_formats(form: str, narrow: str, bits: list[int]) -> None:
    both = "a = Gather (t, ids) last = Constant <value_ints = [511]> () back = Sub (last, ids) b = Gather (t, back)"
    model = model_of(TEXT.replace("e = Gather (t, ids)", f"{both} e = Add (a, b)"))
    plan = {"schema": 1, "formats": {"Gather_a": narrow}}
    Path("plan.json").write_text(json.dumps(plan), encoding="utf-8")
    options = {"calibration": samples(), "latency": False, "effort": "quick"}
    result = qcompiler.compile(model, "lowbit-cpu", format=form, plan="plan.json", **options)
    assert bits_of_tables(result, "QGather" if "a8" in form else "QGatherWeightOnly") == bits
    assert result.plan["nodes"]["Gather_a"]["edges"]["0"]["format"] == "i3/sym/axis=0"
    assert 15 < result.report.quality.value < 25, "of 3 bits in one half of the sum"


@pytest.mark.parametrize(("form", "narrow"), [("w8a8", "w4a8"), ("w8", "w4")])
def test_a_plan_gives_the_same_table(model: onnx.ModelProto, form: str, narrow: str) -> None:
    """First of formats alone, then with all decisions, scales among them."""
    plan = {"schema": 1, "formats": {"Gather_e": narrow}}
    Path("formats.json").write_text(json.dumps(plan), encoding="utf-8")
    options = {"calibration": samples(), "latency": False, "effort": "quick"}
    first = qcompiler.compile(model, "lowbit-cpu", format=form, plan="formats.json", plan_out="plan.json", **options)
    assert first.plan["nodes"]["Gather_e"]["integer"]
    second = qcompiler.compile(model, "lowbit-cpu", plan="plan.json", **options)
    operator = "QGather" if "a8" in form else "QGatherWeightOnly"
    assert bits_of_tables(first, operator) == bits_of_tables(second, operator) == [4]
    assert second.plan == first.plan
    assert codes_of_table(second) == codes_of_table(first)


@pytest.mark.parametrize("form", ["w8a8", "w8"])
def test_a_table_that_is_excluded_stays_float(model: onnx.ModelProto, form: str) -> None:
    options = {"calibration": samples(), "latency": False, "effort": "quick"}
    result = qcompiler.compile(model, "lowbit-cpu", format=form, exclude=("Gather_e",), **options)
    (table,) = (node.inputs[0] for node in result.model.graph if node.op_type == "Gather")
    assert table is not None
    assert table.const_value is not None
    stored = next(item for item in model.graph.initializer if item.name == "t")
    np.testing.assert_array_equal(table.const_value.numpy(), onnx.numpy_helper.to_array(stored))
    assert result.plan["nodes"]["Gather_e"]["reason"] == "excluded by 'Gather_e'"


@pytest.mark.parametrize("candidates", [("w8a8", "w4a8", "w2a8"), ("w8", "w4", "w2")])
def test_what_a_table_loses_is_measured(model: onnx.ModelProto, candidates: tuple[str, ...]) -> None:
    onnx.save(model, "model.onnx")
    np.savez("samples.npz", **samples())
    asked = question(CompileOptions("model.onnx", "lowbit-cpu", candidates=candidates, calibration="samples.npz"))
    assert {group.name: group.weights for group in asked.groups}["Gather_e"] == 512 * 32
    found = asked.answer("measured", 16).losses["Gather_e"]
    losses = [found[form] for form in candidates]
    assert 0 < losses[0] < losses[1] / 10 < losses[1] < losses[2]


def test_a_bound_is_judged_by_words_that_the_samples_lack(
    model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"ids": np.random.default_rng(1).integers(0, 60, (48, 6))}

    def bound(text: str) -> LossBoundPart:
        options = {"candidates": ("w8a8", "w4a8"), "calibration": few, "latency": False, "effort": "quick"}
        report = qcompiler.compile(model, "edge-npu", budget=f"loss={text}", **options).report
        assert any("drawn words judged too" in note.text for item in report.passes for note in item.notes) == drawn
        assert report.formats is not None
        assert report.formats.loss_bound is not None
        return report.formats.loss_bound

    drawn = True
    both = bound("9")
    with pytest.raises(UsageError, match=r"no plan keeps a measured loss.*\n.*drawn words judged too"):
        bound("1e-9")
    monkeypatch.setattr(words, "unseen", lambda *_: None)
    drawn = False
    assert bound("9").upper <= both.upper
