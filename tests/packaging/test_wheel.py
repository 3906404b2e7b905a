"""What an installation brings: one top-level name, the data files, and no need of a C++ compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
CONTENT = ("LICENSE", "README.md", "models", "passes", "pyproject.toml", "qcompiler", "targets", "tests")
MAPPED = ("models", "passes", "targets")
NO_COMPILER = {"CC": "/nonexistent", "CXX": "/nonexistent"}


def copy_project(folder: Path) -> Path:
    """Copy what the repository holds into a new ``folder``, links kept as links."""
    folder.mkdir()
    skip = shutil.ignore_patterns("__pycache__", ".*")
    for name in CONTENT:
        if (PROJECT / name).is_dir():
            shutil.copytree(PROJECT / name, folder / name, symlinks=True, ignore=skip)
        else:
            shutil.copy2(PROJECT / name, folder / name)
    return folder


def build(project: Path, output: Path, *options: str) -> Path:
    """Build the wheel of ``project`` with the build backend already installed and without a compiler."""
    command = [sys.executable, "-m", "build", "--no-isolation", *options, "--outdir", str(output), str(project)]
    done = subprocess.run(command, env=os.environ | NO_COMPILER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = output.glob("*.whl")
    return wheel


def members(wheel: Path) -> set[str]:
    """The paths of the files inside ``wheel``."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def data_files() -> Iterable[tuple[str, str]]:
    """Every file of the mapped folders with its path in the wheel."""
    for folder in MAPPED:
        for path in sorted((PROJECT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                relative = path.relative_to(PROJECT).as_posix()
                yield relative, f"qcompiler/{relative}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built straight from the project's tree."""
    root = tmp_path_factory.mktemp("wheel")
    return build(copy_project(root / "project"), root / "dist", "--wheel")


def test_only_the_package_is_a_top_level_name(wheel: Path) -> None:
    top = {name.split("/")[0] for name in members(wheel)}
    assert {name for name in top if not name.endswith(".dist-info")} == {"qcompiler"}


def test_every_file_of_the_mapped_folders_is_inside(wheel: Path) -> None:
    inside = members(wheel)
    missing = [source for source, target in data_files() if target not in inside]
    assert not missing


def test_type_marker_licence_and_commands_are_inside(wheel: Path) -> None:
    inside = members(wheel)
    assert "qcompiler/py.typed" in inside
    assert any(name.endswith("/licenses/LICENSE") for name in inside)
    (entry_points,) = (name for name in inside if name.endswith("/entry_points.txt"))
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(entry_points).decode()
    assert "qcompile = qcompiler.cli.compile:main" in text
    assert "qcompiler = qcompiler.cli.toolbox:main" in text


def test_source_distribution_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    again = build(copy_project(tmp_path / "project"), tmp_path / "dist")
    assert members(again) == members(wheel)


def test_failing_native_build_still_gives_the_package(wheel: Path, tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    native = project / "qcompiler" / "runtime" / "CMakeLists.txt"
    native.write_text('cmake_minimum_required(VERSION 3.18)\nproject(x LANGUAGES NONE)\nmessage(FATAL_ERROR "no")\n')
    assert members(build(project, tmp_path / "dist", "--wheel")) == members(wheel)


def test_unpacked_wheel_imports_without_the_repository(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    # -S leaves the site hooks out, among them the one of an editable installation of this project.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), sysconfig.get_path("purelib")])}
    code = "import qcompiler.models, qcompiler.passes, qcompiler.targets; print(qcompiler.passes.__file__)"
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path)


@pytest.mark.parametrize("name", MAPPED)
def test_link_inside_the_package_points_at_the_visible_folder(name: str) -> None:
    link = PROJECT / "qcompiler" / name
    assert link.is_symlink()
    assert link.resolve() == PROJECT / name
