"""Run a stored model as its user will: ONNX Runtime's CPU provider with default options.

``qcompiler.ir.execute.Runner`` switches an optimizer off so that simulations measure the candidate and not ONNX
Runtime. Verification and benchmarks must not: what users get includes what their runtime does to the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qcompiler.errors import ModelError, first_line
from qcompiler.ir.execute import Feed, session_options

__all__ = ["Runs", "SessionRunner", "StockRunner", "fit", "watched_options"]

_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


class Runs(Protocol):
    """What can be fed: ``Runner`` and ``StockRunner``."""

    inputs: dict[str, tuple[str, list[int | str | None]]]
    outputs: list[str]

    def run(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name."""

    def stream(self, feeds: Iterable[Feed]) -> Iterator[tuple[Feed, Feed]]:
        """Feeds with their outputs, in order."""


class SessionRunner:
    """Feeds an ONNX Runtime session.

    Args:
        session: The session.
    """

    def __init__(self, session: Any) -> None:
        self._session = session
        self.inputs: dict[str, tuple[str, list[int | str | None]]] = {
            item.name: (item.type, list(item.shape)) for item in session.get_inputs()
        }
        self.outputs: list[str] = [item.name for item in session.get_outputs()]

    def run(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run one feed and return the outputs by name.

        Raises:
            ModelError: ONNX Runtime failed; the text says on which node.
        """
        try:
            results = self._session.run(None, dict(feed))
        except Exception as error:  # ONNX Runtime raises many unrelated types
            raise ModelError(f"ONNX Runtime failed while running the model: {first_line(error)}") from error
        return dict(zip(self.outputs, results, strict=True))

    def stream(self, feeds: Iterable[Feed]) -> Iterator[tuple[Feed, Feed]]:
        """Run many feeds; each comes back with its outputs, in order."""
        return ((feed, self.run(feed)) for feed in feeds)

    def end_profiling(self) -> Path:
        """The profile of a session that was opened with one; nothing is profiled after that."""
        return Path(self._session.end_profiling())


class StockRunner(SessionRunner):
    """A session on a model file with every optimizer that a plain ``InferenceSession`` has.

    Args:
        path: The model file.
        threads: Intra-operator threads; 0 takes all processors.
        optimized_path: Where ONNX Runtime writes the graph it really runs; ``None`` writes nothing.
        profile_prefix: Beginning of the name of the profile; ``None`` profiles nothing.

    Raises:
        ModelError: ONNX Runtime cannot load the file.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int = 0,
        optimized_path: Path | None = None,
        profile_prefix: Path | None = None,
    ) -> None:
        import onnxruntime

        options = watched_options(threads, optimized_path, profile_prefix)
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises many unrelated types
            raise ModelError(f"ONNX Runtime cannot load the model: {first_line(error)}", where=str(path)) from error
        super().__init__(session)


def watched_options(threads: int, optimized_path: Path | None, profile_prefix: Path | None) -> Any:
    """Options of a session that may write the graph it runs or a profile; arguments as ``StockRunner``'s."""
    options = session_options(threads=threads)
    if optimized_path is not None:
        options.optimized_model_filepath = str(optimized_path)
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_prefix)
    return options


def fit(feed: Mapping[str, NDArray[Any]], runner: Runs) -> Feed:
    """The feed as ``runner`` wants it: without inputs it does not have, floating-point inputs in its own type."""
    result: Feed = {}
    for name, array in feed.items():
        if name not in runner.inputs:
            continue
        wanted = _FLOATS.get(runner.inputs[name][0])
        floating = np.issubdtype(array.dtype, np.floating)
        result[name] = array.astype(wanted, copy=False) if wanted is not None and floating else array
    return result
