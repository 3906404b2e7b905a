"""Depfiles: Make itself is the judge of the escaping."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from qcompiler.driver.depfile import depfile_text


def test_inputs_are_sorted_and_unique() -> None:
    text = depfile_text(Path("out.onnx"), [Path("b.npz"), Path("a.onnx"), Path("b.npz")])
    assert text.splitlines()[:3] == ["out.onnx: \\", "  a.onnx \\", "  b.npz"]


def test_a_folder_is_listed_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.npy").write_bytes(b"")
    (tmp_path / "y.npy").write_bytes(b"")
    text = depfile_text(Path("out"), [tmp_path])
    assert str(tmp_path / "sub" / "x.npy") in text
    assert f"  {tmp_path} \\" not in text


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("name", ["plain.onnx", "with space.onnx", "50%.onnx", "a$b.onnx", "a#b.onnx", "ünï.onnx"])
def test_make_rebuilds_when_the_input_changes(tmp_path: Path, name: str) -> None:
    source = tmp_path / name
    source.write_text("x", encoding="utf-8")
    (tmp_path / "out").write_text("old", encoding="utf-8")
    (tmp_path / "deps.d").write_text(depfile_text(Path("out"), [Path(name)]), encoding="utf-8")
    (tmp_path / "Makefile").write_text("out:\n\techo rebuilt > out\ninclude deps.d\n", encoding="utf-8")

    def rebuilds() -> bool:
        return subprocess.run(["make", "-q", "out"], cwd=tmp_path, check=False, capture_output=True).returncode == 1

    os.utime(source, (1, 1))
    assert not rebuilds()
    os.utime(source, (4e9, 4e9))
    assert rebuilds()
    source.unlink()
    result = subprocess.run(["make", "-n", "out"], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
