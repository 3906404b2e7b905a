"""compare() on small models with known errors, and the gates on what it finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcompiler.analysis.gates import Gates, check_gates, gate_error
from qcompiler.analysis.layers import match_layers
from qcompiler.analysis.meters import OutputMeter
from qcompiler.analysis.metrics import Metric, metric, softened_kl
from qcompiler.analysis.quality import Quality, compare, vector_outputs
from qcompiler.analysis.quality import metric as find_metric
from qcompiler.calibration.data import Dataset, load
from qcompiler.errors import DataError, UsageError, VerificationError

Parse = Callable[[str], ir.Model]

HEAD = '<ir_version: 10, opset_import: ["" : 21]>\n'
LINEAR = HEAD + """
linear (float[1,4] x) => (float[1,3] y)
<float[4,3] w = {1,0,0, 0,1,0, 0,0,1, 0.5,0.5,0.5}>
{ y = MatMul(x, w) }
"""


def dataset(count: int = 16, labels: np.ndarray | None = None, **shapes: tuple[int, ...]) -> Dataset:
    rng = np.random.default_rng(0)
    shapes = shapes or {"x": (4,)}
    arrays = {name: rng.normal(size=(count, *shape)).astype(np.float32) for name, shape in shapes.items()}
    if labels is not None:
        arrays["labels"] = labels
    inputs = {name: (np.float32, (1, *shape)) for name, shape in shapes.items()}
    return load(arrays, inputs)


def measure(parse: Parse, first: str, second: str, **options: object) -> Quality:
    return compare(parse(first), parse(second), dataset(), **options)  # type: ignore[arg-type]


def test_a_model_equals_itself(parse: Parse) -> None:
    quality = measure(parse, LINEAR, LINEAR)
    (output,) = quality.outputs
    assert (output.sqnr, output.cosine, output.agreement, output.max_abs_error) == (200.0, 1.0, 100.0, 0.0)
    assert (output.kind, output.samples, output.rows, output.decided) == ("classes", 16, 16, 16)
    assert check_gates(quality, Gates(min_sqnr=100, min_agreement=100)) == []


def test_the_softened_divergence_is_measured_where_asked_for(parse: Parse) -> None:
    other = LINEAR.replace("0.5,0.5,0.5}", "0.5,0.25,0.5}")
    assert measure(parse, LINEAR, other).outputs[0].softened_kl is None
    (output,) = measure(parse, LINEAR, other, softened=True).outputs
    x = np.concatenate([np.asarray(feed["x"]) for feed in dataset()])
    weights = np.vstack([np.eye(3), np.full(3, 0.5)])
    found = np.vstack([np.eye(3), [0.5, 0.25, 0.5]])
    assert output.softened_kl == pytest.approx(softened_kl(x @ weights, x @ found), rel=1e-4)


def test_scaling_by_nine_tenths_gives_twenty_decibels(parse: Parse) -> None:
    scaled = LINEAR.replace("y = MatMul(x, w)", "z = MatMul(x, w)\ny = Mul(z, c)").replace(
        "0.5,0.5,0.5}", "0.5,0.5,0.5}, float c = {0.9}"
    )
    (output,) = measure(parse, LINEAR, scaled).outputs
    assert output.sqnr == pytest.approx(20, abs=1e-3)
    assert output.cosine == pytest.approx(1)
    assert output.agreement == 100


def test_the_candidate_is_read_from_its_file(parse: Parse, tmp_path: Path) -> None:
    path = tmp_path / "candidate.onnx"
    onnx.save(ir.to_proto(parse(LINEAR)), path)
    quality = compare(parse(LINEAR), path, dataset())
    assert quality.value == 200.0


def test_large_files_run_piece_by_piece(parse: Parse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "candidate.onnx"
    onnx.save(ir.to_proto(parse(LINEAR)), path)
    for module in ("qcompiler.analysis.quality", "qcompiler.ir.execute"):
        monkeypatch.setattr(f"{module}.PART_BYTES", 1)
    assert compare(path, path, dataset()).value == 200.0


def test_an_all_zero_candidate_is_flagged(parse: Parse) -> None:
    zero = LINEAR.replace("y = MatMul(x, w)", "z = MatMul(x, w)\ny = Sub(z, z)")
    quality = measure(parse, LINEAR, zero)
    assert (quality.outputs[0].sqnr, quality.outputs[0].cosine) == (0.0, 0.0)
    assert any("all zeros" in miss for miss in check_gates(quality, Gates()))
    assert check_gates(quality, Gates(sanity=False)) == []


def test_flat_probabilities_that_quantize_to_zero_are_flagged() -> None:
    """Softmax over 1000 classes, uniformly 0.001: 8 bits at scale 1/255 make it all zeros."""
    meter = OutputMeter("p")
    for _ in range(4):
        meter.update(np.full((1, 1000), 0.001, np.float32), np.zeros((1, 1000), np.float32))
    quality = Quality(find_metric("sqnr"), 4, (meter.result(),))
    (output,) = quality.outputs
    assert (output.sqnr, output.cosine, output.decided) == (0.0, 0.0, 0)
    assert any("same values for every sample" in note for note in output.notes)
    assert any("clearly in 0 of 4" in note for note in output.notes)
    assert check_gates(quality, Gates()) == ["output p: all zeros, where the float model's is not"]


def test_nan_in_the_candidate_fails_and_names_the_output(parse: Parse) -> None:
    broken = LINEAR.replace("y = MatMul(x, w)", "z = MatMul(x, w)\nn = Sub(z, z)\ny = Div(n, n)")
    quality = measure(parse, LINEAR, broken, metric="kl")
    assert quality.value == 100.0
    (miss,) = [item for item in check_gates(quality, Gates()) if "NaN" in item]
    assert "output y" in miss
    assert "16 of 16" in miss


def test_a_reference_of_zeros_gives_numbers_and_a_note(parse: Parse) -> None:
    zero = LINEAR.replace("y = MatMul(x, w)", "z = MatMul(x, w)\ny = Sub(z, z)")
    (output,) = measure(parse, zero, zero).outputs
    assert (output.sqnr, output.cosine) == (200.0, 1.0)
    assert any("only zeros" in note for note in output.notes)


def test_labels_measure_both_models(parse: Parse) -> None:
    data = dataset()
    weights = np.vstack([np.eye(3), np.full(3, 0.5)])
    labels = np.array([(feed["x"] @ weights).argmax() for feed in data])
    reversed_order = LINEAR.replace("{1,0,0, 0,1,0, 0,0,1, 0.5", "{0,1,0, 0,0,1, 1,0,0, 0.5")
    quality = compare(parse(LINEAR), parse(reversed_order), dataset(labels=labels), metric="top1")
    assert quality.outputs[0].top1_float == 100
    assert quality.value == quality.outputs[0].top1 == quality.outputs[0].agreement < 50


def test_top1_without_labels_is_refused_with_a_hint(parse: Parse) -> None:
    with pytest.raises(DataError, match="labels"):
        measure(parse, LINEAR, LINEAR, metric="top1")


def test_integer_outputs_are_compared_for_equality(parse: Parse) -> None:
    text = HEAD + "m (float[1,4] x) => (float[1,4] y, int64[1] k) { y = Relu(x) k = ArgMax<axis=1, keepdims=0>(x) }"
    other = text.replace("ArgMax", "ArgMin")
    quality = measure(parse, text, other)
    assert [output.kind for output in quality.outputs] == ["classes", "exact"]
    assert quality.outputs[1].exact == 0
    assert quality.outputs[1].sqnr is None
    assert any("output k" in miss for miss in check_gates(quality, Gates()))


def test_another_shape_is_refused(parse: Parse) -> None:
    other = HEAD + "m (float[1,4] x) => (float[4,1] y) { y = Transpose<perm=[1,0]>(x) }"
    same = HEAD + "m (float[1,4] x) => (float[1,4] y) { y = Relu(x) }"
    with pytest.raises(VerificationError, match="output y"):
        measure(parse, same, other)


def test_a_missing_output_is_refused(parse: Parse) -> None:
    two = HEAD + "m (float[1,4] x) => (float[1,4] y, float[1,4] z) { y = Relu(x) z = Abs(x) }"
    one = HEAD + "m (float[1,4] x) => (float[1,4] y) { y = Relu(x) }"
    with pytest.raises(VerificationError, match="lacks outputs z"):
        measure(parse, two, one)


def test_layers_find_where_the_error_starts(parse: Parse) -> None:
    text = HEAD + """
    m (float[1,4] x) => (float[1,4] y) <float c = {2.0}, float d = {2.0}> {
      a = Relu(x)
      b = Mul(a, c)
      y = Add(b, d)
    }
    """
    other = HEAD + """
    m (float[1,4] x) => (float[1,4] y) <float c = {2.0}, float d = {2.0}, float s = {0.05}, uint8 zero = {0}> {
      a = Relu(x)
      b = Mul(a, c)
      q = QuantizeLinear(b, s, zero)
      r = DequantizeLinear(q, s, zero)
      y = Add(r, d)
    }
    """
    reference, candidate = parse(text), parse(other)
    assert match_layers(reference, candidate) == {"b": "r", "y": "y"}  # Relu stayed float: no layer ends there
    pairs = match_layers(reference, candidate, everything=True)
    assert pairs == {"a": "a", "b": "r", "y": "y"}
    quality = compare(reference, candidate, dataset(), per_layer=pairs, layer_samples=3)
    figures = {layer.value: layer.sqnr for layer in quality.layers}
    assert figures["a"] == 200
    assert 20 < figures["b"] < 60
    assert figures["y"] > figures["b"]  # a constant adds signal, no noise
    assert quality.worst_layers(1)[0].op_type == "Mul"
    assert quality.layer_samples == 3


def test_a_mask_that_is_cut_off_is_no_error(parse: Parse) -> None:
    text = HEAD + """
    m (float[1,4] x) => (float[1,4] y) <float[1,4] mask = {0, 0, -1e9, 0}, float none = {1}> {
      [bias] b = Mul(mask, none)
      [scores] s = Add(x, b)
      [softmax] p = Softmax(s)
      [out] y = Mul(p, none)
    }
    """
    reference, candidate = parse(text), parse(text.replace("-1e9", "-60"))
    pairs = match_layers(reference, candidate, everything=True)
    quality = compare(reference, candidate, dataset(), per_layer=pairs)
    assert [layer.node for layer in quality.layers] == ["bias", "scores", "softmax", "out"]
    assert all(layer.sqnr > 140 for layer in quality.layers)
    wrong = compare(reference, parse(text.replace("-1e9", "-3")), dataset(), per_layer=pairs)
    assert wrong.worst_layers(1)[0].sqnr < 40


def test_layers_in_one_model_only_are_noted(parse: Parse) -> None:
    quality = measure(parse, LINEAR, LINEAR, per_layer={"y": "y", "nowhere": "y"})
    assert [layer.value for layer in quality.layers] == ["y"]
    assert quality.notes == ("1 tensors exist in one model only",)


@pytest.mark.parametrize(
    ("body", "vector"),
    [
        ("y = Softmax(x)", False),
        ("y = MatMul(x, w)", False),
        ("h = MatMul(x, w)\ny = Add(h, b)", False),
        ("y = LayerNormalization(x, b)", True),
        ("h = MatMul(x, w)\ny = Tanh(h)", True),
        ("m = ReduceMean(x)\nd = Sub(x, m)\ne = Mul(d, b)\nf = Add(e, b)\ny = Identity(f)", True),
        ("h = MatMul(x, w)\ny = Add(h, x)", False),
    ],
)
def test_which_outputs_are_embeddings(parse: Parse, body: str, vector: bool) -> None:
    weights = "<float[2,2] w = {1,0,0,1}, float[2] b = {1,1}>"
    model = parse(f"{HEAD} m (float[1,2] x) => (float[1,2] y) {weights} {{ {body} }}")
    assert vector_outputs(model) == (frozenset({"y"}) if vector else frozenset())


def test_unit_vectors_are_not_judged_by_agreement() -> None:
    rng = np.random.default_rng(1)
    meter = OutputMeter("embedding")
    for _ in range(8):
        row = rng.normal(size=(1, 64))
        row /= np.linalg.norm(row)
        meter.update(row.astype(np.float32), np.roll(row, 1).astype(np.float32) * 0.01 + row.astype(np.float32))
    assert meter.result().kind == "vector"


def test_saturated_probabilities_are_still_classes() -> None:
    meter = OutputMeter("p")
    for k in range(4):
        meter.update(np.eye(4, dtype=np.float32)[k : k + 1], np.eye(4, dtype=np.float32)[k : k + 1])
    assert meter.result().kind == "classes"


def test_gates_asked_for() -> None:
    meter = OutputMeter("y")
    meter.update(np.array([[1.0, 2.0]]), np.array([[1.0, 1.9]]))
    quality = Quality(find_metric("sqnr"), 1, (meter.result(),))
    misses = check_gates(quality, Gates(min_sqnr=40, max_fallback=10), fallback=12.5)
    assert misses == [
        "12.50 % of the computation is left in float, 10 % was allowed",
        "output y: SQNR 26.99 dB, 40 dB was asked for",
    ]
    error = gate_error(misses)
    assert error.exit_code == 3
    assert "26.99" in str(error)
    assert check_gates(None, Gates(min_sqnr=40)) == ["--min-sqnr 40 was asked for, but nothing was measured"]


def test_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="cosine"):
        find_metric("cosin")


def test_a_metric_of_ones_own(parse: Parse) -> None:
    @metric("largest-error", higher_is_better=False)
    def largest(reference: np.ndarray, candidate: np.ndarray) -> float:
        return float(np.abs(reference - candidate).max())

    assert isinstance(largest, Metric)
    assert find_metric("largest-error", [largest]) is largest
    scaled = LINEAR.replace("1,0,0, 0,1,0", "2,0,0, 0,1,0")
    quality = measure(parse, LINEAR, scaled, metric=largest)
    assert quality.value == quality.outputs[0].custom
    assert quality.value is not None
    assert quality.value > 0.1


def test_a_failing_metric_is_the_metrics_fault(parse: Parse) -> None:
    @metric("bad", higher_is_better=True)
    def bad(*_: np.ndarray) -> float:
        raise KeyError("oops")

    with pytest.raises(UsageError, match="metric 'bad' failed: KeyError"):
        measure(parse, LINEAR, LINEAR, metric=bad)
