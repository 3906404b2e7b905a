"""Streams and heads are turned by orthogonal matrices: the model stays what it is."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from qcompiler.calibration.checks import inputs_of
from qcompiler.calibration.data import load as load_data
from qcompiler.errors import DataError
from qcompiler.ir import io
from qcompiler.ir.edit import Edit
from qcompiler.ir.execute import Runner
from qcompiler.ir.facts import check
from qcompiler.models import loaders
from qcompiler.passes.equalize._moments import moments
from qcompiler.passes.equalize._orthogonal import hadamard, keeping_ones, principal, random_hadamard
from qcompiler.passes.equalize.rotate import Rotate
from qcompiler.passes.normalize.recognize_regions import RecognizeRegions
from qcompiler.pipeline import spec
from qcompiler.pipeline.base import Context, Fact, PassRecord
from qcompiler.pipeline.manager import Pipeline
from qcompiler.target.load import load

Array = NDArray[Any]
TARGET = load("edge-npu")


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def normalized(path: Path) -> ir.Model:
    model = io.load(path)
    Pipeline(spec.parse("normalize")).run(model, Context(Edit(model), target=TARGET))
    return model


def run(which: Rotate, model: ir.Model, feeds: list[dict[str, Array]], added: int = 0) -> Context:
    """Run the pass; make sure that outputs, facts and nodes stay, and that a second run changes nothing."""
    data = load_data(feeds, inputs_of(model))
    context = Context(Edit(model), target=TARGET, calibration=data, jobs=1, records=[PassRecord(which.name)])
    wanted = Runner(model, optimize=False, threads=1).run(feeds[0])
    count = len(list(model.graph))
    which.run(model, context)
    got = Runner(model, optimize=False, threads=1).run(feeds[0])
    for name, array in wanted.items():
        assert np.abs(got[name] - array).max() <= 1e-5 * np.abs(array).max(), name
    assert len(list(model.graph)) == count + added
    for fact in (Fact.TYPED, Fact.SORTED, Fact.CANONICAL):
        assert check(fact, model) == []
    before = context.edit.count
    which.run(model, Context(context.edit, target=TARGET, calibration=data, jobs=1))
    assert context.edit.count == before, "a second run changes something"
    return context


def skipped(context: Context) -> str:
    return "; ".join(f"{skip.node}: {skip.reason}" for skip in context.records[0].skips)


@pytest.mark.parametrize("size", [1, 2, 4, 8, 12, 20, 24, 28, 36, 48, 64, 76, 384])
def test_hadamard_matrices_have_equal_entries(size: int) -> None:
    matrix = hadamard(size)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(size), atol=1e-12)
    np.testing.assert_allclose(np.abs(matrix), np.full((size, size), size**-0.5), atol=1e-12)


@pytest.mark.parametrize(("size", "block"), [(172, 4), (6, 2), (7, 1), (56, 56), (40, 40)])
def test_other_sizes_are_blocks(size: int, block: int) -> None:
    matrix = random_hadamard(size, seed=3)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(size), atol=1e-12)
    assert (np.count_nonzero(matrix, axis=1) == block).all()
    assert np.array_equal(matrix, random_hadamard(size, seed=3))


def test_a_reflection_keeps_ones_and_the_rest_orthogonal() -> None:
    for size in (4, 12, 64):
        matrix = keeping_ones(random_hadamard(size, seed=1))
        np.testing.assert_allclose(matrix @ np.ones(size), np.ones(size), atol=1e-12)
        np.testing.assert_allclose(matrix.T @ np.ones(size), np.ones(size), atol=1e-12)
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(size), atol=1e-12)


def test_principal_directions_and_a_hadamard_matrix_make_variances_equal() -> None:
    data = normal(500, 16).astype(np.float64) @ normal(16, 16, seed=2)
    moment = data.T @ data
    vectors = principal(moment)
    turned = vectors.T @ moment @ vectors
    np.testing.assert_allclose(turned - np.diag(np.diag(turned)), 0, atol=1e-8 * turned.max())
    assert (np.diff(np.diag(turned)) <= 1e-9 * turned.max()).all()
    both = vectors @ random_hadamard(16, seed=0)
    spread = np.diag(both.T @ moment @ both)
    assert np.diag(turned).max() / np.diag(turned).min() > 100
    # rows have random signs, columns all the same magnitude: every channel gets the mean variance
    np.testing.assert_allclose(spread, np.full(16, spread.mean()), rtol=1e-9)


def stream(make: SimpleNamespace, norm: str, reader: str = "Tanh") -> ir.Model:
    """A constant and a product write a stream; a branch reads it through a norm and adds to it; a norm ends it."""
    shift = " beta" if norm == "LayerNormalization" else ""
    nodes = [
        make.node("MatMul", "x w0", "m0"),
        make.node("Add", "m0 b0", "s0"),
        make.node("Add", "s0 position", "s1"),
        make.node(norm, f"s1 gamma{shift}", "n1"),
        make.node("MatMul", "n1 w1", "m1"),
        make.node("Add", "m1 b1", "a1"),
        make.node(reader, "a1", "t1"),
        make.node("MatMul", "t1 w2", "m2"),
        make.node("Add", "s1 m2", "s2"),
        make.node(norm, f"s2 gamma2{shift and ' beta2'}", "n2"),
        make.node("MatMul", "n2 w3", "y"),
    ]
    both = {"beta": normal(16, seed=3), "beta2": normal(16, seed=4)} if shift else {}
    return make.build(  # type: ignore[no-any-return]
        nodes, ["N", 4, 6],
        w0=normal(6, 16), b0=normal(16), position=normal(4, 16, seed=5),
        gamma=1 + 0.3 * normal(16), w1=normal(16, 8), b1=normal(8), w2=normal(8, 16),
        gamma2=2 + 0.3 * normal(16, seed=2), w3=normal(16, 5), **both,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["hadamard", "klt", "klt-hadamard"])
def test_a_stream_between_norms_is_turned(make: SimpleNamespace, kind: Any) -> None:
    model = stream(make, "LayerNormalization")
    first = make.content(model, "w0").astype(np.float64)
    feeds = [{"x": normal(1, 4, 6, seed=seed)} for seed in range(4)]
    context = run(Rotate(kind=kind), model, feeds)
    assert context.records[0].notes[0].text == f"turned 1 residual streams of 16 channels ({kind})"
    turn, *_ = np.linalg.lstsq(first, make.content(model, "w0").astype(np.float64), rcond=None)
    np.testing.assert_allclose(first @ turn, make.content(model, "w0"), atol=1e-5)
    assert (make.content(model, "gamma") == 1).all()
    assert not make.content(model, "beta").any()  # the product behind has a bias
    assert make.content(model, "beta2").any()  # the last one has none


def test_norms_of_a_stream_share_one_sum(make: SimpleNamespace) -> None:
    """Rows count with length 1, a tensor that two norms read once, padding not at all."""
    model = stream(make, "LayerNormalization")
    feeds = [{"x": normal(2, 4, 6, seed=seed)} for seed in range(3)]
    dataset = load_data(feeds, inputs_of(model))
    runner = Runner(model, ["s1", "s2"])
    rows = {name: np.concatenate([runner.run(feed)[name].reshape(-1, 16) for feed in feeds]) for name in ("s1", "s2")}
    unit = {name: array / np.linalg.norm(array, axis=1, keepdims=True) for name, array in rows.items()}
    both, second = moments(model, [["s1", "s2", "s1"], ["s2"]], dataset, Context(Edit(model)), heads=False)
    np.testing.assert_allclose(second, [unit["s2"].T @ unit["s2"]], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(both - second, [unit["s1"].T @ unit["s1"]], rtol=1e-5, atol=1e-5)
    [plain] = moments(model, [["s1"]], dataset, Context(Edit(model)), heads=True)
    np.testing.assert_allclose(plain, [rows["s1"].T @ rows["s1"]], rtol=1e-4, atol=1e-4)


def test_memory_does_not_grow_with_the_norms_of_a_stream(parse: Any) -> None:
    peaks = []
    for count in (2, 12):
        body = "\n".join(f"[n{i}] s{i + 1} = Neg (s{i})" for i in range(count))
        model = parse(
            f'<ir_version: 10, opset_import: ["" : 21]> g (float[N,384] s0) => (float[N,384] s{count}) {{ {body} }}'
        )
        dataset = load_data([{"s0": normal(4, 384)}], inputs_of(model))
        names = [f"s{i}" for i in range(count + 1)]
        moments(model, [names[:1]], dataset, Context(Edit(model)), heads=False)  # what is imported on the way
        tracemalloc.start()
        try:
            moments(model, [names], dataset, Context(Edit(model)), heads=False)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < peaks[0] + 384 * 384 * 8  # less than one matrix more


def test_a_norm_written_in_parts_is_left_with_a_reason(make: SimpleNamespace) -> None:
    nodes = [
        make.node("MatMul", "x w0", "s"),
        make.node("Pow", "s two", "p"),
        make.node("ReduceMean", "p axes", "m"),
        make.node("Add", "m epsilon", "e"),
        make.node("Sqrt", "e", "r"),
        make.node("Div", "s r", "d"),
        make.node("Mul", "d gamma", "n"),
        make.node("MatMul", "n w1", "y"),
    ]
    model = make.build(
        nodes, ["N", 4, 6], w0=normal(6, 16), two=np.float32(2), axes=np.array([-1]), epsilon=np.float32(1e-5),
        gamma=normal(16), w1=normal(16, 4),
    )  # fmt: skip
    RecognizeRegions().run(model, Context(Edit(model), target=TARGET, records=[PassRecord("recognize-regions")]))
    context = run(Rotate(), model, [{"x": normal(1, 4, 6)}])
    assert context.edit.count == 0
    assert "it is written in parts" in skipped(context)


def test_without_samples_only_hadamard_matrices_are_known(make: SimpleNamespace) -> None:
    model = stream(make, "LayerNormalization")
    with pytest.raises(DataError, match="calibration samples"):
        Rotate(kind="klt").run(model, Context(Edit(model), target=TARGET))
    context = Context(Edit(model), target=TARGET)
    Rotate().run(model, context)
    assert context.edit.count > 0


def test_products_online_are_counted(make: SimpleNamespace) -> None:
    model = stream(make, "LayerNormalization")
    context = run(Rotate(online=True), model, [{"x": normal(1, 4, 6)}], added=2)
    assert context.records[0].notes[-1].text == (
        "added 2 products with Hadamard matrices: 100 multiply-accumulates for a row of each"
    )  # before w0 (6 inputs) and w2 (8 inputs)
    assert context.records[0].notes[-1].level == "warning"


def test_what_is_normalised_behind_the_sum_is_refused(make: SimpleNamespace) -> None:
    model = make.build(
        [
            make.node("MatMul", "x w0", "m0"),
            make.node("LayerNormalization", "m0 g b", "n1"),
            make.node("MatMul", "n1 w1", "m1"),
            make.node("Add", "n1 m1", "s"),
            make.node("LayerNormalization", "s g2 b2", "n2"),
            make.node("MatMul", "n2 w2", "y"),
        ],
        ["N", 4, 6], w0=normal(6, 16), g=normal(16), b=normal(16), w1=normal(16, 16), g2=normal(16, seed=1),
        b2=normal(16, seed=1), w2=normal(16, 4),
    )  # fmt: skip
    context = run(Rotate(heads=False), model, [{"x": normal(1, 4, 6)}])
    assert context.edit.count == 0
    assert "it is normalised behind the sum" in skipped(context)
    assert "LayerNormalization_n1 (LayerNormalization) makes it, which is not linear" in skipped(context)


@pytest.mark.parametrize("kind", ["hadamard", "klt-hadamard"])
def test_a_shipped_transformer_stays_what_it_is(kind: Any) -> None:
    sample = loaders.load("digits_vit")
    with np.load(sample.calibration) as arrays:
        feeds = [{name: arrays[name][i : i + 1] for name in arrays.files} for i in range(4)]
    context = run(Rotate(kind=kind), normalized(sample.path), feeds)
    assert "turned 1 residual streams of 48 channels" in context.records[0].notes[0].text
    assert "turned the values of 12 attention heads" in context.records[0].notes[1].text


@pytest.mark.parametrize(
    ("name", "notes"),
    [("stories260k_lm", ["64 channels", "20 attention"]), ("vit_mnist", ["64 channels", "24 attention"]),
     ("minilm_l6_stsb", ["72 attention"])],
)  # fmt: skip
def test_transformers_of_the_zoo_stay_what_they_are(zoo: ModuleType, name: str, notes: list[str]) -> None:
    case = zoo.load(name)
    context = run(Rotate(), normalized(Path(case.model)), case.calibration(2))
    assert len(context.records[0].notes) == len(notes)
    for note, wanted in zip(context.records[0].notes, notes, strict=True):
        assert wanted in note.text
