"""Recognise where data comes from and turn it into columns.

Input names that cannot be file names (``gpu_0/data_0``) are written with ``_`` in place of every character outside
``A-Z a-z 0-9 _ . -``.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.checks import InputSpec, check_names
from qcompiler.calibration.columns import ArrayColumn, Column, map_npy, npz_column
from qcompiler.calibration.feeds import BESIDE, Feeds, FolderFeeds, ListFeeds, ProtoFeeds, columns_of
from qcompiler.calibration.given_weights import WEIGHTS
from qcompiler.errors import DataError

if TYPE_CHECKING:
    from qcompiler.calibration.preprocessing import Preprocessing

__all__ = ["Read", "file_stem", "natural", "read"]


class Read(NamedTuple):
    """What a source holds.

    Attributes:
        columns: Samples by input.
        beside: Arrays about samples that are no input, of the names in ``BESIDE``.
        source: Where it came from.
        notes: What the reader of a report should know.
    """

    columns: dict[str, Column]
    beside: dict[str, NDArray[Any]]
    source: str
    notes: tuple[str, ...] = ()


_FORMS = "give an .npz file, a folder of NAME.npy, of test_data_set_* or of images"


def read(
    spec: str | Path | Mapping[str, Any] | Iterable[Mapping[str, Any]],
    inputs: Mapping[str, InputSpec],
    preprocessing: str | Path | Mapping[str, Any] | Preprocessing | None,
) -> Read:
    """Columns of whatever ``spec`` is; names are checked, shapes and types are not yet.

    Raises:
        DataError: The source cannot be read, is empty, or lacks an input.
    """
    if isinstance(spec, str | Path):
        return _read_path(Path(spec), inputs, preprocessing)
    if isinstance(spec, Mapping):
        columns = {str(name): ArrayColumn(_samples(array, name), "calibration data") for name, array in spec.items()}
        return _select(columns, inputs, "calibration data")
    return _from_feeds(ListFeeds(_sequence(spec)), inputs)


def _sequence(feeds: Iterable[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Something that can be read again: as it is where it can be indexed, else its items."""
    return feeds if isinstance(feeds, Sequence) else list(feeds)


def _read_path(path: Path, inputs: Mapping[str, InputSpec], preprocessing: Any) -> Read:
    if not path.exists():
        raise DataError("does not exist", where=str(path), hint=_FORMS)
    if path.is_dir():
        return _read_folder(path, inputs, preprocessing)
    if path.suffix == ".npz" or zipfile.is_zipfile(path):
        return _read_npz(path, inputs)
    if path.suffix == ".npy":
        if len(inputs) != 1:
            raise DataError(f"is one array, the model has {len(inputs)} inputs", where=str(path), hint=_FORMS)
        return _select({next(iter(inputs)): ArrayColumn(_samples(map_npy(path), path), str(path))}, inputs, str(path))
    raise DataError("is no form of data known here", where=str(path), hint=_FORMS)


def _read_npz(path: Path, inputs: Mapping[str, InputSpec]) -> Read:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")]
            names = [name.removesuffix(".npy") for name in members]
            check_names(names, inputs, str(path))
            wanted = {*inputs, *BESIDE}
            columns = {
                name: npz_column(path, archive, member)
                for name, member in zip(names, members, strict=True)
                if name in wanted
            }
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise DataError(f"is not a readable .npz file: {error}", where=str(path)) from error
    return _select(columns, inputs, str(path))._replace(notes=_unused(names, inputs, str(path)))


def _read_folder(path: Path, inputs: Mapping[str, InputSpec], preprocessing: Any) -> Read:
    if any(path.glob("input_*.pb")):
        return _from_feeds(ProtoFeeds((path,), tuple(inputs), str(path)), inputs)
    if sets := sorted((item.parent for item in path.glob("*/input_0.pb")), key=natural):
        return _from_feeds(ProtoFeeds(tuple(sets), tuple(inputs), str(path)), inputs)
    if any(path.glob("*.npy")):
        return _read_npy_folder(path, inputs)
    if folders := sorted({item.parent for item in path.glob("*/*.npy")}, key=natural):
        files = {name: file_stem(name) for name in inputs}
        return _from_feeds(FolderFeeds(tuple(folders), files, str(path)), inputs)
    from qcompiler.calibration import images

    if images.find(path):
        return images.read(path, inputs, preprocessing)
    raise DataError("holds no samples", where=str(path), hint=_FORMS)


def _read_npy_folder(path: Path, inputs: Mapping[str, InputSpec]) -> Read:
    files = {item.stem: item for item in sorted(path.glob("*.npy"), key=natural)}
    stems = {file_stem(name): name for name in inputs}
    samples = [item for stem, item in files.items() if stem not in BESIDE]
    if len(inputs) == 1 and len(samples) > 1 and not set(stems) & set(files):
        return _one_file_per_sample(path, samples, next(iter(inputs)), inputs)
    check_names([stems.get(stem, stem) for stem in files], inputs, str(path))
    columns: dict[str, Column] = {
        stems.get(stem, stem): ArrayColumn(_samples(map_npy(item), item), str(item))
        for stem, item in files.items()
        if stem in stems or stem in BESIDE
    }
    return _select(columns, inputs, str(path))._replace(
        notes=_unused([stems.get(stem, stem) for stem in files], inputs, str(path))
    )


def _one_file_per_sample(path: Path, samples: Sequence[Path], name: str, inputs: Mapping[str, InputSpec]) -> Read:
    """A single-input model and a folder of arrays with names of their own: every file is a feed or one sample."""
    rank = len(inputs[name].shape or ())
    feeds = [{name: array if array.ndim == rank else array[None]} for array in map(map_npy, samples)]
    columns, _ = columns_of(ListFeeds(feeds, str(path)), inputs)
    files = ((name, path / f"{name}.npy") for name in BESIDE)
    return Read(columns, {name: np.asarray(map_npy(file)) for name, file in files if file.exists()}, str(path))


def _from_feeds(feeds: Feeds, inputs: Mapping[str, InputSpec]) -> Read:
    columns, beside = columns_of(feeds, inputs)
    return Read(columns, beside, feeds.origin)


_RESERVED: Final = "qcompiler."
"""What names of arrays that say something about samples begin with."""


def _select(columns: Mapping[str, Column], inputs: Mapping[str, InputSpec], source: str) -> Read:
    """Separate inputs from what is said about samples; other arrays are left aside."""
    check_names(columns, inputs, source)
    beside = {name: columns[name] for name in BESIDE if name in columns and name not in inputs}
    arrays = {
        name: np.stack(list(column.rows(range(column.count)))) if column.count else np.zeros(0)
        for name, column in beside.items()
    }
    return Read({name: columns[name] for name in inputs}, arrays, source, _unused(columns, inputs, source))


def _unused(names: Iterable[str], inputs: Mapping[str, InputSpec], source: str) -> tuple[str, ...]:
    """A note on arrays that nobody reads.

    Raises:
        DataError: One of them is named like those that say something about samples.
    """
    extra = sorted(set(names) - set(inputs) - set(BESIDE))
    for name in extra:
        if name.startswith(_RESERVED):
            text = f"holds '{name}', which means nothing"
            raise DataError(text, where=source, hint=f"weights of samples or positions are '{WEIGHTS}'")
    return (f"not used, no such input: {', '.join(extra)}",) if extra else ()


def _samples(array: Any, name: object) -> NDArray[Any]:
    result: NDArray[Any] = np.asanyarray(array)
    if result.ndim == 0:
        raise DataError("is a single number; the first axis must be samples", where=str(name))
    return result


def file_stem(name: str) -> str:
    """The file name (without suffix) that stands for an input."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def natural(path: Path | str) -> list[tuple[int, str]]:
    """Sort key that puts ``sample_10`` after ``sample_9``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", Path(path).name)]
