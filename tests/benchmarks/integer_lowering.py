"""What the width of a multiplier costs, and how long lowering takes: ``integer_lowering.py [MODEL ...] [--time QDQ]``.

Measured, never asserted. For every model (shipped sample, or model of the zoo beside the repository) the Q/DQ form is
compiled once and lowered with multipliers of 31, 16 and 8 bits. Per width the table says, layer by layer on the same
input codes, how many codes differ from those of 31 bits and from the exact real product rounded once (layers that end
in one rescale), and what becomes of the model's quality. ``--time`` lowers a Q/DQ file and prints seconds per pass.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from qcompiler.analysis.accumulators import accumulators
from qcompiler.analysis.integer_only import integer_only
from qcompiler.ir import io
from qcompiler.ir.edit import Edit
from qcompiler.models import loaders
from qcompiler.pipeline import spec
from qcompiler.pipeline.base import Context
from qcompiler.quant.functions.catalogue import operators
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.quant.integer import dyadic
from qcompiler.runtime.interpreter import Interpreter
from qcompiler.target.legality import check_model
from qcompiler.target.load import load

ZOO = Path(__file__).resolve().parents[3] / "shared" / "zoo"
WIDTHS = (31, 16, 8)
SAMPLES = 16
FACTORS: dict[bytes, NDArray[np.float64]] = {}
"""Real factors by the multiplier and shift that stand for them: what lowering rounds, written down beside it."""

Array = NDArray[Any]
_T = TypeVar("_T")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="samples and zoo models; by default the shipped samples")
    parser.add_argument("--time", metavar="QDQ", help="a Q/DQ file to lower, instead of the table")
    parser.add_argument("--limit", type=int, help="evaluation samples per model")
    arguments = parser.parse_args()
    if arguments.time is not None:
        print_seconds(Path(arguments.time))
        return
    sys.stdout.write("| model | bits | codes ≠ 31 bits | codes ≠ exact | quality |\n|---|---|---|---|---|\n")
    for name in arguments.models or loaders.names():
        for row in rows_of(name, arguments.limit):
            sys.stdout.write("| " + " | ".join(row) + " |\n")


def rows_of(name: str, limit: int | None) -> Iterator[tuple[str, ...]]:
    """Rows of the table for one model."""
    with tempfile.TemporaryDirectory() as folder:
        subject = Subject(name, Path(folder))
        path = subject.compile_pairs()
        reference: dict[str, Array] = {}
        with recorded_factors():
            for bits in WIDTHS:
                model = lowered(path, bits)
                file = Path(folder) / f"{bits}.onnx"
                io.save(model, file)
                if not reference:
                    names = [str(value.name) for node in model.graph for value in node.outputs if value.name]
                    reference = Interpreter(file).run(subject.feed(), names) | subject.feed()
                other, exact = differences(model, reference)
                yield name, str(bits), percent(*other), percent(*exact), subject.quality(file, limit)


def lowered(path: Path, bits: int) -> ir.Model:
    """The Q/DQ file in integer operators with multipliers of so many bits."""
    profile = load("edge-npu")
    integer = dataclasses.replace(profile.integer, multiplier_bits=bits, wide_multiplier_bits=bits)
    target = dataclasses.replace(profile, integer=integer)
    model = io.load(path)
    ctx = Context(Edit(model), target=target)
    for item in spec.parse("lower"):
        item.run(model, ctx)
    return model


def differences(model: ir.Model, reference: dict[str, Array]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Codes that differ from the reference, and from exact rounding; every layer reads the reference's codes."""
    other, exact = np.zeros(2, np.int64), np.zeros(2, np.int64)
    for node in model.graph:
        result = str(node.outputs[0].name)
        known = all(value is None or value.const_value is not None or value.name in reference for value in node.inputs)
        if node.domain != DOMAIN or result not in reference or not known:
            continue  # rescales that other widths fold otherwise
        inputs = [None if value is None else operand(value, reference) for value in node.inputs]
        attributes = {name: plain(item) for name, item in node.attributes.items()}
        run = operators()[node.op_type].specification
        codes = run(*inputs, **attributes)
        other += (codes != reference[result]).sum(), codes.size
        factor = FACTORS.get(key(*inputs[-2:])) if len(inputs) > 2 else None
        if factor is not None and "Wide" not in node.op_type and operators()[node.op_type].inputs[-2] == "multiplier":
            exact += (codes != exactly(run, inputs[:-2], attributes, factor)).sum(), codes.size
    return (int(other[0]), int(other[1])), (int(exact[0]), int(exact[1]))


def exactly(run: Any, inputs: list[Any], attributes: dict[str, Any], factor: NDArray[np.float64]) -> Array:
    """The accumulator times the real factor, rounded once; its rescale by ``2 * 2^-1`` gives the accumulator itself."""
    plainly = attributes | {"y_zero_point": 0, "to": 6, "low": -(2**31), "high": 2**31 - 1}
    accumulator = run(*inputs, np.int32(2), np.uint8(1), **plainly)
    codes = np.floor(accumulator * factor + 0.5) + attributes["y_zero_point"]
    return np.clip(codes, attributes["low"], attributes["high"]).astype(np.int64)


def operand(value: ir.Value, reference: dict[str, Array]) -> Array:
    """A constant, or what the reference computed."""
    return value.const_value.numpy() if value.const_value is not None else reference[str(value.name)]


def plain(attribute: ir.Attr) -> Any:
    """An attribute as the specification takes it."""
    return list(attribute.value) if isinstance(attribute.value, list | tuple) else attribute.value


def key(multiplier: Array, shift: Array) -> bytes:
    """What identifies a chosen factor."""
    return np.asarray(multiplier).tobytes() + b"/" + np.asarray(shift).tobytes()


class recorded_factors:  # noqa: N801 - used like a function
    """Writes down every factor that lowering rounds, while it is entered."""

    def __enter__(self) -> None:
        self._choose = dyadic.choose

        def choose(factor: Any, bits: int, bound: int) -> dyadic.Dyadic:
            chosen = self._choose(factor, bits, bound)
            if chosen.multiplier is not None:
                FACTORS[key(chosen.multiplier, chosen.shift)] = np.asarray(factor, np.float64)
            return chosen

        dyadic.choose = choose

    def __exit__(self, *_: object) -> None:
        dyadic.choose = self._choose


class Subject:
    """A model with its data: shipped, or from the zoo."""

    def __init__(self, name: str, folder: Path) -> None:
        self.folder, self.name, self.case = folder, name, None
        if name in loaders.names():
            self.sample = loaders.load(name)
            self.model, self.data = self.sample.path, self.sample.calibration
        else:
            self.case = _zoo().load(name)
            self.model, self.data = self.case.model, self.case.write_npz(folder / "data.npz", 128)

    def compile_pairs(self) -> Path:
        """Compile to Q/DQ form."""
        path = self.folder / "pairs.onnx"
        command = [str(Path(sys.executable).with_name("qcompile")), str(self.model), "--target", "edge-npu"]
        command += ["--lowering", "qdq", "--calibration", str(self.data), "-o", str(path), "--quiet", "--no-latency"]
        subprocess.run(command, check=True)
        return path

    def feed(self) -> dict[str, Array]:
        """Some samples that layers are compared on."""
        with np.load(self.data) as arrays:
            return {name: arrays[name][:SAMPLES] for name in arrays.files}

    def quality(self, path: Path, limit: int | None) -> str:
        """Figures of the task."""
        if self.case is not None:
            found = self.case.evaluate(path, limit=limit)
            return ", ".join(f"{name} {value:.4g}" for name, value in found.items())
        with np.load(self.sample.evaluation) as arrays:
            labels, feed = arrays["labels"], {name: arrays[name] for name in arrays.files if name != "labels"}
        got, want = (
            onnxruntime.InferenceSession(str(item), providers=["CPUExecutionProvider"]).run(None, feed)[0].argmax(1)
            for item in (path, self.model)
        )
        return f"top1 {100 * (got == labels).mean():.4g}, agree {100 * (got == want).mean():.4g}"


def _zoo() -> Any:
    described = importlib.util.spec_from_file_location("qcompiler_zoo", ZOO / "zoo.py")
    assert described is not None
    assert described.loader is not None
    module = importlib.util.module_from_spec(described)
    sys.modules[described.name] = module
    described.loader.exec_module(module)
    return module


def percent(count: int, total: int) -> str:
    """A share with its count."""
    return f"{count} of {total} ({100 * count / total:.2g} %)" if total else "–"


def print_seconds(path: Path) -> None:
    """Wall and processor seconds of each step of lowering a Q/DQ file, the proofs about what was written included."""
    lines: list[str] = []

    def timed(name: str, step: Callable[[], _T]) -> _T:
        wall, processor = time.perf_counter(), time.process_time()
        result = step()
        lines.append(f"{time.perf_counter() - wall:6.2f} s {time.process_time() - processor:6.2f} s  {name}")
        return result

    target = load("edge-npu")
    model = timed("load", lambda: io.load(path))
    ctx = Context(Edit(model), target=target)
    for item in spec.parse("lower"):
        timed(item.name, functools.partial(item.run, model, ctx))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "out.onnx"
        timed("save", lambda: io.save(model, file))
        size = file.stat().st_size
        written = io.load(file)
        timed("legality", lambda: check_model(written, target))
        timed("integer only", lambda: integer_only(written))
        timed("accumulators", lambda: accumulators(written, target.integer))
    sys.stdout.write("  wall  processor\n" + "\n".join(lines))
    sys.stdout.write(f"\n{size / path.stat().st_size:.3f} × the size of {path.name}\n")


if __name__ == "__main__":
    main()
