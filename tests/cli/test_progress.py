"""Progress: bars on a terminal, silence elsewhere."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from qcompiler.cli.progress import _Stages, progress_bars


def test_nobody_watches_a_pipe() -> None:
    with progress_bars(quiet=False) as progress:
        assert progress is None


def test_every_stage_has_a_bar_and_finished_ones_go() -> None:
    with Progress(console=Console(file=io.StringIO(), force_terminal=True)) as bars:
        stages = _Stages(bars)
        stages("calibrate", 3, 4)
        stages("calibrate", 4, 4)
        stages("judge", 1, 2)
        assert [(task.description, task.completed, task.visible) for task in bars.tasks] == [
            ("calibrate", 4, False),
            ("judge", 1, True),
        ]


def test_bars_show_on_a_terminal_only(work: Path) -> None:
    command = [sys.executable, "-m", "qcompiler.cli", "digits_cnn", "-t", "edge-npu", "-o", str(work / "o.onnx")]
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "TERM": "xterm"}) as run:
        os.close(theirs)
        assert run.stdout is not None
        shown = b""
        try:
            # The terminal first: its buffer is a few kilobytes, and the command stops while it is full.
            while chunk := os.read(ours, 65536):
                shown += chunk
        except OSError:  # the other end is closed
            pass
        summary = run.stdout.read()
    os.close(ours)
    assert run.returncode == 0
    assert b"calibrate" in shown
    assert b"\x1b" not in summary
