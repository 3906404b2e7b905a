"""Models find their providers, and what cannot take part is refused with a way out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qcompiler import runtime
from qcompiler.analysis.bench import bench
from qcompiler.analysis.contestants import Contestant, contestants
from qcompiler.errors import QCompilerError, UsageError


def test_one_provider_for_all_or_one_per_model() -> None:
    assert [item.provider for item in contestants(["a", "b"])] == ["stock", "stock"]
    assert [item.provider for item in contestants(["a", "b"], ["qcompiler"])] == ["qcompiler", "qcompiler"]
    mixed = contestants(["a", "b"], ["stock", "qcompiler"], "avx2")
    assert [(item.path, item.provider, item.isa) for item in mixed] == [
        (Path("a"), "stock", None), (Path("b"), "qcompiler", "avx2"),
    ]  # fmt: skip
    assert mixed[1].where == "qcompiler (avx2)"


def test_numbers_that_do_not_fit() -> None:
    with pytest.raises(UsageError, match="3 models and 2 providers"):
        contestants(["a", "b", "c"], ["stock", "qcompiler"])


def test_an_unknown_provider_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'stock'"):
        Contestant(Path("a"), "stok")


def test_an_instruction_set_without_our_kernels() -> None:
    with pytest.raises(UsageError, match="add --provider qcompiler"):
        contestants(["a"], ["stock"], "avx2")


def test_without_the_library_it_says_so(small_cnn_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "library_path", lambda: None)
    with pytest.raises(QCompilerError, match="is not installed") as caught:
        Contestant(small_cnn_path, "qcompiler").open(1)
    assert caught.value.exit_code == 1


def test_threads_make_benchmarks_of_their_own(small_cnn_path: Path) -> None:
    rows = bench([small_cnn_path, Contestant(small_cnn_path)], threads=[1, 2], rounds=3, nodes=True)
    assert [(row.threads, row.provider) for row in rows] == [(1, "stock"), (1, "stock"), (2, "stock"), (2, "stock")]
    assert all(row.timing.rounds == 3 for row in rows)
    assert rows[2].speedup.value == 1
    assert all(row.nodes and row.float_nodes == 2 for row in rows)


@pytest.mark.skipif(runtime.library_path() is None, reason="needs the native library")
def test_our_kernels_take_part(small_cnn_path: Path, tmp_path: Path) -> None:
    import qcompiler

    path = tmp_path / "compiled.onnx"
    samples = [{"x": np.ones((1, 3, 8, 8), np.float32)} for _ in range(2)]
    qcompiler.compile(
        small_cnn_path, "edge-npu", calibration=samples, output=path, cache=False, latency=False, keep=True
    )
    rows = bench(contestants([path, path], ["stock", "qcompiler"], "reference"), rounds=3, nodes=True)
    assert [(row.provider, row.isa) for row in rows] == [("stock", None), ("qcompiler", "reference")]
    assert {node.provider for node in rows[0].nodes or ()} == {"CPUExecutionProvider"}
    assert {node.provider for node in rows[1].nodes or ()} >= {"CPUExecutionProvider", "QCompilerExecutionProvider"}


@pytest.mark.skipif(runtime.library_path() is None, reason="needs the native library")
def test_an_instruction_set_that_is_not_here(small_cnn_path: Path) -> None:
    with pytest.raises(UsageError, match="'z80' is not available"):
        Contestant(small_cnn_path, "qcompiler", "z80").open(1)
