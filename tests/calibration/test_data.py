"""Loading data: every form gives the same feeds, every mistake a clear error that names tensor and file."""

import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcompiler.calibration import data
from qcompiler.calibration.data import Dataset
from qcompiler.errors import DataError

INPUTS = {"x": (np.float32, ("N", 3, 4)), "ids": (np.int64, ("N", 5))}
ONE = {"x": (np.float32, ("N", 3, 4))}


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "x": generator.standard_normal((6, 3, 4)).astype(np.float32),
        "ids": generator.integers(0, 9, (6, 5)),
    }


def as_npz(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


def as_compressed(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez_compressed(folder / "data.npz", **arrays)
    return folder / "data.npz"


def as_npy_folder(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def as_sample_folders(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    for index in range(6):
        (folder / f"sample_{index + 7}").mkdir()  # 7 … 12: natural order matters
        for name, array in arrays.items():
            np.save(folder / f"sample_{index + 7}" / f"{name}.npy", array[index : index + 1])
    return folder


def as_test_data_sets(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    for index in range(6):
        place = folder / f"test_data_set_{index}"
        place.mkdir()
        for number, array in enumerate(arrays.values()):  # graph input order, no names
            tensor = onnx.numpy_helper.from_array(array[index : index + 1])
            (place / f"input_{number}.pb").write_bytes(tensor.SerializeToString())
    return folder


def as_named_test_data(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    for index in range(6):
        place = folder / f"test_data_set_{index}"
        place.mkdir()
        for number, name in enumerate(reversed(arrays)):
            tensor = onnx.numpy_helper.from_array(arrays[name][index : index + 1], name)
            (place / f"input_{number}.pb").write_bytes(tensor.SerializeToString())
    return folder


FORMS = [as_npz, as_compressed, as_npy_folder, as_sample_folders, as_test_data_sets, as_named_test_data]


def feeds_of(arrays: dict[str, np.ndarray], size: int = 1) -> list[dict[str, np.ndarray]]:
    return [{name: array[i : i + size] for name, array in arrays.items()} for i in range(0, 6, size)]


def check(dataset: Dataset, arrays: dict[str, np.ndarray]) -> None:
    feeds = list(dataset)
    assert len(dataset) == len(feeds) == 6
    for index, feed in enumerate(feeds):
        assert list(feed) == ["x", "ids"]
        for name, array in arrays.items():
            np.testing.assert_array_equal(feed[name], array[index : index + 1])
            assert feed[name].dtype == array.dtype
            assert type(feed[name]) is np.ndarray


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_every_form_gives_the_same_feeds(
    form: Callable[[Path, dict[str, np.ndarray]], Path], arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    dataset = data.load(form(tmp_path, arrays), INPUTS)
    check(dataset, arrays)
    check(dataset, arrays)  # a second iteration starts again
    assert dataset.digest() == data.load(arrays, INPUTS).digest()
    backwards = list(dataset.subset([4, 1]))
    np.testing.assert_array_equal(backwards[0]["x"], arrays["x"][4:5])
    np.testing.assert_array_equal(backwards[1]["x"], arrays["x"][1:2])


def test_python_iterables(arrays: dict[str, np.ndarray]) -> None:
    check(data.load(feeds_of(arrays), INPUTS), arrays)
    check(data.load(iter(feeds_of(arrays)), INPUTS), arrays)
    check(data.load(feeds_of(arrays, 3), INPUTS), arrays)  # batches are taken apart
    check(data.load(data.load(arrays, INPUTS), INPUTS), arrays)


def test_graph_test_data_with_the_folder_itself(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    dataset = data.load(as_test_data_sets(tmp_path, arrays) / "test_data_set_2", INPUTS)
    np.testing.assert_array_equal(next(iter(dataset))["x"], arrays["x"][2:3])


def test_single_input_arrays_in_one_file_or_one_per_sample(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.save(tmp_path / "only.npy", arrays["x"])
    assert len(data.load(tmp_path / "only.npy", ONE)) == 6
    (tmp_path / "many").mkdir()
    for index, array in enumerate(arrays["x"]):
        np.save(tmp_path / "many" / f"{index}.npy", array)
    dataset = data.load(tmp_path / "many", ONE)
    np.testing.assert_array_equal(np.concatenate([feed["x"] for feed in dataset]), arrays["x"])


def test_input_names_that_are_no_file_names(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", **{"gpu_0/data_0": arrays["x"]})
    np.save(tmp_path / "gpu_0_data_0.npy", arrays["x"])
    inputs = {"gpu_0/data_0": ONE["x"]}
    assert data.load(tmp_path / "d.npz", inputs).digest() == data.load(tmp_path, inputs).digest()


def test_labels_follow_their_samples(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    dataset = data.load(as_npz(tmp_path, {**arrays, "labels": np.arange(6)}), INPUTS)
    _, held_out = data.split(dataset)
    assert held_out.labels is not None
    assert held_out.labels.tolist() == [5]
    feeds = [{**feed, "labels": np.array([i])} for i, feed in enumerate(feeds_of(arrays))]
    labels = data.load(feeds, INPUTS).labels
    assert labels is not None
    assert labels.tolist() == list(range(6))
    assert data.load(arrays, INPUTS).labels is None


def test_an_input_called_labels_is_an_input(arrays: dict[str, np.ndarray]) -> None:
    dataset = data.load({"labels": arrays["x"]}, {"labels": ONE["x"]})
    assert dataset.labels is None
    assert next(iter(dataset))["labels"].shape == (1, 3, 4)


@pytest.mark.parametrize(("count", "held"), [(2, 1), (8, 1), (16, 2), (128, 16), (1000, 32)])
def test_the_last_eighth_is_held_out(count: int, held: int) -> None:
    dataset = data.load({"x": np.arange(count * 12, dtype=np.float32).reshape(count, 3, 4)}, ONE)
    fitted, judging = data.split(dataset)
    assert (len(fitted), len(judging)) == (count - held, held)
    assert not set(fitted.order) & set(judging.order)
    assert judging.order[-1] == count - 1


def test_one_sample_cannot_be_split(arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(DataError, match="cannot both calibrate and judge"):
        data.split(data.load(arrays, INPUTS, limit=1))


def test_a_fixed_batch_groups_samples(arrays: dict[str, np.ndarray]) -> None:
    inputs = {"x": (np.float32, (4, 3, 4)), "ids": (np.int64, (4, 5))}
    dataset = data.load({**arrays, "labels": np.arange(6)}, inputs)
    assert len(dataset) == 1
    assert any("last 2 of 6" in note for note in dataset.notes)
    np.testing.assert_array_equal(next(iter(dataset))["x"], arrays["x"][:4])
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [[0, 1, 2, 3]]
    check_feeds = list(data.load(feeds_of(arrays), inputs))
    np.testing.assert_array_equal(check_feeds[0]["ids"], arrays["ids"][:4])


def test_too_few_samples_for_a_fixed_batch(arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(DataError, match="takes 8 at once"):
        data.load(arrays, {"x": (np.float32, (8, 3, 4)), "ids": (np.int64, (8, 5))})


def test_dynamic_axes_take_their_length_from_each_feed() -> None:
    inputs = {"ids": (np.int64, ("batch", "length"))}
    dataset = data.load([{"ids": np.ones((1, n), np.int64)} for n in (3, 7)], inputs)
    assert [feed["ids"].shape for feed in dataset] == [(1, 3), (1, 7)]


def test_an_input_without_batch_axis_keeps_whole_feeds() -> None:
    inputs = {"x": (np.float32, ("N", 2)), "threshold": (np.float32, ())}
    feeds = [{"x": np.zeros((4, 2), np.float32), "threshold": np.float32(0.5)} for _ in range(3)]
    dataset = data.load(feeds, inputs)
    assert [feed["x"].shape for feed in dataset] == [(4, 2)] * 3
    assert next(iter(dataset))["threshold"].shape == ()


def test_a_leading_time_axis_is_not_taken_for_samples() -> None:
    dataset = data.load([{"x": np.zeros((20, 1, 4), np.float32)}], {"x": (np.float32, ("sequence", "batch", 4))})
    assert next(iter(dataset))["x"].shape == (20, 1, 4)


def test_safe_casts(arrays: dict[str, np.ndarray]) -> None:
    given = {"x": arrays["x"].astype(np.float64), "ids": arrays["ids"].astype(np.int32)}
    check(data.load(given, INPUTS), arrays)
    narrow = data.load({"ids": arrays["ids"]}, {"ids": (np.int32, ("N", 5))})
    assert next(iter(narrow))["ids"].dtype == np.int32


def test_element_types_of_onnx_ir_are_understood(arrays: dict[str, np.ndarray]) -> None:
    dataset = data.load(arrays, {"x": (ir.DataType.FLOAT, ["N", 3, 4]), "ids": (ir.DataType.INT64, [None, 5])})
    check(dataset, arrays)


BAD: list[tuple[str, dict[str, np.ndarray], str]] = [
    ("a misspelt name", {"X": np.zeros((2, 3, 4), np.float32)}, "rename 'X' to 'x'"),
    ("a nameless array", {"arr_0": np.zeros((2, 3, 4), np.float32)}, "rename 'arr_0' to 'x'"),
    ("no samples", {"x": np.zeros((0, 3, 4), np.float32)}, "holds no samples"),
    ("a wrong shape", {"x": np.zeros((2, 3, 5), np.float32)}, r"'x': a sample has shape 3×5.*float32\[N, 3, 4\]"),
    ("a wrong rank", {"x": np.zeros((2, 3), np.float32)}, "does not fit"),
    ("a lone number", {"x": np.float32(1)}, "first axis must be samples"),
    ("integers for floats", {"x": np.zeros((2, 3, 4), np.uint8)}, "'x' is uint8, the model takes float32"),
    ("NaN", {"x": np.full((2, 3, 4), np.nan, np.float32)}, "'x' holds NaN in sample 0"),
    ("infinity", {"x": np.full((2, 3, 4), np.inf, np.float32)}, "'x' holds infinity in sample 0"),
    ("too large a float", {"x": np.full((2, 3, 4), 1e300)}, "do not fit into float32"),
    ("labels that do not fit", {"x": np.zeros((2, 3, 4), np.float32), "labels": np.zeros(3)}, "labels of shape"),
]


@pytest.mark.parametrize(("arrays_", "message"), [item[1:] for item in BAD], ids=[item[0] for item in BAD])
@pytest.mark.parametrize("form", [as_npz, as_compressed, as_npy_folder], ids=lambda form: form.__name__)
def test_bad_data_is_refused(
    form: Callable[[Path, dict[str, np.ndarray]], Path], arrays_: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    path = form(tmp_path, arrays_)
    with pytest.raises(DataError, match=message) as error:
        data.load(path, ONE)
    assert str(tmp_path) in str(error.value)  # names the file


def test_channels_last_images_get_a_hint() -> None:
    with pytest.raises(DataError, match="transpose"):
        data.load({"x": np.zeros((2, 8, 8, 3), np.float32)}, {"x": (np.float32, ("N", 3, 8, 8))})


def test_integers_that_do_not_fit() -> None:
    with pytest.raises(DataError, match="do not fit into int32"):
        data.load({"ids": np.full((2, 5), 1 << 40)}, {"ids": (np.int32, ("N", 5))})


def test_inputs_with_different_numbers_of_samples(arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(DataError, match="different numbers of samples"):
        data.load({"x": arrays["x"], "ids": arrays["ids"][:4]}, INPUTS)


def test_nan_in_a_late_sample_is_named(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    arrays["x"][4, 1, 1] = np.nan
    with pytest.raises(DataError, match="sample 4"):
        data.load(as_npz(tmp_path, arrays), INPUTS)


def test_missing_input_lists_what_there_is(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no samples for input 'ids' \(it holds 'x'\)"):
        data.load(as_npz(tmp_path, {"x": arrays["x"]}), INPUTS)


def test_arrays_without_input_are_noted(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    dataset = data.load(as_npz(tmp_path, {**arrays, "extra": np.zeros(3)}), INPUTS)
    assert dataset.notes == ("not used, no such input: extra",)


def _truncated(path: Path) -> Path:
    np.savez(path / "d.npz", x=np.zeros((50, 3, 4), np.float32))
    (path / "d.npz").write_bytes((path / "d.npz").read_bytes()[:700])
    return path / "d.npz"


def _pickled(path: Path) -> Path:
    np.savez(path / "d.npz", x=np.array([{"evil": 1}], dtype=object))
    return path / "d.npz"


def _text(path: Path) -> Path:
    (path / "d.csv").write_text("1,2,3")
    return path / "d.csv"


def _short_npy(path: Path) -> Path:
    np.save(path / "x.npy", np.zeros((50, 3, 4), np.float32))
    (path / "x.npy").write_bytes((path / "x.npy").read_bytes()[:500])
    return path


def _bad_proto(path: Path) -> Path:
    (path / "input_0.pb").write_bytes(b"\xff\xff\xff not a tensor")
    return path


def _not_npy(path: Path) -> Path:
    (path / "x.npy").write_bytes(pickle.dumps([1, 2]))
    return path


def _damaged(path: Path) -> Path:
    np.savez_compressed(path / "d.npz", x=np.random.default_rng(0).standard_normal((50, 3, 4)).astype(np.float32))
    content = bytearray((path / "d.npz").read_bytes())
    content[1000:1040] = b"\0" * 40
    (path / "d.npz").write_bytes(bytes(content))
    return path / "d.npz"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "absent.npz", "does not exist"),
        (lambda path: path, "holds no samples"),
        (_truncated, "not a readable .npz"),
        (_pickled, "never unpickled"),
        (_text, "no form of data"),
        (_short_npy, "truncated"),
        (_bad_proto, "not an ONNX tensor"),
        (_not_npy, "not an array file"),
        (_damaged, "damaged|readable"),
    ],
)
def test_unreadable_sources(make: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as error:
        data.load(make(tmp_path), ONE)
    assert str(tmp_path) in str(error.value)


def test_an_empty_iterable_and_a_list_of_arrays() -> None:
    with pytest.raises(DataError, match="no samples"):
        data.load([], ONE)
    with pytest.raises(DataError, match="not a mapping"):
        data.load([np.zeros((1, 3, 4))], ONE)  # type: ignore[list-item]


def test_limit(arrays: dict[str, np.ndarray]) -> None:
    assert len(data.load(arrays, INPUTS, limit=4)) == 4
    assert len(data.load(arrays, INPUTS, limit=400)) == 6


def test_random_data_is_sane_and_seeded() -> None:
    inputs = {
        "pixels": (np.float32, ("N", 3, 8, 8)),
        "bytes": (np.uint8, (2, 4)),
        "ids": (np.int64, ("N", "length")),
        "attention_mask": (np.int64, ("N", "length")),
    }
    chosen = {key: inputs[key] for key in ("pixels", "ids", "attention_mask")}
    dataset = data.random(chosen, 3, seed=1)
    feed = next(iter(dataset))
    assert (len(dataset), feed["pixels"].shape, feed["ids"].shape) == (3, (1, 3, 8, 8), (1, 16))
    assert 0 <= feed["ids"].min() <= feed["ids"].max() < 10
    assert (feed["attention_mask"] == 1).all()
    assert dataset.digest() == data.random(chosen, 3, seed=1).digest()
    assert dataset.digest() != data.random(chosen, 3, seed=2).digest()
    assert any("length" in note for note in dataset.notes)
    assert next(iter(data.random({"bytes": inputs["bytes"]}, 3)))["bytes"].shape == (2, 4)


def test_random_axes_of_one_name_are_equal() -> None:
    inputs = {
        "bias": (np.float32, ("N", 1, 1, "length")),
        "ids": (np.int64, ("N", "length")),
        "image": (np.float32, ("N", 3, "height", None)),
    }
    feed = next(iter(data.random(inputs, 2)))
    assert {name: array.shape for name, array in feed.items()} == {
        "bias": (1, 1, 1, 16), "ids": (1, 16), "image": (1, 3, 224, 224),
    }  # fmt: skip


def test_inputs_of_a_model_skip_initializers(parse: Callable[[str], ir.Model]) -> None:
    model = parse("""<ir_version: 10, opset_import: ["": 21]>
        g (float[N, 2] x, float[2] b) => (float[N, 2] y) <float[2] b = {1.0, 2.0}> { y = Add(x, b) }""")
    assert data.inputs_of(model) == {"x": (np.dtype(np.float32), ("N", 2))}


def test_large_stored_members_are_mapped(tmp_path: Path) -> None:
    path = as_npz(tmp_path, {"x": np.zeros((6, 3, 4), np.float32)})
    column = data.load(path, ONE).columns["x"]
    assert isinstance(column.array, np.memmap)  # type: ignore[attr-defined]


def test_generators_are_read_once(arrays: dict[str, np.ndarray]) -> None:
    reads = io.StringIO()

    def generate() -> Iterator[dict[str, np.ndarray]]:
        for feed in feeds_of(arrays):
            reads.write("x")
            yield feed

    dataset = data.load(generate(), INPUTS)
    check(dataset, arrays)
    check(dataset, arrays)
    assert len(reads.getvalue()) == 6
