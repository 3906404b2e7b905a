"""Runs over samples: what observers see, what is refused, what is cached, what memory costs."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.calibration import data, engine, observers
from qcompiler.calibration.data import Dataset
from qcompiler.calibration.row_weights import RowWeights
from qcompiler.errors import DataError, ModelError
from qcompiler.ir.edit import Edit
from qcompiler.pipeline.base import Context
from qcompiler.quant.format import QFormat

U8 = QFormat.parse("u8")


def samples(model: ir.Model, count: int = 5, seed: int = 0) -> Dataset:
    values = np.random.default_rng(seed).standard_normal((count, 3, 8, 8)).astype(np.float32)
    return data.load({"x": values}, data.inputs_of(model))


def context(model: ir.Model, cache: Path | None = None) -> Context:
    return Context(Edit(model), cache_dir=cache)


def notes(ctx: Context) -> str:
    return " ".join(note.text for record in ctx.records for note in record.notes)


def test_inputs_intermediates_and_outputs_are_observed(small_cnn: ir.Model) -> None:
    dataset = samples(small_cnn)
    watchers = {name: observers.make("minmax") for name in ("x", "relu", "y")}
    engine.collect(small_cnn, dataset, watchers)
    seen = {name: observer.range(U8) for name, observer in watchers.items()}
    assert seen["x"][0] == min(feed["x"].min() for feed in dataset)
    assert seen["relu"][0] == 0.0
    assert seen["relu"][1] > 0.0
    assert [output.name for output in small_cnn.graph.outputs] == ["y"]  # the model is as it was


def test_only_inputs_need_no_session(small_cnn: ir.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qcompiler.ir.execute.Runner", None)
    watcher = observers.make("minmax")
    engine.collect(small_cnn, samples(small_cnn), {"x": watcher})
    assert watcher.range(U8)[1] > 0


def test_an_unknown_tensor_is_refused(small_cnn: ir.Model) -> None:
    with pytest.raises(ModelError, match="no tensor named 'nothing'"):
        engine.collect(small_cnn, samples(small_cnn), {"nothing": observers.make("minmax")})


@pytest.mark.parametrize("method", ["minmax", "mse", "moving-average"])
def test_nan_names_tensor_and_sample(parse: Callable[[str], ir.Model], method: str) -> None:
    model = parse("""<ir_version: 10, opset_import: ["": 21]>
        g (float[N, 2] x) => (float[N, 2] y) { root = Sqrt(x)  y = Neg(root) }""")
    values = np.ones((4, 2), np.float32)
    values[2, 1] = -1
    dataset = data.load({"x": values}, data.inputs_of(model))
    with pytest.raises(DataError, match=r"tensor 'root' holds NaN.* in calibration sample 2"):
        engine.collect(model, dataset, {"root": observers.make(method)})


def test_progress_is_told(small_cnn: ir.Model) -> None:
    told: list[tuple[str, int, int]] = []
    ctx = context(small_cnn)
    ctx.progress = lambda *step: told.append(step)
    engine.collect(small_cnn, samples(small_cnn, 3), {"relu": observers.make("minmax")}, ctx=ctx)
    assert told == [("calibrate", 1, 3), ("calibrate", 2, 3), ("calibrate", 3, 3)]


def test_memory_does_not_grow_with_samples(parse: Callable[[str], ir.Model], tmp_path: Path) -> None:
    model = parse("""<ir_version: 10, opset_import: ["": 21]>
        g (float[N, 100000] x) => (float[N, 100000] y) { r = Relu(x)  y = Neg(r) }""")

    def peak(count: int) -> int:
        path = tmp_path / f"{count}.npz"
        np.savez(path, x=np.ones((count, 100_000), np.float32))
        dataset = data.load(path, data.inputs_of(model))
        tracemalloc.start()
        engine.collect(model, dataset, {"r": observers.make("mse"), "y": observers.make("minmax")})
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    assert peak(40) < peak(4) + 400_000  # a sample's tensor is 400 kB


def test_padding_rows_weigh_nothing(parse: Callable[[str], ir.Model]) -> None:
    model = parse("""<ir_version: 10, opset_import: ["": 21]>
        g (float[N, L, 3] x, int64[N, L] attention_mask) => (float[N, L, 3] y, int64[N, L] m)
        { y = Neg(x)  m = Identity(attention_mask) }""")
    values = np.ones((2, 4, 3), np.float32)
    values[0, 3] = 1000  # padding
    values[1, 2] = 5
    mask = np.array([[1, 1, 1, 0], [1, 1, 1, 1]])
    dataset = data.load({"x": values, "attention_mask": mask}, data.inputs_of(model))
    watcher = observers.make("minmax")
    engine.collect(model, dataset, {"y": watcher}, row_weights=RowWeights("attention_mask"))
    assert [float(end) for end in watcher.range(U8)] == [-5.0, -1.0]


class TestCache:
    def collect(self, model: ir.Model, dataset: Dataset, ctx: Context, **options: object) -> observers.Observer:
        watcher = observers.make("percentile", **options)  # type: ignore[arg-type]
        engine.collect(model, dataset, {"relu": watcher, "x": observers.make("minmax")}, ctx=ctx)
        return watcher

    def test_a_second_run_needs_no_session(
        self, small_cnn: ir.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = self.collect(small_cnn, samples(small_cnn), context(small_cnn, tmp_path))
        monkeypatch.setattr("qcompiler.ir.execute.Runner", None)
        ctx = context(small_cnn, tmp_path)
        second = self.collect(small_cnn, samples(small_cnn), ctx)
        np.testing.assert_array_equal(first.range(U8), second.range(U8))
        assert "came from the cache" in notes(ctx)

    def test_data_weights_and_settings_make_the_key(self, small_cnn: ir.Model, tmp_path: Path) -> None:
        def files() -> int:
            return len(list(tmp_path.rglob("*.npz")))

        self.collect(small_cnn, samples(small_cnn), context(small_cnn, tmp_path))
        assert files() == 1
        self.collect(small_cnn, samples(small_cnn, seed=1), context(small_cnn, tmp_path))
        assert files() == 2
        self.collect(small_cnn, samples(small_cnn), context(small_cnn, tmp_path), bins=4096)
        assert files() == 3
        weight = small_cnn.graph.initializers["conv_weight"]
        assert weight.const_value is not None
        Edit(small_cnn).set_constant(weight, weight.const_value.numpy() * 2)
        self.collect(small_cnn, samples(small_cnn), context(small_cnn, tmp_path))
        assert files() == 4
        assert not list(tmp_path.rglob("*.tmp"))

    def test_a_damaged_file_is_ignored_and_replaced(self, small_cnn: ir.Model, tmp_path: Path) -> None:
        first = self.collect(small_cnn, samples(small_cnn), context(small_cnn, tmp_path))
        (file,) = tmp_path.rglob("*.npz")
        good = file.read_bytes()
        for bad in (b"", b"rubbish", good[: len(good) // 2]):
            file.write_bytes(bad)
            ctx = context(small_cnn, tmp_path)
            again = self.collect(small_cnn, samples(small_cnn), ctx)
            np.testing.assert_array_equal(first.range(U8), again.range(U8))
            assert "damaged" in notes(ctx)
            assert len(file.read_bytes()) > 100

    def test_a_folder_that_cannot_be_written_is_only_noted(self, small_cnn: ir.Model, tmp_path: Path) -> None:
        (tmp_path / "calibration").write_text("a file where the folder should be")
        ctx = context(small_cnn, tmp_path)
        self.collect(small_cnn, samples(small_cnn), ctx)
        assert "could not be cached" in notes(ctx)

    def test_means_are_cached_too(self, small_cnn: ir.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first, second = observers.MeanObserver(), observers.MeanObserver()
        engine.collect(small_cnn, samples(small_cnn), {"relu": first}, ctx=context(small_cnn, tmp_path))
        monkeypatch.setattr("qcompiler.ir.execute.Runner", None)
        engine.collect(small_cnn, samples(small_cnn), {"relu": second}, ctx=context(small_cnn, tmp_path))
        np.testing.assert_array_equal(first.mean(), second.mean())
