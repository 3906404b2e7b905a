"""Losses that were measured before, kept in a file that grows by a line each.

A line is keyed by a hash of all that its figure depends on: the float model, the samples, the metric with its settings,
and the choice: its groups with their nodes, and what it makes of the model. So nothing is ever stale, an interrupted
run goes on where it stopped, and a line that was torn is measured again.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qcompiler.analysis.sensitivity.study import Alternative, Choice, Study
from qcompiler.calibration.cache import model_digest

if TYPE_CHECKING:
    from qcompiler.analysis.sensitivity.metric import Metric

__all__ = ["Store", "choice_key", "open_store"]

_VERSION: Final = "4"


class Store:
    """Losses by key, in a file or, without one, in memory."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[str, float] = {} if path is None else _read(path)

    def get(self, key: str) -> float | None:
        """The loss of this key; ``None`` where it was never measured."""
        return self._known.get(key)

    def put(self, key: str, choice: Choice, loss: float) -> None:
        """Remember a loss; what cannot be written is remembered in memory alone."""
        self._known[key] = loss
        if self._path is None:
            return
        line = json.dumps({"key": key, "choice": [list(pair) for pair in choice], "loss": repr(loss)})
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError:
            self._path = None


def open_store(study: Study, metric: Metric, samples: int, cache_dir: Path | None) -> Store:
    """The file for this model, these samples and this metric as it is set.

    A store in memory without a folder, and where a setting has no name by which a later process would know it.
    """
    settings = _settings(metric)
    if cache_dir is None or settings is None:
        return Store()
    import onnxruntime

    outputs = [str(value.name) for value in study.model.graph.outputs]
    state = hashlib.blake2b(model_digest(study.model, outputs), digest_size=16)
    if study.reference is not None:
        state.update(model_digest(study.reference, outputs))
    data = study.dataset.evenly(samples).digest() if samples else ""
    for part in (_VERSION, onnxruntime.__version__, metric.name, *settings, data):
        state.update(part.encode() + b"\n")
    return Store(Path(cache_dir) / "sensitivity" / f"{state.hexdigest()}.jsonl")


def _settings(metric: object) -> list[str] | None:
    """The fields of a metric that is a dataclass; ``None`` where the next process may not mean the same by one."""
    if not is_dataclass(metric):
        return []
    texts = {item.name: _text(getattr(metric, item.name)) for item in fields(metric)}
    return None if None in texts.values() else [f"{name}={text}" for name, text in texts.items()]


def _text(value: object) -> str | None:
    """Numbers and texts as they are, functions and classes by the name under which they are found; else ``None``.

    Lambdas and closures share names, and what a script or a ``functools.partial`` holds has none to be known by later.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, tuple):
        texts = [text for item in value if (text := _text(item)) is not None]
        return f"({', '.join(texts)})" if len(texts) == len(value) else None
    module, name = str(getattr(value, "__module__", "")), str(getattr(value, "__qualname__", ""))
    found: object = None if module == "__main__" else sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}.{name}" if found is value else None


def choice_key(study: Study, choice: Choice, alternative: Alternative) -> str:
    """A hash of a choice: its groups with their nodes, its options, and what it makes of the model."""
    nodes = [tuple(study.nodes[group]) for group, _ in choice]
    state = hashlib.blake2b(repr((choice, nodes)).encode(), digest_size=16)
    for edge, array in sorted(alternative.weights.items()):
        state.update(f"{edge}{array.shape}".encode())
        state.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    if alternative.model is not None:
        state.update(model_digest(alternative.model, [str(value.name) for value in alternative.model.graph.outputs]))
    return state.hexdigest()


def _read(path: Path) -> dict[str, float]:
    """Lines of a file; those that are damaged or foreign are ignored."""
    found: dict[str, float] = {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return found
    for line in lines:
        try:
            entry: Mapping[str, Any] = json.loads(line)
            found[str(entry["key"])] = float(entry["loss"])
        except (ValueError, KeyError, TypeError):
            continue
    return found
