"""Samples given as feeds: Python iterables of ``{input: array}``, folders with one sample each, ONNX test data.

A feed may hold several samples on its first axis. Where every input of every feed agrees on that number, feeds are
taken apart, so that every source gives the same batches of one; otherwise each feed is one sample as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.checks import InputSpec, check_names
from qcompiler.calibration.columns import Column, map_npy
from qcompiler.calibration.given_weights import WEIGHTS
from qcompiler.errors import DataError

__all__ = ["BESIDE", "FeedColumn", "Feeds", "FolderFeeds", "ListFeeds", "ProtoFeeds", "columns_of"]

_NOT_BATCH = re.compile(r"seq|time|len|token|frame|step", re.IGNORECASE)
BESIDE = ("labels", WEIGHTS)
"""Names of arrays that say something about samples, unless the model has such an input."""


class Feeds(Protocol):
    """A countable sequence of feeds, each tensor read on demand."""

    @property
    def origin(self) -> str:
        """Where the feeds come from, for messages."""

    def __len__(self) -> int: ...

    def names(self, index: int) -> list[str]:
        """Names in feed ``index``."""

    def read(self, index: int, name: str) -> NDArray[Any]:
        """One tensor of feed ``index``."""


@dataclass(frozen=True)
class ListFeeds:
    """Feeds held by the caller: any sequence of mappings."""

    feeds: Sequence[Mapping[str, Any]]
    origin: str = "calibration data"

    def __len__(self) -> int:
        return len(self.feeds)

    def names(self, index: int) -> list[str]:
        """Keys of the feed."""
        feed = self.feeds[index]
        if not isinstance(feed, Mapping):
            raise DataError(
                f"item {index} is a {type(feed).__name__}, not a mapping",
                where=self.origin,
                hint="give {input name: array}",
            )
        return [str(key) for key in feed]

    def read(self, index: int, name: str) -> NDArray[Any]:
        """The array under ``name``."""
        return np.asarray(self.feeds[index][name])


@dataclass(frozen=True)
class FolderFeeds:
    """One folder per sample, one ``.npy`` file per input."""

    folders: tuple[Path, ...]
    files: Mapping[str, str]
    origin: str

    def __len__(self) -> int:
        return len(self.folders)

    def names(self, index: int) -> list[str]:
        """Inputs whose file exists, and the labels."""
        present = {path.stem for path in self.folders[index].glob("*.npy")}
        known = {stem: name for name, stem in self.files.items()}
        return [known.get(stem, stem) for stem in sorted(present)]

    def read(self, index: int, name: str) -> NDArray[Any]:
        """The mapped file."""
        return map_npy(self.folders[index] / f"{self.files.get(name, name)}.npy")


@dataclass(frozen=True)
class ProtoFeeds:
    """ONNX ``test_data_set_*`` folders: ``input_K.pb``, by the tensor's own name, else by position."""

    folders: tuple[Path, ...]
    inputs: tuple[str, ...]
    origin: str

    def __len__(self) -> int:
        return len(self.folders)

    def names(self, index: int) -> list[str]:
        """Inputs that the folder holds."""
        return list(self._files(index))

    def read(self, index: int, name: str) -> NDArray[Any]:
        """The tensor of that input."""
        return _read_proto(self._files(index)[name])[1]

    def _files(self, index: int) -> dict[str, Path]:
        paths = sorted(self.folders[index].glob("input_*.pb"), key=_number)
        stored = [_read_proto(path)[0] for path in paths]
        if all(name in self.inputs for name in stored) and len(set(stored)) == len(stored):
            return dict(zip(stored, paths, strict=True))
        return {
            self.inputs[number] if (number := _number(path)) < len(self.inputs) else path.stem: path for path in paths
        }


def _number(path: Path) -> int:
    digits = re.findall(r"\d+", path.stem)
    return int(digits[-1]) if digits else 0


def _read_proto(path: Path) -> tuple[str, NDArray[Any]]:
    import onnx
    from google.protobuf.message import DecodeError

    tensor = onnx.TensorProto()
    try:
        tensor.ParseFromString(path.read_bytes())
        return tensor.name, onnx.numpy_helper.to_array(tensor)
    except (DecodeError, ValueError, TypeError, OSError) as error:
        raise DataError(f"is not an ONNX tensor: {error}", where=str(path)) from error


@dataclass(frozen=True)
class FeedColumn:
    """One input's samples in a sequence of feeds.

    Attributes:
        feeds: The feeds.
        name: The input.
        places: Feed and row of every sample; row ``None`` takes the feed's tensor whole.
        seen: Shapes of the samples.
        dtype: Their element type.
    """

    feeds: Feeds
    name: str
    places: tuple[tuple[int, int | None], ...]
    seen: frozenset[tuple[int, ...]]
    dtype: np.dtype[Any]

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(self.places)

    @property
    def origin(self) -> str:
        """Where the feeds come from."""
        return self.feeds.origin

    def shapes(self) -> set[tuple[int, ...]]:
        """Shapes seen when the feeds were checked."""
        return set(self.seen)

    def rows(self, indices: Sequence[int]) -> Iterator[NDArray[Any]]:
        """The samples; a feed is read once for neighbouring samples."""
        last, tensor = -1, np.empty(0)
        for index in indices:
            feed, row = self.places[index]
            if feed != last:
                last, tensor = feed, self.feeds.read(feed, self.name)
            yield tensor if row is None else np.asarray(tensor[row])


def columns_of(feeds: Feeds, inputs: Mapping[str, InputSpec]) -> tuple[dict[str, Column], dict[str, NDArray[Any]]]:
    """Columns of checked feeds, and what they say about samples (``BESIDE``).

    Raises:
        DataError: No feeds, or one lacks an input.
    """
    if not len(feeds):
        raise DataError("holds no samples", where=feeds.origin)
    beside = [name for name in BESIDE if name not in inputs and name in feeds.names(0)]
    names = [*inputs, *beside]
    shapes: dict[str, list[tuple[int, ...]]] = {name: [] for name in names}
    types: dict[str, np.dtype[Any]] = {}
    for index in range(len(feeds)):
        check_names(feeds.names(index), dict.fromkeys(names, InputSpec(np.dtype(np.float32), None)), feeds.origin)
        for name in names:
            tensor = feeds.read(index, name)
            shapes[name].append(tensor.shape)
            if types.setdefault(name, tensor.dtype) != tensor.dtype:
                text = f"input '{name}' changes from {types[name]} to {tensor.dtype} in feed {index}"
                raise DataError(text, where=feeds.origin)
    counts = _batches(shapes, inputs)
    places: tuple[tuple[int, int | None], ...]
    if counts is None:
        places = tuple((index, None) for index in range(len(feeds)))
    else:
        places = tuple((index, row) for index, count in enumerate(counts) for row in range(count))
    first = 0 if counts is None else 1
    columns = {
        name: FeedColumn(feeds, name, places, frozenset(shape[first:] for shape in shapes[name]), types[name])
        for name in names
    }
    arrays = {name: _stack(columns.pop(name)) for name in beside}
    if counts is None and WEIGHTS in arrays and arrays[WEIGHTS].shape[1:2] == (1,):
        arrays[WEIGHTS] = arrays[WEIGHTS][:, 0]  # the batch axis of feeds that are one sample each
    return dict(columns), arrays


def _batches(shapes: Mapping[str, list[tuple[int, ...]]], inputs: Mapping[str, InputSpec]) -> list[int] | None:
    """Samples in each feed, or ``None`` where a feed cannot be taken apart."""
    for name in inputs:
        declared = inputs[name].shape
        if declared is not None and (not declared or (isinstance(declared[0], str) and _NOT_BATCH.search(declared[0]))):
            return None
    per_feed = list(zip(*shapes.values(), strict=True))
    firsts = [{shape[0] if shape else -1 for shape in feed} for feed in per_feed]
    if any(len(first) != 1 or -1 in first for first in firsts):
        return None
    fixed = {spec.shape[0] for spec in inputs.values() if spec.shape is not None and isinstance(spec.shape[0], int)}
    return [first.pop() for first in firsts] if len(fixed) <= 1 else None


def _stack(column: FeedColumn) -> NDArray[Any]:
    rows: Iterable[NDArray[Any]] = column.rows(range(column.count))
    shapes = column.shapes()
    if len(shapes) > 1:
        text = f"'{column.name}' has different shapes: {sorted(shapes)}"
        raise DataError(text, where=column.origin, hint="give feeds of one shape")
    return np.stack([np.asarray(row) for row in rows])
