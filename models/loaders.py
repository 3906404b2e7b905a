"""Find the shipped models and their data.

``index.toml`` beside this file says which models there are, which data belong to them and what the float model
achieves. A model of one's own becomes a sample by an entry there.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcompiler.errors import UsageError, nearest

__all__ = ["SampleModel", "load", "names"]

_FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class SampleModel:
    """A shipped float model and the files that go with it.

    Attributes:
        name: The name it is loaded by.
        path: The ONNX file.
        calibration: An ``.npz`` file whose keys are input names and whose first axis counts the samples.
        evaluation: The same for held-out samples, plus the key ``labels`` (int64, one class per sample).
        accuracy: Share of the evaluation samples, 0 to 1, whose largest logit is the label's.
    """

    name: str
    path: Path
    calibration: Path
    evaluation: Path
    accuracy: float


def names() -> tuple[str, ...]:
    """The names that :func:`load` accepts, sorted."""
    return tuple(sorted(_index()))


def load(name: str) -> SampleModel:
    """Return the shipped model called ``name``.

    Raises:
        UsageError: No shipped model has that name; the hint gives the nearest one or all of them.
    """
    index = _index()
    if name not in index:
        hint = nearest(name, index) or f"known: {', '.join(sorted(index))}"
        raise UsageError(f"there is no sample model '{name}'", hint=hint)
    entry = index[name]
    return SampleModel(
        name=name,
        path=_FOLDER / f"{name}.onnx",
        calibration=_FOLDER / entry["calibration"],
        evaluation=_FOLDER / entry["evaluation"],
        accuracy=float(entry["accuracy"]),
    )


def _index() -> dict[str, dict[str, Any]]:
    """The content of ``index.toml``: one table per model."""
    return tomllib.loads((_FOLDER / "index.toml").read_text(encoding="utf-8"))
