"""Who does work that can be shared out: processes of this machine, or a cluster.

``--workers N`` starts N processes here, ``--executor dask://HOST:PORT``, ``ray`` or ``ray://HOST:PORT`` uses a cluster.
All are ``concurrent.futures`` executors that know how many tasks they run at a time (``_max_workers``, as those of the
standard library do), and give the same figures.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from importlib.util import find_spec
from typing import Any, Final, ParamSpec, TypeVar

from qcompiler.errors import QCompilerError, UsageError, first_line

__all__ = ["check_executor", "executor_of"]

P = ParamSpec("P")
T = TypeVar("T")

_RAY: Final = "ray"
_LIBRARIES: Final = {"dask": "distributed", _RAY: "ray"}
"""What each needs; the extras of the package are named like the keys."""
_FORMS: Final = "dask://HOST:PORT, ray, ray://HOST:PORT"
_SECONDS: Final = 20
"""How long a cluster may take to answer."""


def check_executor(text: str | None, workers: int) -> None:
    """Refuse what means no executor here, before any work.

    Raises:
        UsageError: There is no such executor, or two are asked for.
        QCompilerError: Its library is not installed.
    """
    if workers < 0:
        raise UsageError(f"--workers {workers} is less than 0")
    if text is None:
        return
    if workers:
        raise UsageError(
            f"--workers starts processes here, --executor {text} uses a cluster", hint="leave one of them out"
        )
    scheme, separator, address = text.partition("://")
    host, _, port = address.rpartition(":")
    if text != _RAY and not (scheme in ("dask", _RAY) and separator and host and port.isdecimal()):
        raise UsageError(f"--executor '{text}' is not known", hint=f"one of {_FORMS}")
    if find_spec(_LIBRARIES[scheme]) is None:
        raise QCompilerError(
            f"--executor {text} needs the library {_LIBRARIES[scheme]}, which is not installed",
            hint=f"pip install 'qcompiler[{scheme}]'",
        )


@contextlib.contextmanager
def executor_of(text: str | None, workers: int = 0) -> Iterator[Executor | None]:
    """The executor that is asked for; ``None`` where the work is done in this process.

    Tasks that wait are dropped on the way out, and what was started for them is stopped; a cluster stays.

    Args:
        text: ``dask://HOST:PORT``, ``ray`` (the cluster that this program is connected to, else one that runs on this
            machine, else one that is started for it) or ``ray://HOST:PORT``.
        workers: Processes to start here; 0 starts none.

    Raises:
        UsageError: See ``check_executor``.
        QCompilerError: A library is not installed, a cluster does not answer, or a worker ended.
    """
    check_executor(text, workers)
    with contextlib.ExitStack() as stack:
        if text is not None:
            opened = _dask(text) if text.startswith("dask") else _ray(text)
            yield stack.enter_context(opened)
        else:
            yield stack.enter_context(_processes(workers)) if workers else None


@contextlib.contextmanager
def _processes(workers: int) -> Iterator[Executor]:
    """Fresh processes: forking one that runs threads may deadlock."""
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_quietly)
    try:
        yield pool
    except BaseException as error:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()  # nobody waits for what it is working on
        if isinstance(error, BrokenExecutor):
            raise QCompilerError(
                "a worker process ended before its work was done",
                hint="memory may have run out: give fewer --workers, or fewer samples",
            ) from error
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _end_quietly() -> None:
    """Let Ctrl-C end a worker without a traceback: the process that started it says what is to be said."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class _Cluster(Executor):
    """Tasks on a cluster.

    Args:
        text: What the user calls it.
        workers: Tasks that it runs at a time.
        start: Starts one task.
    """

    def __init__(self, text: str, workers: int, start: Callable[..., Future[Any]]) -> None:
        self._text = text
        self._max_workers = workers
        self._start = start

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start a task; what it raises that is no refusal of ours says that a worker failed."""
        outer: Future[T] = Future()
        outer.set_running_or_notify_cancel()
        self._start(fn, *args, **kwargs).add_done_callback(lambda inner: self._hand_over(inner, outer))
        return outer

    def _hand_over(self, inner: Future[Any], outer: Future[Any]) -> None:
        if inner.cancelled():
            outer.set_exception(QCompilerError("the task was cancelled", where=self._text))
            return
        error = inner.exception()
        if error is None:
            outer.set_result(inner.result())
            return
        cause = getattr(error, "cause", None)  # Ray wraps what a task raised
        error = cause if isinstance(cause, Exception) else error
        outer.set_exception(error if isinstance(error, QCompilerError) else self._failed(error))

    def _failed(self, error: BaseException) -> QCompilerError:
        failure = QCompilerError(
            f"a worker failed: {type(error).__name__}: {first_line(error)}", where=self._text,
            hint="workers need the same versions of Python, qcompiler and its libraries",
        )  # fmt: skip
        failure.__cause__ = error
        return failure


@contextlib.contextmanager
def _dask(text: str) -> Iterator[Executor]:
    """Tasks on a cluster of Dask; their data goes to the workers by itself, not inside the task."""
    distributed = importlib.import_module(_LIBRARIES["dask"])
    address = text.partition("://")[2]
    try:
        client = distributed.Client(f"tcp://{address}", timeout=_SECONDS, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise _no_answer(text, error) from error
    with client:
        workers = sum(client.nthreads().values())
        if not workers:
            raise QCompilerError("the scheduler has no workers", where=text, hint="start some: dask worker ADDRESS")
        executor = client.get_executor()

        def start(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
            sent = [client.scatter(argument, hash=False) for argument in args]
            future: Future[Any] = executor.submit(fn, *sent, **kwargs)
            return future

        try:
            yield _Cluster(text, workers, start)
        finally:
            executor.shutdown(wait=False)


@contextlib.contextmanager
def _ray(text: str) -> Iterator[Executor]:
    """Tasks on a cluster of Ray, which ships no executor; arguments go to its object store."""
    ray = importlib.import_module(_LIBRARIES[_RAY])
    own = text != _RAY or not ray.is_initialized()
    if own:
        _connect(ray, text)
    try:
        workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
        task = ray.remote(_call)

        def start(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = task.remote(fn, *args, **kwargs).future()
            return future

        yield _Cluster(text, workers, start)
    finally:
        if own:
            ray.shutdown()


def _call(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The one function that workers of Ray know: it takes what is no Python function, such as built-in ones."""
    return fn(*args, **kwargs)


def _connect(ray: Any, text: str) -> None:
    """Connect to a cluster, or start one here, which reports to nobody."""
    if ray.is_initialized():
        raise UsageError(f"this program is connected to another cluster than {text}", hint="--executor ray uses that")
    before = os.environ.get("RAY_USAGE_STATS_ENABLED")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        if text == _RAY:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        else:
            ray.init(text, log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        raise _no_answer(text, error) from error
    finally:
        if before is None:
            del os.environ["RAY_USAGE_STATS_ENABLED"]
        else:
            os.environ["RAY_USAGE_STATS_ENABLED"] = before


def _no_answer(text: str, error: BaseException) -> QCompilerError:
    hint = "is it running, and is the address right?"
    if text.startswith(_RAY):
        hint = "is it running, is the address right, and does it want a token (RAY_AUTH_MODE=token)?"
    return QCompilerError(f"the cluster does not answer: {first_line(error)}", where=text, hint=hint)
