"""Ctrl-C and the signal with which build tools stop their jobs: right code, nothing left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SLOW = '''
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import onnx_ir as ir

from qcompiler.pipeline.base import Context, Pass


@dataclass(frozen=True)
class Sleep(Pass):
    """Say that we are here, then wait."""

    name: ClassVar[str] = "sleep"

    def run(self, model: ir.Model, ctx: Context) -> None:
        Path("here").touch()
        time.sleep(60)
'''


@pytest.fixture(autouse=True)
def _not_ignored() -> Iterator[None]:
    """A shell without job control starts what runs in the background with SIGINT ignored, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_nothing_behind(
    work: Path, small_cnn_path: Path, data: Path, number: signal.Signals, code: int
) -> None:
    (work / "slow.py").write_text(SLOW, encoding="utf-8")
    command = [sys.executable, "-m", "qcompiler.cli", small_cnn_path, "-t", "edge-npu", "-c", data, "-o", "out.onnx"]
    command += ["--plugin", "slow.py", "--pipeline", "normalize,sleep"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        limit = time.monotonic() + 30
        while not (work / "here").exists() and time.monotonic() < limit:
            time.sleep(0.02)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in errors
    assert ("interrupted" in errors) == (number is signal.SIGINT)
    assert {path.name for path in work.iterdir()} <= {"here", "slow.py", "__pycache__"}
