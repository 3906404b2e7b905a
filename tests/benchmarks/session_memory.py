"""Memory and loading: ``session_memory.py [--keep FOLDER]``.

Measured, never asserted. First, by how much the resident memory of a fresh process grows when it opens a session on one
product whose weight is packed in 4, 3 or 2 bits and large (64 million weights), over the bytes of the packed weight.
Second, how long sessions on the ResNet-50 fixture take to open, in turns: our file on our kernels against the best file
of a stock runtime, and how much memory each keeps.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from low_bit_matmul import packed_gemm, weight_only
from subjects import FIXTURE, compiled

SIZE = 8192


def main() -> None:
    """Print both tables, or be the fresh process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="lowbit-cpu", help="profile of our kernels")
    parser.add_argument("--rounds", type=int, default=5, help="times that each session is opened")
    parser.add_argument("--keep", type=Path, help="folder that keeps the compiled files for the next time")
    parser.add_argument("--no-fixture", action="store_true", help="only the first table")
    parser.add_argument("--child", nargs=2, metavar=("PROVIDER", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        sys.stdout.write(json.dumps(opened(*arguments.child)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        packed_weights(Path(scratch))
        if not arguments.no_fixture:
            loading(folder, arguments)


def packed_weights(folder: Path) -> None:
    """Growth of the resident memory over packed bytes."""
    say("| weight | packed MB | session MB | ratio | peak MB |\n|---|---|---|---|---|")
    for make in (packed_gemm, weight_only):
        for bits in (4, 3, 2):
            entry = make(1, SIZE, bits)
            path = folder / "one.onnx"
            path.write_bytes(entry.model)
            size = entry.weight_bytes
            del entry
            found = child("qcompiler", path)
            growth = found["after"] - found["before"]
            say(
                f"| {make.__name__} {bits} bits | {size / 1e6:.1f} | {growth / 1e6:.1f} | {growth / size:.2f} "
                f"| {(found['peak'] - found['before']) / 1e6:.1f} |"
            )


def loading(folder: Path, arguments: argparse.Namespace) -> None:
    """Seconds to open a session on the fixture, and what it keeps."""
    files = {"stock": compiled(FIXTURE, "cpu-x86", None, folder)}
    files["qcompiler"] = compiled(FIXTURE, arguments.target, "w8a8", folder)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in files}
    for _ in range(arguments.rounds):
        for provider, path in files.items():
            found[provider].append(child(provider, path))
    say("\n| fixture on | file MB | load s, median | minimum | session MB |\n|---|---|---|---|---|")
    for provider, rows in found.items():
        seconds = [row["seconds"] for row in rows]
        growth = np.median([row["after"] - row["before"] for row in rows])
        size = files[provider].stat().st_size
        say(f"| {provider} | {size / 1e6:.1f} | {np.median(seconds):.3f} | {min(seconds):.3f} | {growth / 1e6:.1f} |")


def child(provider: str, path: Path) -> dict[str, Any]:
    """Open a session in a process of its own."""
    command = [sys.executable, __file__, "--child", provider, str(path)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def opened(provider: str, path: str) -> dict[str, Any]:
    """Resident bytes before and after, the peak, and the seconds that opening took."""
    from qcompiler.analysis.contestants import Contestant
    from qcompiler.ir.memory import trim

    warm(provider)
    trim()
    before = resident("VmRSS")
    start = time.perf_counter()
    session = Contestant(Path(path), provider).open(1)
    seconds = time.perf_counter() - start
    trim()
    after = resident("VmRSS")
    del session
    return {"before": before, "after": after, "peak": resident("VmHWM"), "seconds": seconds}


def warm(provider: str) -> None:
    """Open a tiny session, so that libraries are loaded and their own memory is not counted."""
    from qcompiler.analysis.contestants import Contestant

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.onnx"
        path.write_bytes(packed_gemm(1, 16, 4).model)
        Contestant(path, provider).open(1)


def resident(name: str) -> int:
    """A figure of this process's memory, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise SystemExit("needs /proc/self/status")


def say(text: str) -> None:
    """Write lines at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
