"""Beside other quantizers, in one run: ``peers.py --python nncf=VENV/bin/python … [MODEL …]``.

Each peer lives in a virtual environment of its own, whose Python is given for it; the recipes are in
``peer_recipes.py``. Everybody gets the same samples, and all results are judged on the same evaluation data by the same
measure, in ONNX Runtime. Ours is ``qcompile`` with its default effort.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from subjects import NAMES, zoo

MODELS = ("mobilenetv1_025", "resnet20", "minilm")
SHORT = {**NAMES, "dscnn": "dscnn_kws", "minilm": "minilm_l6_stsb", "stories": "stories260k_lm"}
RECIPES = {
    "onnxruntime": ("onnxruntime",),
    "nncf": ("nncf", "nncf-accurate"),
    "quark": ("quark", "quark-adaround"),
    "aimet": ("aimet", "aimet-equalized", "aimet-searched"),
}
OURS = ("cpu-x86", "edge-npu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PYTHON")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--limit", type=int, default=None, help="evaluation samples")
    parser.add_argument("--patience", type=float, default=900, help="seconds for one recipe")
    options = parser.parse_args()
    pythons = dict(item.split("=", 1) for item in options.python)
    say("| model | by | seconds | result |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for model in options.models:
            compare(SHORT.get(model, model), pythons, options, Path(name))


def compare(model: str, pythons: dict[str, str], options: argparse.Namespace, folder: Path) -> None:
    """Print the rows of one model."""
    case = zoo().load(model)
    data = case.write_npz(folder / f"{model}.npz", options.samples)
    script = str(Path(__file__).with_name("peer_recipes.py"))
    qcompile = str(Path(sys.executable).with_name("qcompile"))
    commands: dict[str, list[str]] = {}
    for target in OURS:
        ours = [qcompile, str(case.model), "-t", target, "-c", str(data), "--lowering", "qdq", "--no-cache"]
        commands[f"qcompiler-{target}"] = [*ours, "--no-latency", "--quiet", "-o"]
    for peer, python in pythons.items():
        for recipe in RECIPES[peer]:
            commands[recipe] = [python, script, recipe, str(case.model), str(data)]
    for label, command in commands.items():
        output = folder / f"{model}.{label}.onnx"
        start = time.perf_counter()
        reason = failure([*command, str(output)], options.patience)
        seconds = time.perf_counter() - start
        say(f"| {model} | {label} | {seconds:.0f} | {reason or judged(case, output, options.limit)} |")


def failure(command: list[str], patience: float) -> str:
    """Run a command; why it gave nothing, or an empty text."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience, check=False)
    except subprocess.TimeoutExpired:
        return f"not done in {patience:.0f} s"
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["failed"])[-1]


def judged(case: object, output: Path, limit: int | None) -> str:
    """What the evaluation data says of a file."""
    try:
        found = case.evaluate(output, limit=limit)  # type: ignore[attr-defined]
    except Exception as error:  # noqa: BLE001 -- a peer's file may not load; that is its result
        return f"does not run: {str(error).splitlines()[0][:120]}"
    return ", ".join(f"{name} {value:.4g}" for name, value in found.items())


def say(line: str) -> None:
    """Print a line of the table at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
