"""Image folders: declared preprocessing, nothing guessed."""

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcompiler.calibration import data
from qcompiler.calibration.preprocessing import Preprocessing, parse
from qcompiler.errors import DataError

image_module = pytest.importorskip("PIL.Image", reason="needs Pillow")

INPUTS = {"x": (np.float32, ("N", 3, 6, 8))}
SIZED = {"size": [6, 8]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(11):
        pixels = np.full((6, 8, 3), (index, 100, 200), np.uint8)
        image_module.fromarray(pixels).save(tmp_path / f"image_{index}.png")
    return tmp_path


def test_images_become_tensors_in_natural_order(folder: Path) -> None:
    feeds = list(data.load(folder, INPUTS, preprocessing={"mean": [0.0, 0.5, 0.0], "std": [1.0, 2.0, 1.0]}))
    assert [round(float(feed["x"][0, 0, 0, 0] * 255)) for feed in feeds] == list(range(11))
    assert feeds[0]["x"].shape == (1, 3, 6, 8)
    np.testing.assert_allclose(feeds[0]["x"][0, 1], (100 / 255 - 0.5) / 2, rtol=1e-6)


def test_bgr_grey_and_nhwc(folder: Path) -> None:
    bgr = next(iter(data.load(folder, INPUTS, preprocessing="colour=bgr scale=1")))["x"]
    assert bgr[0, :, 0, 0].tolist() == [200, 100, 0]
    nhwc = {"x": (np.float32, (1, 6, 8, 3))}
    last = next(iter(data.load(folder, nhwc, preprocessing="layout=nhwc scale=1")))["x"]
    assert last[0, 0, 0].tolist() == [0, 100, 200]
    grey = next(iter(data.load(folder, {"x": (np.float32, ("N", 1, 6, 8))}, preprocessing="color=gray")))["x"]
    assert grey.shape == (1, 1, 6, 8)


def test_resize_and_centre_crop(tmp_path: Path) -> None:
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, 15:25] = 255  # a white centre
    image_module.fromarray(pixels).save(tmp_path / "a.png")
    how = "size=8x8 resize=20 filter=nearest"
    tensor = next(iter(data.load(tmp_path, {"x": (np.float32, ("N", 3, 8, 8))}, preprocessing=how)))["x"]
    assert tensor.min() == 1.0
    squeezed = next(iter(data.load(tmp_path, {"x": (np.float32, ("N", 3, 8, 8))}, preprocessing="size=8x8")))["x"]
    assert squeezed.min() == 0.0


def test_a_toml_file_beside_the_images_is_found(folder: Path) -> None:
    (folder / "preprocessing.toml").write_text('size = [6, 8]\nscale = 1.0\ncolour = "rgb"\n')
    assert next(iter(data.load(folder, INPUTS)))["x"][0, 2, 0, 0] == 200


def test_integer_folders_are_labels(tmp_path: Path) -> None:
    for label in (0, 3, 10):
        (tmp_path / str(label)).mkdir()
        image_module.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / str(label) / "a.png")
    labels = data.load(tmp_path, INPUTS, preprocessing=SIZED).labels
    assert labels is not None
    assert labels.tolist() == [0, 3, 10]


def test_undeclared_preprocessing_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="must be declared"):
        data.load(folder, INPUTS)


def test_a_model_with_two_inputs_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="2 inputs"):
        data.load(folder, {**INPUTS, "y": INPUTS["x"]}, preprocessing=SIZED)


def test_a_broken_image_is_named(folder: Path) -> None:
    (folder / "image_3.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read as an image") as error:
        list(data.load(folder, INPUTS, preprocessing=SIZED))
    assert "image_3.png" in str(error.value)


def test_without_pillow_the_message_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *arguments: Any, **options: Any) -> Any:
        if name.split(".")[0] == "PIL":
            raise ImportError(name)
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(DataError, match=r"qcompiler\[images\]"):
        data.load(folder, INPUTS, preprocessing=SIZED)


def test_text_toml_and_mapping_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text("size = [4, 5]\nmean = [1, 2, 3]\nscale = 0.5\n")
    expected = Preprocessing(size=(4, 5), mean=(1.0, 2.0, 3.0), scale=0.5)
    assert parse(tmp_path / "p.toml") == expected
    assert parse("size=4x5 mean=1,2,3 scale=1/2") == expected
    assert parse({"size": [4, 5], "mean": [1, 2, 3], "scale": 0.5}) == expected
    assert parse("size=7").size == (7, 7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("meen=1", "did you mean 'mean'"),
        ("layout=nwhc", "did you mean 'nhwc'"),
        ("mean=1,2", "2 values for 3 channels"),
        ("std=0", "zero"),
        ("size=0x4", "not height and width"),
        ("size=1x2x3", "cannot be used"),
        ("size=224 resize=100", "at least the size"),
        ("scale=big", "cannot be used"),
        ("absent.toml", "cannot be read"),
    ],
)
def test_bad_declarations(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse(text)
