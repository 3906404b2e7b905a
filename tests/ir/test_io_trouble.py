"""Trouble while a model is written: nothing is left behind, what was there stays."""

from __future__ import annotations

import builtins
import errno
import os
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from qcompiler.errors import QCompilerError
from qcompiler.ir import io, store


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("threshold", [0, 1 << 30])
@pytest.mark.parametrize("trouble", [OSError(errno.ENOSPC, "no space"), KeyboardInterrupt(), RuntimeError("bug")])
def test_nothing_is_left_behind(
    small_cnn: ir.Model, tmp_path: Path, trouble: BaseException, threshold: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    io.save(small_cnn, tmp_path / "m.onnx", external_threshold=threshold)
    before = listing(tmp_path)
    calls = 0
    original = store._Weight.write

    def failing(self: Any, file: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise trouble
        original(self, file)

    monkeypatch.setattr(store._Weight, "write", failing)
    wanted = QCompilerError if isinstance(trouble, OSError) else type(trouble)
    with pytest.raises(wanted) as caught:
        io.save(small_cnn, tmp_path / "m.onnx", external_threshold=threshold)
    if isinstance(trouble, OSError):
        assert "the disk is full" in str(caught.value)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_failing_rename_puts_the_old_files_back(
    small_cnn: ir.Model, tmp_path: Path, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    io.save(small_cnn, tmp_path / "m.onnx", external_threshold=0)
    before = listing(tmp_path)
    small_cnn.producer_name = "changed"
    calls, original = 0, Path.replace

    def replace(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(errno.EACCES, "denied")
        return original(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(QCompilerError, match="cannot be written to"):
        io.save(small_cnn, tmp_path / "m.onnx", external_threshold=0)
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.EACCES, "cannot be written to"), (errno.EROFS, "read-only"), (errno.EDQUOT, "quota"), (errno.EIO, "nput")],
)
def test_operating_system_errors_in_words(
    small_cnn: ir.Model, tmp_path: Path, code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, mode: str = "r", *_: Any, **__: Any) -> Any:
        if "x" in mode:
            raise OSError(code, os.strerror(code))
        return builtins.open(self, mode)  # noqa: PTH123

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(QCompilerError, match=words):
        io.save(small_cnn, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_where_it_cannot_go(small_cnn: ir.Model, tmp_path: Path) -> None:
    with pytest.raises(QCompilerError, match="folder does not exist"):
        io.save(small_cnn, tmp_path / "absent" / "m.onnx")
    with pytest.raises(QCompilerError, match="not a regular file"):
        io.save(small_cnn, tmp_path)
    with pytest.raises(QCompilerError, match="not a regular file"):
        io.save(small_cnn, "/dev/null")
    (tmp_path / "file").write_text("x")
    with pytest.raises(QCompilerError, match="not a folder"):
        io.save(small_cnn, tmp_path / "file" / "m.onnx")


def test_permissions_follow_the_umask(small_cnn: ir.Model, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    io.save(small_cnn, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").stat().st_mode == (tmp_path / "plain").stat().st_mode
