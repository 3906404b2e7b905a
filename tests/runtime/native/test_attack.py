"""Broken and hostile instances end with a clean refusal, never with a crash: see ``attack.py``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qcompiler.runtime.library import library_path

NIGHTLY = os.environ.get("QCOMPILER_NIGHTLY") == "1"
PROJECT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.skipif(library_path() is None, reason="the installation has no native library")


@pytest.mark.parametrize(
    ("road", "cases"),
    [([], 10_000 if NIGHTLY else 1500), (["--sessions"], 10_000 if NIGHTLY else 150)],
    ids=["interface", "sessions"],
)
def test_broken_instances_are_refused_and_nothing_crashes(road: list[str], cases: int, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-m", "tests.runtime.native.attack", "--cases", str(cases), "--log", str(log), *road]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{log.read_text()} ended with {done.returncode}\n{done.stderr[-2000:]}"
    assert "refusal" in done.stdout
    assert "result" in done.stdout


def test_broken_models_of_other_compilers(tmp_path: Path) -> None:
    """They are claimed and right, left to ONNX Runtime, or refused by it too: see ``attack_claims.py``."""
    log = tmp_path / "log"
    cases = str(10_000 if NIGHTLY else 100)
    command = [sys.executable, "-m", "tests.runtime.native.attack_claims", "--cases", cases, "--log", str(log)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{log.read_text()} ended with {done.returncode}\n{done.stderr[-2000:]}"
    assert "claimed and right" in done.stdout
