"""Files appear whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from qcompiler.driver.files import publish, staging, write_text
from qcompiler.errors import QCompilerError


def test_the_staging_folder_is_gone_afterwards(tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    with staging(output) as staged:
        staged.write_bytes(b"new")
        (staged.parent / "out.onnx.data").write_bytes(b"weights")
        assert not output.exists()
        publish(staged, output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.onnx", "out.onnx.data"]
    assert output.read_bytes() == b"new"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_nothing_is_left_when_it_goes_wrong(tmp_path: Path, error: type[BaseException]) -> None:
    def work() -> None:
        with staging(tmp_path / "out.onnx") as staged:
            staged.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        work()
    assert list(tmp_path.iterdir()) == []


def test_an_old_output_survives_a_failure(tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    output.write_bytes(b"old")

    def work() -> None:
        with staging(output) as staged:
            staged.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()
    assert output.read_bytes() == b"old"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(QCompilerError, match=r"nowhere.*does not exist"), staging(tmp_path / "nowhere" / "out.onnx"):
        pass


def test_a_folder_is_no_output(tmp_path: Path) -> None:
    with pytest.raises(QCompilerError, match="is a folder"), staging(tmp_path):
        pass


def test_text_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_text(path, "one")
    write_text(path, "two\n")
    assert path.read_bytes() == b"two\n"
    assert [item.name for item in tmp_path.iterdir()] == ["report.json"]


def test_a_full_disk_leaves_the_old_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    path.write_text("old", encoding="utf-8")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(QCompilerError, match="No space left"):
        write_text(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["report.json"]


def test_text_into_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QCompilerError, match="cannot write"):
        write_text(tmp_path / "nowhere" / "report.json", "x")
