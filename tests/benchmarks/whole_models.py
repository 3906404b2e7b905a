"""Whole models on our kernels, on ONNX Runtime's integers, in float: ``whole_models.py [MODEL ...] [--keep FOLDER]``.

Measured, never asserted. Every model is compiled for ``cpu-x86`` (Q/DQ pairs, ONNX Runtime's own integer kernels) and
for the target of our kernels; the float model and both files run in turns in one process. ``ours / int8`` is our time
over that of ONNX Runtime's integers: below 1 we are faster. ``float / ours`` is how many times as fast as float.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from subjects import FIXTURE, NAMES, compiled, float_model

from qcompiler.analysis.bench import BenchRow, bench
from qcompiler.analysis.contestants import Contestant
from qcompiler.analysis.node_profile import by_operator


def main() -> None:
    """Print a table of all models and, where asked for, what takes the time in each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=[FIXTURE, *NAMES], help="by default all four")
    parser.add_argument("--target", default="lowbit-cpu", help="profile of our kernels")
    parser.add_argument("--formats", nargs="+", default=["w8a8"], help="formats of our files")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--budget", type=float, default=3.0, help="seconds per file and number of threads")
    parser.add_argument("--isa", help="instruction set of our kernels")
    parser.add_argument("--processor-time", action="store_true", help="one thread: leave out what other processes do")
    parser.add_argument("--nodes", action="store_true", help="say which operators take the time")
    parser.add_argument("--keep", type=Path, help="folder that keeps the compiled files for the next time")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        say("| model | threads | format | float ms | int8 ms | ours ms | minima | ours / int8 | float / ours |")
        say("|---|---|---|---|---|---|---|---|---|")
        details = [text for name in arguments.models for text in measure(name, arguments, folder)]
    for text in details:
        say(text)


def measure(name: str, arguments: argparse.Namespace, folder: Path) -> list[str]:
    """Write the rows of one model; returns what is to be said below the table."""
    model, _ = float_model(name, folder)
    entries = [Contestant(model), Contestant(compiled(name, "cpu-x86", None, folder))]
    for form in arguments.formats:
        path = compiled(name, arguments.target, form, folder)
        entries.append(Contestant(path, "qcompiler", arguments.isa))
    rows = bench(
        entries, threads=arguments.threads, budget=arguments.budget, nodes=arguments.nodes,
        processor_time=arguments.processor_time,
    )  # fmt: skip
    details = []
    for start in range(0, len(rows), len(entries)):
        plain, integer, *others = rows[start : start + len(entries)]
        for form, own in zip(arguments.formats, others, strict=True):
            medians = (plain.timing.median, integer.timing.median, own.timing.median)
            minima = " ".join(f"{row.timing.minimum:.3g}" for row in (plain, integer, own))
            say(
                f"| {name} | {own.threads} | {form} | {' | '.join(f'{value:.3g}' for value in medians)} | {minima} "
                f"| {medians[2] / medians[1]:.2f} | {medians[0] / medians[2]:.2f} |"
            )
            details += described(f"{name} {form}, {own.threads} thread(s)", own)
        details += described(f"{name} int8, {integer.threads} thread(s)", integer)
    return details


def described(title: str, row: BenchRow) -> list[str]:
    """Operators by time, where nodes were profiled."""
    if row.nodes is None:
        return []
    shares = ", ".join(
        f"{item.op_type} {item.microseconds:.0f} µs × {item.nodes} ({100 * item.share:.0f} %, {item.provider[:9]})"
        for item in by_operator(row.nodes)[:8]
    )
    return [f"\n{title}: {shares}"]


def say(line: str) -> None:
    """Write a line at once: compiling the next model takes a while."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
