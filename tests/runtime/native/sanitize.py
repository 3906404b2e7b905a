"""Run native operators under AddressSanitizer and UndefinedBehaviorSanitizer.

``python -m tests.runtime.native.sanitize [--cases N] [--sessions N]`` builds the library with both sanitizers in a
temporary folder, then runs correct and broken instances of every operator in it: by the C interface, and in ONNX
Runtime with the execution provider. It ends with code 1 at the first finding, whose report is printed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[3]
SOURCES = PROJECT / "qcompiler" / "runtime"
FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g1 -O1"
RULES = {
    # Python and NumPy leave memory to the end of the process; what is hostile asks for impossible sizes.
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=8192",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


def build(folder: Path, jobs: int) -> Path:
    """The library with sanitizers, built in ``folder``."""
    chosen = ["-DCMAKE_BUILD_TYPE=None", f"-DCMAKE_CXX_FLAGS={FLAGS}"]
    configure = ["cmake", "-S", str(SOURCES), "-B", str(folder), *chosen]
    for command in (configure, ["cmake", "--build", str(folder), f"-j{jobs}"]):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / "libqcompiler_runtime.so"


def runtime_of(name: str) -> str:
    """Path of a sanitizer's library, which must be there before Python is."""
    done = subprocess.run(["g++", f"-print-file-name={name}"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def attack(library: Path, module: str, *options: str) -> bool:
    """Run instances in a process of its own; returns whether nothing was found."""
    preload = f"{runtime_of('libasan.so')} {runtime_of('libubsan.so')}"
    log = library.parent / "log"
    command = [sys.executable, "-m", f"tests.runtime.native.{module}", "--library", str(library)]
    environment = os.environ | RULES | {"LD_PRELOAD": preload}
    done = subprocess.run([*command, "--log", str(log), *options], cwd=PROJECT, env=environment, check=False)
    if done.returncode != 0:
        sys.stdout.write(f"{log.read_text().strip()} ended with {done.returncode} ({module} {' '.join(options)})\n")
    return done.returncode == 0


def main() -> int:
    """Build, attack, and say whether anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2000, help="instances by the C interface, correct and broken each")
    parser.add_argument("--sessions", type=int, default=300, help="instances in ONNX Runtime, correct and broken each")
    parser.add_argument("--jobs", type=int, default=2, help="compilers at a time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        library = build(Path(folder), options.jobs)
        plans = [
            ["attack", "--unlimited", "--cases", str(options.cases), "--sound"],
            ["attack", "--unlimited", "--cases", str(options.cases)],
            ["attack", "--unlimited", "--cases", str(options.sessions), "--sound", "--sessions"],
            ["attack", "--unlimited", "--cases", str(options.sessions), "--sessions"],
            ["attack_claims", "--cases", str(options.sessions)],
        ]
        return 0 if all(attack(library, *plan) for plan in plans) else 1


if __name__ == "__main__":
    sys.exit(main())
