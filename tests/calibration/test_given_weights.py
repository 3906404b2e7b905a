"""Weights of samples and positions: where they come from, what is refused, what 0 and 2 mean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import qcompiler
from qcompiler.calibration import data, engine, row_weights
from qcompiler.calibration.given_weights import WEIGHTS
from qcompiler.calibration.mean import MeanObserver
from qcompiler.calibration.observers import make
from qcompiler.calibration.row_weights import FeedWeights, RowWeights
from qcompiler.calibration.second_moment import Layout, SecondMoments, Window
from qcompiler.errors import DataError
from qcompiler.ir.edit import Edit
from qcompiler.pipeline.base import Context, PassRecord
from qcompiler.pipeline.instruments.reproducer import DATA, _save_calibration
from qcompiler.quant.format import QFormat

INPUTS = {"x": (np.float32, ("N", 5, 4))}


def samples(count: int = 6) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).standard_normal((count, 5, 4)).astype(np.float32)}


def stored_together(folder: Path, arrays: dict[str, np.ndarray]) -> Any:
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


def stored_apart(folder: Path, arrays: dict[str, np.ndarray]) -> Any:
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def stored_by_sample(folder: Path, arrays: dict[str, np.ndarray]) -> Any:
    for index in range(len(arrays["x"])):
        (folder / f"s{index}").mkdir()
        for name, array in arrays.items():
            np.save(folder / f"s{index}" / f"{name}.npy", array[index : index + 1])
    return folder


def as_mapping(_: Path, arrays: dict[str, np.ndarray]) -> Any:
    return arrays


def as_feeds(_: Path, arrays: dict[str, np.ndarray]) -> Any:
    return [{name: array[start : start + 2] for name, array in arrays.items()} for start in range(0, 6, 2)]


@pytest.mark.parametrize("form", [stored_together, stored_apart, stored_by_sample, as_mapping, as_feeds])
@pytest.mark.parametrize("positions", [False, True])
def test_every_source_may_hold_weights(tmp_path: Path, form: Callable[..., Any], positions: bool) -> None:
    weights = np.array([1.0, 2.0, 0.0, 0.5, 1.0, 3.0])
    weights = np.repeat(weights[:, None], 5, axis=1) if positions else weights
    loaded = data.load(form(tmp_path, samples() | {WEIGHTS: weights}), INPUTS)
    assert loaded.order == (0, 1, 3, 4, 5)
    found = np.concatenate([loaded.weights_of(number) for number in range(len(loaded))])
    np.testing.assert_allclose(found, weights[[0, 1, 3, 4, 5]] / 1.5, rtol=1e-6)
    assert any("1 samples of weight 0 are left out" in note for note in loaded.notes)
    assert loaded.digest() != data.load(samples(), INPUTS).digest()


def test_weights_follow_the_samples_that_are_chosen() -> None:
    loaded = data.load(samples() | {WEIGHTS: [1, 2, 0, 4, 5, 6]}, INPUTS)
    assert [float(loaded.subset([4, 1]).weights_of(number)[0]) for number in range(2)] == [
        pytest.approx(6 / 3.6), pytest.approx(2 / 3.6)]  # fmt: skip
    np.testing.assert_allclose(row_weights.mean_weights(loaded.subset([0, 3])), [1 / 3, 5 / 3])


def test_weights_that_say_nothing_are_none() -> None:
    plain = data.load({"x": samples()["x"][[0, 1, 3, 4, 5]]}, INPUTS)
    loaded = data.load(samples() | {WEIGHTS: np.array([1, 1, 0, 1, 1, 1])}, INPUTS)
    assert loaded.all_weights is None
    assert row_weights.of(loaded) is None
    assert loaded.digest() == plain.digest()
    assert data.load(samples() | {WEIGHTS: np.ones((6, 5), bool)}, INPUTS).all_weights is None


@pytest.mark.parametrize("unit", [1e-300, 1e-20, 0.1, 3, 1e38, 1e300])
@pytest.mark.parametrize("shape", [(6,), (6, 5)])
def test_only_ratios_of_weights_count(unit: float, shape: tuple[int, ...]) -> None:
    alike = data.load(samples() | {WEIGHTS: np.full(shape, unit)}, INPUTS)
    assert alike.all_weights is None
    ratios = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    one, other = (data.load(samples() | {WEIGHTS: ratios * factor}, INPUTS).all_weights for factor in (1.0, unit))
    assert one is not None
    assert other is not None
    np.testing.assert_allclose(one, other, rtol=1e-6)
    assert one[one > 0].mean() == pytest.approx(1)


def test_positions_that_count_alike_are_ones_beside_zeros() -> None:
    weights = np.full((6, 5), 0.3)
    weights[2, 1:3] = 0
    found = data.load(samples() | {WEIGHTS: weights}, INPUTS).all_weights
    np.testing.assert_array_equal(found, weights > 0)


def test_a_fixed_batch_is_filled_with_samples_that_count() -> None:
    loaded = data.load(samples() | {WEIGHTS: [1, 0, 2, 1, 1, 1]}, {"x": (np.float32, (2, 5, 4))})
    assert loaded.order == (0, 2, 3, 4)
    np.testing.assert_allclose(loaded.weights_of(0), np.array([1, 2]) / 1.2, rtol=1e-6)
    assert any("the last 1 of 5 samples" in note for note in loaded.notes)
    with pytest.raises(DataError, match="holds 1 samples, the model takes 2"):
        data.load(samples() | {WEIGHTS: [0, 0, 0, 1, 0, 0]}, {"x": (np.float32, (2, 5, 4))})


def test_an_input_of_that_name_is_an_input() -> None:
    weights = np.ones((6, 5, 4), np.float32) * 2
    loaded = data.load({WEIGHTS: weights}, {WEIGHTS: INPUTS["x"]})
    assert loaded.all_weights is None
    np.testing.assert_array_equal(next(iter(loaded))[WEIGHTS], weights[:1])


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (np.ones(5), r"shape \(5,\) do not fit 6 samples"),
        (np.ones((6, 1, 1)), r"shape \(6, 1, 1\)"),
        (np.ones((6, 4)), "weights of 4 positions do not fit samples of 5 positions"),
        (np.array([1, 1, -1, 1, 1, 1.0]), "weight of sample 2 is negative"),
        (np.array([1, 1, 1, np.nan, 1, 1.0]), "weight of sample 3 is not finite"),
        (np.array([1, 1, 1, 1, np.inf, 1.0]), "weight of sample 4 is not finite"),
        (np.zeros(6), "every sample weighs 0"),
        (np.array(["a"] * 6), "not numbers"),
        (np.ones(6, complex), "not numbers"),
    ],
)
def test_what_is_refused(weights: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        data.load(samples() | {WEIGHTS: weights}, INPUTS)
    assert WEIGHTS in str(caught.value)


# -- rows of tensors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 3, 7), [[[1]], [[3]]]),
        ((4, 7), [[1], [1], [3], [3]]),  # samples one after the other
        ((2,), [1, 3]),
        ((3, 7), [[2]]),  # no samples there: the mean
        ((), 2),
    ],
)
def test_weights_of_samples_belong_to_the_leading_axis(shape: tuple[int, ...], expected: Any) -> None:
    found = FeedWeights(None, frozenset(), np.array([1, 3], np.float32)).of("any", shape)
    np.testing.assert_array_equal(found, expected)


def test_weights_multiply_the_padding_mask() -> None:
    inputs = {"ids": (np.int64, ("N", 3)), "attention_mask": (np.int64, ("N", 3))}
    feed = {"ids": np.ones((2, 3), np.int64), "attention_mask": np.array([[1, 1, 0], [1, 0, 0]])}
    by_sample = row_weights.of(data.load(feed | {WEIGHTS: [1.5, 0.5]}, inputs))
    assert by_sample is not None
    rows = by_sample.of_feed({"attention_mask": feed["attention_mask"][:1]}, 0)
    assert rows is not None
    np.testing.assert_array_equal(rows.of("any", (1, 3, 9)), [[[1.5], [1.5], [0]]])
    np.testing.assert_array_equal(rows.of("any", (1, 9)), [[1.5]])
    by_position = row_weights.of(data.load(feed | {WEIGHTS: [[0.5, 2, 2], [0.5, 0.5, 0.5]]}, inputs))
    assert by_position is not None
    rows = by_position.of_feed({"attention_mask": feed["attention_mask"][:1]}, 0)
    assert rows is not None
    np.testing.assert_array_equal(rows.of("any", (1, 3, 9)), [[[0.5], [2], [0]]])
    assert rows.of("any", (1, 9)) is None
    with pytest.raises(DataError, match="do not fit 'attention_mask'"):
        by_position.of_feed({"attention_mask": np.array([[1, 0]])}, 0)


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse", "entropy"])
def test_observers_count_a_weight_of_two_twice(method: str) -> None:
    twice, weighted = make(method), make(method)
    weights = FeedWeights(None, frozenset(), np.array([1, 2, 1], np.float32))
    values = np.random.default_rng(1).standard_normal((3, 5, 4)).astype(np.float32)
    twice.update(values[[0, 1, 1, 2]])
    weighted.update(values, weights.of("x", values.shape))
    form = QFormat.parse("u8")
    np.testing.assert_array_equal(twice.range(form), weighted.range(form))


@pytest.mark.parametrize("layout", [Layout(-1), Layout(1), Layout(1, Window((2, 2), (1, 1), (1, 1, 0, 0), (1, 1)))])
def test_sums_count_a_weight_of_two_twice(layout: Layout) -> None:
    values = np.random.default_rng(1).standard_normal((3, 5, 4, 4)).astype(np.float32)
    weights = FeedWeights(None, frozenset(), np.array([1, 2, 1], np.float32)).of("x", values.shape)
    twice, weighted = SecondMoments([layout]), SecondMoments([layout])
    twice.update(values[[0, 1, 1, 2]])
    weighted.update(values, weights)
    np.testing.assert_allclose(twice.sums(layout), weighted.sums(layout), rtol=1e-6)  # type: ignore[arg-type]
    means = [MeanObserver(1), MeanObserver(1)]
    means[0].update(values[[0, 1, 1, 2]])
    means[1].update(values, weights)
    np.testing.assert_allclose(means[0].mean(), means[1].mean(), rtol=1e-12)


# -- whole compiles --------------------------------------------------------------------------------------------

NETWORK = """<ir_version: 10, opset_import: ["": 21]> g (float[N, L, 4] x) => (float[N, L, 3] y)
    { a = MatMul(x, w1)  c = Add(a, b1)  r = Relu(c)  y = MatMul(r, w2) }"""


@pytest.fixture
def network(tmp_path: Path) -> Path:
    proto = onnx.parser.parse_model(NETWORK)
    generator = np.random.default_rng(2)
    for name, shape in {"w1": (4, 6), "b1": (6,), "w2": (6, 3)}.items():
        content = generator.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(content, name))
    onnx.save(proto, tmp_path / "network.onnx")
    return tmp_path / "network.onnx"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def compiled(model: Path, arrays: dict[str, np.ndarray], name: str, form: str = "w4a8") -> bytes:
    np.savez(f"{name}.npz", **arrays)
    qcompiler.compile(
        model, "edge-npu", output=f"{name}.onnx", calibration=f"{name}.npz", evaluation={"x": samples(3)["x"] * 0.9},
        format=form, latency=False, cache=False, keep=True,
    )  # fmt: skip
    return Path(f"{name}.onnx").read_bytes()


def test_a_sample_of_weight_0_is_as_if_it_were_not_there(network: Path) -> None:
    arrays = samples(24)
    arrays["x"][[3, 17]] *= 50
    weights = np.ones(24)
    weights[[3, 17]] = 0
    left = compiled(network, {"x": np.delete(arrays["x"], [3, 17], axis=0)}, "left")
    assert compiled(network, arrays | {WEIGHTS: weights}, "weighted") == left
    assert compiled(network, arrays, "all") != left


def test_a_position_of_weight_0_is_as_if_it_were_not_there(network: Path) -> None:
    arrays = samples(24)
    arrays["x"][:, 4] *= 50
    weights = np.ones((24, 5))
    weights[:, 4] = 0
    left = compiled(network, {"x": arrays["x"][:, :4]}, "left")
    assert compiled(network, arrays | {WEIGHTS: weights}, "weighted") == left
    assert compiled(network, arrays, "all") != left


def test_other_weights_matter(network: Path) -> None:
    """Roundings, whose Hessians are weighted, follow samples of large weight."""
    arrays = samples(24)
    arrays["x"][::2, :, :2] *= 0.1
    arrays["x"][1::2, :, 2:] *= 0.1
    files = [compiled(network, arrays | {WEIGHTS: np.array(pair * 12)}, f"m{pair[0]}") for pair in ([1, 99], [99, 1])]
    assert files[0] != files[1]


def test_the_report_names_them(network: Path) -> None:
    result = qcompiler.compile(
        network, "edge-npu", calibration=samples(16) | {WEIGHTS: np.arange(16)}, latency=False, cache=False, keep=True
    )
    assert "samples are weighted" in result.report.to_json()


def test_without_weights_nothing_is_multiplied() -> None:
    assert RowWeights().of_feed({}, 0) is None


def test_a_reproducer_keeps_them(network: Path, tmp_path: Path) -> None:
    model = ir.load(network)
    ctx = Context(Edit(model), calibration=data.load(samples() | {WEIGHTS: [1, 2, 0, 4, 5, 6]}, INPUTS))
    _save_calibration(ctx, tmp_path)
    again = data.load(tmp_path / DATA, INPUTS)
    found = [float(again.weights_of(number)[0]) for number in range(len(again))]  # type: ignore[index]
    np.testing.assert_allclose(found, np.array([1, 2, 4, 5, 6]) / 3.6, rtol=1e-6)


def test_a_reserved_name_that_means_nothing_is_refused(tmp_path: Path) -> None:
    """A misspelt one would be ignored, and every sample count alike."""
    path = tmp_path / "data.npz"
    np.savez(path, **{"x": np.zeros((4, 3), np.float32), "qcompiler.weight": np.ones(4)})
    with pytest.raises(DataError, match=r"'qcompiler\.weight', which means nothing") as caught:
        data.load(path, {"x": (ir.DataType.FLOAT, ("N", 3))})
    assert "'qcompiler.weights'" in caught.value.hint


def test_tensors_that_weights_of_positions_do_not_reach_are_told_of_once(tmp_path: Path) -> None:
    """Also when what was observed comes from the cache, and not at all where the weights are of samples."""
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 21]> g (float[N,5,4] x) => (float[N,4,5] y)
        { a = Neg(x)  t = Transpose<perm = [0, 2, 1]>(a)  p = ReduceMean<keepdims = 0>(a, axis)  y = Neg(t) }""")
    Edit(model).constant("axis", np.array([1], np.int64))
    model = ir.from_proto(ir.to_proto(model))
    positions = np.tile([1.0, 2.0, 1.0, 1.0, 0.0], (6, 1))

    def warnings(weights: Any, cache: Path | None, *names: str) -> list[str]:
        dataset, ctx = data.load(samples() | {WEIGHTS: weights}, INPUTS), Context(Edit(model), cache_dir=cache)
        for _ in range(2):
            ctx.records.append(PassRecord("one"))
            seen = {name: make("minmax") for name in names}
            engine.collect(model, dataset, seen, ctx=ctx, row_weights=row_weights.of(dataset, model.graph))
        return [note.text for record in ctx.records for note in record.notes if note.level == "warning"]

    for cache in (None, tmp_path, tmp_path):
        (told,) = warnings(positions, cache, "a", "t", "p", "y")
        assert told.startswith("weights of positions do not reach tensors whose token axis is in doubt ('t', 'y')")
        assert warnings(positions, cache, "a", "p") == []
        assert warnings(np.arange(6), cache, "a", "t", "p", "y") == []
