"""Many threads on one session, with shapes that change, give what one thread gives."""

from __future__ import annotations

import concurrent.futures
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import qcompiler
from qcompiler.models import loaders
from qcompiler.runtime import session
from qcompiler.runtime.library import library_path

WORKERS, RUNS = 4, 250

pytestmark = pytest.mark.skipif(library_path() is None, reason="the installation has no native library")


@pytest.fixture(scope="module", params=["digits_cnn", "digits_vit"])
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("concurrency") / f"{request.param}.onnx"
    qcompiler.compile(request.param, "edge-npu", output=path)
    return path


def images() -> np.ndarray:
    with np.load(Path(loaders.__file__).parent / "digits_evaluation.npz") as data:
        return data[next(name for name in data.files if name != "labels")]


def test_four_workers_agree_with_stock_runs(compiled: Path) -> None:
    samples = images()
    stock = onnxruntime.InferenceSession(str(compiled), providers=["CPUExecutionProvider"])
    name = stock.get_inputs()[0].name
    expected = stock.run(None, {name: samples[:64]})[0]
    native = session(compiled, threads=2)

    def work(worker: int) -> int:
        random = np.random.default_rng(worker)
        wrong = 0
        for _ in range(RUNS):
            first = int(random.integers(0, 60))
            last = first + int(random.integers(1, 5))
            found = native.run(None, {name: samples[first:last]})[0]
            wrong += int((found != expected[first:last]).sum())
        return wrong

    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        assert sum(pool.map(work, range(WORKERS))) == 0
