"""Where a model may come from."""

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from qcompiler.driver.source import find, open_source
from qcompiler.errors import ModelError, UsageError


def test_a_sample_brings_its_data() -> None:
    source = find("digits_cnn")
    assert source.sample is not None
    assert source.path.is_file()
    assert source.stem == "digits_cnn"


def test_a_file_goes_before_a_sample(small_cnn_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small_cnn_path.rename(tmp_path / "digits_cnn")
    assert find("digits_cnn").sample is None


def test_a_misspelt_file_gets_the_nearest(small_cnn_path: Path) -> None:
    with pytest.raises(UsageError, match=r"did you mean '.*small_cnn\.onnx'"):
        find(small_cnn_path.with_name("smal_cnn.onnx"))


def test_a_misspelt_sample_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'digits_vit'"):
        find("digit_vit")


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        find(tmp_path)


@pytest.mark.parametrize("kind", ["proto", "ir"])
def test_a_model_in_memory_becomes_a_file_for_the_time_being(small_cnn: ir.Model, kind: str) -> None:
    model = small_cnn if kind == "ir" else ir.to_proto(small_cnn)
    with open_source(model) as source:
        assert source.temporary
        assert source.stem == "small_cnn"
        onnx.checker.check_model(str(source.path))
    assert not source.path.exists()


def test_anything_else_is_refused() -> None:
    with pytest.raises(ModelError, match="a int is not a model"), open_source(3):  # type: ignore[arg-type]
        pass
