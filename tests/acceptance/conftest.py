"""Compiles shipped samples and zoo models to integers, once per session, and runs them every way there is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from qcompiler.models import loaders
from qcompiler.runtime import library_path
from qcompiler.runtime import session as runtime_session
from qcompiler.runtime.interpreter import Interpreter

NIGHTLY = bool(os.environ.get("QCOMPILER_NIGHTLY"))
"""Whether every sample of every evaluation set is run; a normal run takes some of them."""

Feed = dict[str, NDArray[Any]]
Run = Callable[[Feed], list[NDArray[Any]]]


@dataclass(frozen=True)
class Subject:
    """A model with data.

    Attributes:
        name: Its name.
        model: The float model.
        calibration: Samples to calibrate on.
        evaluate: Runs a function ``feed -> outputs`` (or a file) on the evaluation samples and measures it; ``limit``
            bounds the number of samples.
    """

    name: str
    model: Path
    calibration: Path
    evaluate: Callable[..., dict[str, float]]


@dataclass(frozen=True)
class Compiled:
    """A compiled model.

    Attributes:
        subject: What was compiled.
        path: The file.
        report: Its report, as JSON.
        plan: Its plan, as JSON.
    """

    subject: Subject
    path: Path
    report: dict[str, Any]
    plan: dict[str, Any]


@pytest.fixture(scope="session")
def nightly() -> bool:
    """Whether this is a long run (``QCOMPILER_NIGHTLY=1``)."""
    return NIGHTLY


@pytest.fixture(scope="session")
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Subject]:
    """Gives a shipped sample or a zoo model by name; skips where there is no zoo."""
    folder = tmp_path_factory.mktemp("data")

    @cache
    def get(name: str) -> Subject:
        if name in loaders.names():
            sample = loaders.load(name)
            return Subject(name, sample.path, sample.calibration, _sample_evaluation(sample))
        zoo: ModuleType = request.getfixturevalue("zoo")
        case = zoo.load(name)
        return Subject(name, Path(case.model), case.write_npz(folder / f"{name}.npz", 128), case.evaluate)

    return get


def _sample_evaluation(sample: loaders.SampleModel) -> Callable[..., dict[str, float]]:
    """The same measure as the zoo's, for a shipped classifier."""

    def evaluate(model: Path | Run, limit: int | None = None, batch: int = 25) -> dict[str, float]:
        with np.load(sample.evaluation) as arrays:
            labels = arrays["labels"][:limit]
            feeds = {name: arrays[name][:limit] for name in arrays.files if name != "labels"}
        reference = session(sample.path)
        run = model if callable(model) else _runner(session(model))
        found, wanted = [], []
        for start in range(0, len(labels), batch):
            feed = {name: array[start : start + batch] for name, array in feeds.items()}
            found.append(run(feed)[0])
            wanted.append(reference.run(None, feed)[0])
        got, want = np.concatenate(found).argmax(1), np.concatenate(wanted).argmax(1)
        return {"top1": 100 * float((got == labels).mean()), "agree": 100 * float((got == want).mean())}

    return evaluate


def _runner(opened: onnxruntime.InferenceSession) -> Run:
    return lambda feed: opened.run(None, feed)


@pytest.fixture(scope="session")
def compiled(subject: Callable[[str], Subject], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Compiled]:
    """Compiles a model through the command line: ``compiled(name, target, *options)``; each request once."""
    folder = tmp_path_factory.mktemp("compiled")

    @cache
    def run(name: str, target: str = "edge-npu", *options: str) -> Compiled:
        given = subject(name)
        stem = folder / "_".join([name, target, *options]).replace("/", "-")
        files = {ending: stem.with_name(f"{stem.name}.{ending}") for ending in ("onnx", "report.json", "plan.json")}
        command = [str(Path(sys.executable).with_name("qcompile")), str(given.model), "--target", target]
        command += ["--calibration", str(given.calibration), "-o", str(files["onnx"])]
        command += ["--report", str(files["report.json"]), "--plan-out", str(files["plan.json"])]
        command += ["--quiet", "--no-cache", "--no-latency", *_effort(options), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or ("--keep" in options and done.returncode == 3), done.stderr
        report, plan = (json.loads(files[ending].read_text("utf-8")) for ending in ("report.json", "plan.json"))
        return Compiled(given, files["onnx"], report, plan)

    return run


def _effort(options: Sequence[str]) -> list[str]:
    """Nothing is tried unless a test asks for it: what operators compute does not depend on it."""
    return [] if "--effort" in options else ["--effort", "quick"]


def session(model: Path | bytes, threads: int = 0) -> onnxruntime.InferenceSession:
    """A plain session on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def last_codes(path: Path) -> list[str]:
    """The integer tensors that float nodes at the end of a graph are computed from; at most one float step away."""
    graph = onnx.load(path).graph
    makers = {name: node for node in graph.node for name in node.output}
    found: dict[str, None] = {}
    pending = [output.name for output in graph.output]
    seen = set(pending)
    while pending:
        node = makers.get(pending.pop())
        if node is None:
            continue
        if node.op_type == "DequantizeLinear":
            found[node.input[0]] = None
            continue
        pending += [name for name in node.input if name and name not in seen]
        seen.update(node.input)
    return [name for name in found if name in makers]


def with_outputs(path: Path, names: Sequence[str]) -> bytes:
    """The model with these tensors as additional outputs."""
    model = onnx.load(path)
    present = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in present)
    return model.SerializeToString()


@dataclass
class Mismatches:
    """Integers in which the interpreter or native kernels differ from ONNX Runtime, counted while samples run."""

    integers: int = 0
    different: int = 0
    samples: int = 0


@pytest.fixture(scope="session")
def bitwise() -> Callable[[Compiled], tuple[Run, Mismatches]]:
    """For a compiled model: a function that runs it on a feed every way there is, and the count that it keeps.

    The ways are stock ONNX Runtime, the interpreter, and (where the installation has them) our native kernels.
    """

    def make(made: Compiled) -> tuple[Run, Mismatches]:
        names = last_codes(made.path)
        assert names, "the graph ends in no codes"
        runtime, interpreter = session(with_outputs(made.path, names)), Interpreter(made.path)
        outputs = [item.name for item in session(made.path).get_outputs()]
        native = runtime_session(with_outputs(made.path, names)) if library_path() is not None else None
        count = Mismatches()

        def run(feed: Feed) -> list[NDArray[Any]]:
            expected = runtime.run([*outputs, *names], feed)
            ways = [interpreter.run(feed, names)]
            if native is not None:
                ways.append(dict(zip(names, native.run(names, feed), strict=True)))
            for name, codes in zip(names, expected[len(outputs) :], strict=True):
                for found in ways:
                    assert found[name].dtype == codes.dtype
                    assert found[name].shape == codes.shape
                    count.different += int((found[name] != codes).sum())
                count.integers += codes.size
            count.samples += len(next(iter(feed.values())))
            return list(expected[: len(outputs)])

        return run, count

    return make


@pytest.fixture(scope="session")
def feeds() -> Callable[..., Iterator[Feed]]:
    """Feeds of the evaluation samples of a subject, as its own measure makes them."""

    def collect(given: Subject, limit: int, batch: int = 25) -> Iterator[Feed]:
        found: list[Feed] = []
        reference = session(given.model)

        def record(feed: Feed) -> list[NDArray[Any]]:
            found.append(feed)
            return list(reference.run(None, feed))

        given.evaluate(record, limit=limit, batch=batch)
        return iter(found)

    return collect
