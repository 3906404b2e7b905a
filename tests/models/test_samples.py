"""The shipped sample models are what their README and index say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from qcompiler.errors import UsageError
from qcompiler.models import load, names

MODELS = Path(__file__).resolve().parents[2] / "models"
ONE_MEGABYTE = 1_000_000


def operators(name: str) -> list[str]:
    """The operator types of the shipped model ``name``, in graph order."""
    return [node.op_type for node in onnx.load(load(name).path).graph.node]


def test_names_are_the_shipped_files() -> None:
    assert names() == ("digits_cnn", "digits_vit")
    assert {path.stem for path in MODELS.glob("*.onnx")} == set(names())


def test_near_miss_is_a_usage_error_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="digits_cn'") as caught:
        load("digits_cn")
    assert caught.value.hint is not None
    assert "digits_cnn" in caught.value.hint


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        load("zzzz")
    assert caught.value.hint == "known: digits_cnn, digits_vit"


@pytest.mark.parametrize("name", names())
def test_stated_accuracy_is_measured(name: str) -> None:
    sample = load(name)
    data = np.load(sample.evaluation)
    session = onnxruntime.InferenceSession(sample.path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": data["image"]})
    assert float((logits.argmax(1) == data["labels"]).mean()) == pytest.approx(sample.accuracy, abs=1e-9)


@pytest.mark.parametrize("name", names())
def test_stated_accuracy_is_in_the_readme(name: str) -> None:
    (row,) = (line for line in (MODELS / "README.md").read_text().splitlines() if line.startswith(f"| `{name}`"))
    assert row.endswith(f"| {100 * load(name).accuracy:.1f} % |")


def test_accuracy_is_worth_keeping() -> None:
    assert load("digits_cnn").accuracy >= 0.98
    assert load("digits_vit").accuracy >= 0.96


def test_cnn_keeps_its_batch_normalizations_and_its_structures() -> None:
    found = operators("digits_cnn")
    assert found.count("BatchNormalization") == found.count("Conv") == 12
    assert {"Add", "Clip", "Gemm", "GlobalAveragePool", "Relu"} <= set(found)
    graph = onnx.load(load("digits_cnn").path).graph
    groups = [a.i for node in graph.node if node.op_type == "Conv" for a in node.attribute if a.name == "group"]
    assert groups.count(96) == 2


def test_transformer_keeps_its_structures() -> None:
    found = operators("digits_vit")
    assert {"Erf", "LayerNormalization", "MatMul", "Softmax"} <= set(found)


@pytest.mark.parametrize("name", names())
def test_model_is_valid_portable_and_takes_any_batch(name: str) -> None:
    model = onnx.load(load(name).path)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version <= 10
    assert all(17 <= entry.version <= 21 for entry in model.opset_import)
    assert not model.doc_string
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    axes = [value.type.tensor_type.shape.dim[0] for value in (*model.graph.input, *model.graph.output)]
    assert [axis.dim_param for axis in axes] == ["batch", "batch"]


def test_no_data_file_is_large() -> None:
    sizes = {path.name: path.stat().st_size for path in MODELS.iterdir() if path.is_file()}
    assert {name: size for name, size in sizes.items() if size >= ONE_MEGABYTE} == {}


@pytest.mark.parametrize("name", names())
def test_data_have_the_declared_shapes_and_do_not_overlap(name: str) -> None:
    sample = load(name)
    calibration, evaluation = np.load(sample.calibration), np.load(sample.evaluation)
    assert calibration.files == ["image"]
    assert (calibration["image"].shape, calibration["image"].dtype) == ((128, 1, 8, 8), np.float32)
    assert (evaluation["image"].shape, evaluation["image"].dtype) == ((500, 1, 8, 8), np.float32)
    assert (evaluation["labels"].shape, evaluation["labels"].dtype) == ((500,), np.int64)
    fitted = {image.tobytes() for image in calibration["image"]}
    assert not any(image.tobytes() in fitted for image in evaluation["image"])
