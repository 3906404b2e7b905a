"""Outliers are left out, clusters give one sample each, strata share evenly; the same seed gives the same choice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from qcompiler.calibration import data, engine
from qcompiler.calibration.data import Dataset
from qcompiler.calibration.inner import inner_deviations
from qcompiler.calibration.observers import MinMax
from qcompiler.calibration.selection import deviations, kmeans, select
from qcompiler.calibration.selectors import Clusters, Outliers, Stratify, parse, parse_all
from qcompiler.errors import DataError, UsageError
from qcompiler.ir import io

IMAGE = {"x": (np.float32, ("N", 3, 16, 16))}
STEPS = {"x": (np.float32, ("N", 4)), "t": (np.int64, ("N",))}


def images(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Smooth pictures in 0 … 1."""
    generator = np.random.default_rng(seed)
    coarse = generator.random((count, 3, 4, 4)).astype(np.float32)
    return np.kron(coarse, np.ones((4, 4), np.float32)) * 0.9 + 0.1 * generator.random((count, 3, 16, 16)).astype("f4")


def dataset(array: NDArray[np.float32]) -> Dataset:
    return data.load({"x": array}, IMAGE)


def column(chosen: Dataset, name: str = "x") -> NDArray[np.float64]:
    return np.concatenate([feed[name] for feed in chosen])


def damaged(kind: str, image: NDArray[np.float32], generator: np.random.Generator) -> NDArray[np.float32]:
    spread = image.std()
    changed = {
        "scaled": lambda: image * 255,
        "twice": lambda: image * 2 + 0.3,
        "blank": lambda: np.full_like(image, image.max() * 2),
        "noise": lambda: image + 3 * spread * generator.standard_normal(image.shape),
        "impulses": lambda: np.where(generator.random(image.shape) < 0.02, 8 * spread, image),
        "shifted": lambda: image + 5 * spread,
    }[kind]()
    return np.asarray(changed, np.float32)


KINDS = ["scaled", "twice", "blank", "noise", "impulses", "shifted"]


@pytest.mark.parametrize("kind", KINDS)
def test_ten_percent_of_damaged_samples_do_not_move_the_range(kind: str) -> None:
    clean = images(60)
    generator = np.random.default_rng(1)
    bad = generator.choice(60, 6, replace=False)
    mixed = np.concatenate([clean, np.stack([damaged(kind, clean[index], generator) for index in bad])])
    order = generator.permutation(66)
    kept = column(select(dataset(mixed[order]), ["outliers"]))
    assert abs(np.ptp(kept) / np.ptp(clean) - 1) < 0.05
    assert abs(np.ptp(mixed) / np.ptp(clean) - 1) > 0.3
    assert len(kept) >= 58


def test_what_was_left_out_is_said() -> None:
    mixed = images(20)
    mixed[7] *= 30
    chosen = select(dataset(mixed), ["outliers"])
    assert len(chosen) == 19
    assert "left out 1 of 20 samples as outliers: number 7 (" in chosen.notes[-1]
    assert select(dataset(images(20)), ["outliers"]).notes[-1] == "no outliers among 20 samples"


def test_a_second_kind_of_data_is_no_outlier() -> None:
    mixed = images(20)
    mixed[::3] *= 30
    chosen = select(dataset(mixed), ["outliers"])
    assert len(chosen) == 20
    assert "second kind" in chosen.notes[-1]


def test_too_few_samples_have_no_outliers() -> None:
    mixed = images(5)
    mixed[0] *= 100
    chosen = select(dataset(mixed), ["outliers"])
    assert len(chosen) == 5
    assert "too few" in chosen.notes[-1]


def test_equal_samples_and_samples_of_different_lengths_are_no_outliers() -> None:
    assert deviations(dataset(np.ones((12, 3, 16, 16), np.float32)))[0].max() == 0
    ids = [{"ids": np.arange(1, 4 + index % 5)[None]} for index in range(16)]
    chosen = select(data.load(ids, {"ids": (np.int64, ("N", "L"))}), ["outliers"])
    assert len(chosen) == 16


def test_the_model_tells_noise_of_ordinary_range(parse: Callable[[str], ir.Model]) -> None:
    model = parse("""<ir_version: 10, opset_import: ["": 21]>
        g (float[N, 3, 16, 16] x) => (float[N, 3, 16, 16] y)
        {
            p = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x)
            d = Sub(x, p)
            y = Relu(d)
        }""")
    generator = np.random.default_rng(2)
    mixed = images(40)
    mixed[:4] = generator.permuted(mixed[:4].reshape(4, -1), axis=1).reshape(4, 3, 16, 16)
    scores = inner_deviations(model, dataset(mixed))
    assert scores[:4].min() > 2 * scores[4:].max()
    assert set(deviations(dataset(mixed), model)[0] >= scores) == {True}


# -- clusters --------------------------------------------------------------------------------------------------


def test_masks_of_infinity_inside_hide_no_outlier(parse: Callable[[str], ir.Model]) -> None:
    model = parse("""<ir_version: 10, opset_import: ["" : 21]>
        g (float[N, 3, 16, 16] x) => (float[N, 3, 16, 16] y) <float hidden = {-inf}> {
            masked = Min (x, hidden)
            y = Sub (x, masked)
        }""")
    assert np.isfinite(inner_deviations(model, dataset(images(20)))).all()


def test_one_sample_of_each_kind() -> None:
    generator = np.random.default_rng(0)
    kinds = images(5, seed=3)
    labels = np.sort(generator.integers(0, 5, 50))
    mixed = kinds[labels] + 0.01 * generator.standard_normal((50, 3, 16, 16)).astype(np.float32)
    chosen = select(dataset(mixed), ["clusters:5"])
    assert sorted(labels[list(chosen.order)]) == [0, 1, 2, 3, 4]
    assert chosen.order == select(dataset(mixed), [Clusters(5)]).order
    assert "5 of 50 samples" in chosen.notes[-1]


def test_more_clusters_than_samples_keep_all() -> None:
    assert len(select(dataset(images(4)), ["clusters:9"])) == 4


@pytest.mark.parametrize("seed", range(20))
def test_every_centre_has_points_and_is_their_mean(seed: int) -> None:
    generator = np.random.default_rng(seed)
    points = np.round(generator.standard_normal((30, 2)) * 2)  # with copies
    count = int(generator.integers(1, 31))
    centres, owner = kmeans(points, count, np.random.default_rng(seed))
    assert sorted(set(owner)) == list(range(count))
    for index in range(count):
        np.testing.assert_allclose(centres[index], points[owner == index].mean(axis=0))


def test_shapes_that_cannot_be_compared_are_refused() -> None:
    feeds = [{"x": np.zeros((1, 2 + index % 2, 8), np.float32)} for index in range(6)]
    mixed = data.load(feeds, {"x": (np.float32, ("N", "C", 8))})
    with pytest.raises(DataError, match="different shapes"):
        select(mixed, ["clusters:2"])


# -- strata ----------------------------------------------------------------------------------------------------


def steps(values: list[int]) -> Dataset:
    return data.load({"x": np.zeros((len(values), 4), np.float32), "t": np.array(values)}, STEPS)


def test_strata_share_evenly_as_far_as_they_go() -> None:
    chosen = select(steps([0] * 20 + [1] * 10 + [2] * 2), ["stratify:t:12"])
    values = column(chosen, "t").tolist()
    assert {value: values.count(value) for value in (0, 1, 2)} == {0: 5, 1: 5, 2: 2}


def test_without_a_count_every_stretch_holds_all_strata() -> None:
    chosen = select(steps([0] * 16 + [1] * 16 + [2] * 16 + [3] * 16), ["stratify:t"])
    assert len(chosen) == 64
    values = column(chosen, "t")
    for start in range(0, 64, 8):
        assert np.bincount(values[start : start + 8].astype(int), minlength=4).tolist() == [2, 2, 2, 2]


def test_many_values_are_grouped_by_quantiles() -> None:
    chosen = select(steps(list(range(320))), ["stratify:t:32"])
    assert "16 groups" in chosen.notes[-1]
    counts = np.histogram(column(chosen, "t"), bins=16, range=(0, 320))[0]
    assert counts.tolist() == [2] * 16


def test_an_unknown_input_names_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        select(steps([0, 1]), ["stratify:tt"])
    assert caught.value.hint == "did you mean 't'? the inputs are x, t"


# -- words -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("outliers", Outliers()),
        ("outliers:4.5", Outliers(4.5)),
        ("clusters:64", Clusters(64)),
        ("stratify:t", Stratify("t")),
        ("stratify:t:32", Stratify("t", 32)),
        ("stratify:serving_default_t:0", Stratify("serving_default_t:0")),
        ("stratify:serving_default_t:0:32", Stratify("serving_default_t:0", 32)),
    ],
)
def test_words_and_values(word: str, value: object) -> None:
    assert parse(word) == value
    assert str(value) == word


@pytest.mark.parametrize("word", ["outliers:x", "outliers:0", "clusters:0", "clusters:", "stratify:", "random", ""])
def test_wrong_words(word: str) -> None:
    with pytest.raises(UsageError):
        parse_all([word])


def test_selectors_follow_each_other() -> None:
    mixed = images(40)
    mixed[3] *= 50
    chosen = select(dataset(mixed), ["outliers", "clusters:8"])
    assert len(chosen) == 8
    assert 3 not in chosen.order
    assert len(chosen.notes) == 2


# -- real data -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet20_cifar10", "dscnn_kws"])
def test_ranges_inside_real_networks(zoo: ModuleType, zoo_folder: Path, name: str) -> None:
    case = zoo.load(name, zoo_folder)
    model = io.load(case.model)
    inputs = data.inputs_of(model)
    feeds = case.calibration(48)
    generator = np.random.default_rng(0)
    bad = generator.choice(48, 5, replace=False)
    key = next(iter(inputs))
    mixed = [*feeds, *({key: damaged("scaled", feeds[index][key], generator)} for index in bad)]
    names = [str(node.outputs[0].name) for node in model.graph if node.op_type in ("Conv", "Relu", "Gemm", "Add")]
    clean = _ranges(model, data.load(feeds, inputs), names)
    kept = _ranges(model, select(data.load(mixed, inputs), ["outliers"], model=model), names)
    np.testing.assert_allclose(kept, clean, rtol=0.05)


def _ranges(model: ir.Model, samples: Dataset, names: list[str]) -> NDArray[np.float64]:
    observers = {name: MinMax() for name in names}
    engine.collect(model, samples, observers, threads=1)
    return np.array([float(item.high - item.low) for item in observers.values()])
