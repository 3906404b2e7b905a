"""Commands run in memory; every test has a folder, a cache and a small model with data of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the user's cache nor the current folder is touched."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.fixture
def work() -> Path:
    """The current folder of the test."""
    return Path.cwd()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """24 samples for ``small_cnn``."""
    random = np.random.default_rng(1)
    path = tmp_path / "data.npz"
    np.savez(path, x=random.standard_normal((24, 3, 8, 8)).astype(np.float32))
    return path


@pytest.fixture
def qcompile() -> Callable[..., Result]:
    """Runs ``qcompile``."""
    from qcompiler.cli.compile import main

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(item) for item in arguments], catch_exceptions=False)

    return run


@pytest.fixture
def compile_small(qcompile: Callable[..., Result], small_cnn_path: Path, data: Path) -> Callable[..., Result]:
    """Compiles ``small_cnn`` for ``cpu-x86`` without latency; further arguments are added."""

    def run(*arguments: object) -> Result:
        base = (small_cnn_path, "--target", "cpu-x86", "--calibration", data, "--no-latency")
        return qcompile(*base, *arguments)

    return run


@pytest.fixture
def toolbox() -> Callable[..., Result]:
    """Runs ``qcompiler``."""
    from qcompiler.cli.toolbox import main

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(item) for item in arguments], catch_exceptions=False)

    return run
