"""Executors: words that are refused, work that comes back, and what is said when a worker fails."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from qcompiler.analysis.sensitivity import metric_named
from qcompiler.driver.executors import check_executor, executor_of
from qcompiler.errors import QCompilerError, UsageError


@pytest.mark.parametrize(
    ("text", "workers", "message"),
    [
        ("slurm://host:1", 0, "one of dask://HOST:PORT, ray, ray://HOST:PORT"),
        ("dask", 0, "is not known"),
        ("dask://host", 0, "is not known"),
        ("ray://:10", 0, "is not known"),
        ("dask://host:port", 0, "is not known"),
        ("", 0, "is not known"),
        ("ray", 2, "leave one of them out"),
        (None, -1, "--workers -1 is less than 0"),
    ],
)
def test_words_that_mean_no_executor_are_refused(text: str | None, workers: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_executor(text, workers)
    with pytest.raises(UsageError, match=message), executor_of(text, workers):
        pytest.fail("it was opened")


@pytest.mark.parametrize("text", ["dask://host:8786", "dask://10.0.0.1:1", "ray", "ray://host:10001", None])
def test_words_that_mean_one_are_not(text: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qcompiler.driver.executors.find_spec", lambda _: "installed")
    check_executor(text, 0)


def test_without_words_the_work_stays_here() -> None:
    with executor_of(None) as executor:
        assert executor is None


def test_processes_work_and_raise_what_was_raised() -> None:
    with executor_of(None, 1) as executor:
        assert executor is not None
        assert executor.submit(os.getpid).result() != os.getpid()
        with pytest.raises(UsageError, match="there is no sensitivity metric 'mesured'") as caught:
            executor.submit(metric_named, "mesured").result()
        assert caught.value.hint == "did you mean 'measured'?"


def test_a_process_that_ends_is_named() -> None:
    def work() -> None:
        with executor_of(None, 1) as executor:
            assert executor is not None
            executor.submit(os._exit, 3).result()

    with pytest.raises(QCompilerError, match="a worker process ended before its work was done"):
        work()


@pytest.mark.parametrize(("text", "library"), [("dask://127.0.0.1:1", "distributed"), ("ray", "ray")])
def test_a_library_that_is_missing_is_named(text: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(QCompilerError, match=f"needs the library {library}") as caught, executor_of(text):
        pytest.fail("it was opened")
    assert caught.value.hint == f"pip install 'qcompiler[{text.partition(':')[0]}]'"


# -- real clusters ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _dask(workers: int) -> Iterator[str]:
    distributed: ModuleType = pytest.importorskip("distributed", reason="needs the extra dask")
    options = {"processes": True, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": "ERROR"}
    with distributed.LocalCluster(n_workers=workers, **options) as cluster:
        yield f"dask://{cluster.scheduler_address.removeprefix('tcp://')}"


@contextlib.contextmanager
def _ray(workers: int) -> Iterator[str]:
    ray: ModuleType = pytest.importorskip("ray", reason="needs the extra ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init("local", num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield "ray"
        assert ray.is_initialized(), "a cluster that we did not start was stopped"
    finally:
        ray.shutdown()


@pytest.mark.parametrize("cluster", [_dask, _ray])
def test_a_cluster_works_and_says_what_failed(cluster: object) -> None:
    with cluster(2) as text, executor_of(text) as executor:  # type: ignore[operator]
        assert executor is not None
        assert executor._max_workers == 2  # type: ignore[attr-defined]
        futures = [executor.submit(divmod, number, 7) for number in range(20)]
        assert [future.result(60) for future in futures] == [divmod(number, 7) for number in range(20)]
        assert os.getpid() not in {executor.submit(os.getpid).result(60) for _ in range(3)}
        with pytest.raises(UsageError, match="there is no sensitivity metric 'mesured'") as refusal:
            executor.submit(metric_named, "mesured").result(60)
        assert refusal.value.hint == "did you mean 'measured'?"
        with pytest.raises(QCompilerError, match="a worker failed: ValueError: invalid literal") as failure:
            executor.submit(int, "x").result(60)
        assert failure.value.where == text


def test_a_scheduler_without_workers_is_refused() -> None:
    with _dask(0) as text, pytest.raises(QCompilerError, match="the scheduler has no workers"), executor_of(text):
        pytest.fail("it was opened")


def test_a_cluster_that_does_not_answer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="needs the extra dask")
    monkeypatch.setattr("qcompiler.driver.executors._SECONDS", 1)
    with pytest.raises(QCompilerError, match="the cluster does not answer"), executor_of("dask://127.0.0.1:9"):
        pytest.fail("it was opened")
