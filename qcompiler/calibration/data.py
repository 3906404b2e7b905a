"""Calibration and evaluation data: what a model is fed, one sample at a time.

A data set is loaded from (see ``qcompiler.calibration.sources``)

* ``file.npz``: one array per input, keys are input names, the first axis is samples,
* a folder of ``NAME.npy``, first axis samples; or one subfolder per sample with ``NAME.npy`` in each,
* ONNX ``test_data_set_*`` folders,
* a folder of images with declared preprocessing,
* in Python also a mapping of arrays or any iterable of feeds.

A key ``labels`` that is no input gives the labels of an evaluation, ``qcompiler.weights`` how much each sample counts
in what is fitted (``qcompiler.calibration.given_weights``). Samples are never held in memory together, except where the
caller gives a one-shot iterator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration import given_weights
from qcompiler.calibration.checks import InputSpec, cast, check_dtype, check_finite, fits, inputs_of, spec_text
from qcompiler.calibration.feeds import BESIDE
from qcompiler.calibration.trust import Made
from qcompiler.errors import DataError

if TYPE_CHECKING:
    from qcompiler.calibration.columns import Column
    from qcompiler.calibration.preprocessing import Preprocessing
    from qcompiler.calibration.sources import Read

__all__ = ["Dataset", "Feed", "InputSpec", "inputs_of", "load", "random", "split"]

Feed: TypeAlias = dict[str, NDArray[Any]]

_EAGER_BYTES = 256 << 20
"""Data up to this size is checked for NaN when it is loaded, so that a compile fails before any work."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples for a model's inputs.

    Attributes:
        inputs: What the model declares.
        columns: The samples of every input.
        source: Where the data came from, for messages and the report.
        order: Which samples of the columns belong to this data set, in order.
        batch: Samples in one feed: 1, or the model's fixed batch.
        all_labels: Labels of all samples in the columns.
        all_weights: Weights of all samples in the columns, or of their positions: ``(samples,)`` or ``(samples,
            positions)``; ``None`` where all count alike.
        notes: What the reader of a report should know about the data.
        made: What the samples are worth where nobody gave them; ``None`` for given ones.
    """

    inputs: Mapping[str, InputSpec]
    columns: Mapping[str, Column]
    source: str
    order: tuple[int, ...]
    batch: int = 1
    all_labels: NDArray[Any] | None = None
    all_weights: NDArray[np.float32] | None = None
    notes: tuple[str, ...] = ()
    made: Made | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Input names in graph order."""
        return tuple(self.inputs)

    @property
    def labels(self) -> NDArray[Any] | None:
        """Labels in the order of iteration; with a fixed batch the first two axes are feed and sample."""
        if self.all_labels is None:
            return None
        labels = self.all_labels[list(self.order)]
        return labels if self.batch == 1 else labels.reshape(len(self), self.batch, *labels.shape[1:])

    def weights_of(self, number: int) -> NDArray[np.float32] | None:
        """Weights in feed ``number``: of its samples ``(batch,)``, or positions ``(batch, positions)``."""
        if self.all_weights is None:
            return None
        return self.all_weights[list(self.order[number * self.batch : (number + 1) * self.batch])]

    def __len__(self) -> int:
        return len(self.order) // self.batch

    def __iter__(self) -> Iterator[Feed]:
        """Feeds of one batch each.

        Raises:
            DataError: NaN, infinity, or a value that does not survive its cast; names tensor, sample and file.
        """
        readers = {name: column.rows(self.order) for name, column in self.columns.items()}
        for first in range(0, len(self) * self.batch, self.batch):
            feed: Feed = {}
            for name, spec in self.inputs.items():
                rows = [next(readers[name]) for _ in range(self.batch)]
                array = np.stack(rows) if _lacks_batch(rows[0].shape, spec) else np.asarray(rows[0])
                origin = self.columns[name].origin
                check_finite(array, name, self.order[first], origin)
                feed[name] = np.ascontiguousarray(cast(array, spec.dtype, name, origin)).reshape(array.shape)
            yield feed

    def subset(self, indices: Iterable[int]) -> Dataset:
        """The feeds at ``indices`` (positions in the iteration), in that order."""
        chosen = tuple(item for i in indices for item in self.order[i * self.batch : (i + 1) * self.batch])
        return replace(self, order=chosen)

    def largest_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of a feed by input, per dimension the largest of all; dimensions of one name have one length."""
        found: dict[str, tuple[int, ...]] = {}
        lengths: dict[str, int] = {}
        for name, spec in self.inputs.items():
            shapes = self.columns[name].shapes()
            feeds = [(self.batch, *shape) if _lacks_batch(shape, spec) else shape for shape in shapes]
            found[name] = tuple(max(sizes) for sizes in zip(*feeds, strict=False))
            for size, item in zip(found[name], spec.shape or (), strict=False):
                if isinstance(item, str):
                    lengths[item] = max(size, lengths.get(item, 0))
        for name, spec in self.inputs.items():
            axes = spec.shape or (None,) * len(found[name])
            sizes = zip(found[name], axes, strict=False)
            found[name] = tuple(lengths[item] if isinstance(item, str) else size for size, item in sizes)
        return found

    def evenly(self, count: int) -> Dataset:
        """At most so many feeds, at least one, spread over all of them."""
        count = max(1, min(count, len(self)))
        return self.subset(index * len(self) // count for index in range(count))

    def left_out(self) -> int:
        """How many feeds at the end judge what was fitted on the others: an eighth, 1 to 16; 0 of a single one."""
        return 0 if len(self) < 2 else min(16, max(1, len(self) // 8))

    def divided(self) -> tuple[Dataset, Dataset | None]:
        """Feeds to fit on, and those that judge; ``None`` where there are too few."""
        fitted = len(self) - self.left_out()
        return self.subset(range(fitted)), self.subset(range(fitted, len(self))) if fitted < len(self) else None

    def digest(self) -> str:
        """A hash of every sample, in order: equal data gives an equal digest wherever it lies."""
        state = hashlib.blake2b(digest_size=16)
        for feed in self:
            for name, array in feed.items():
                state.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
                state.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        if self.all_weights is not None:
            state.update(self.all_weights[list(self.order)].tobytes())
        return state.hexdigest()


def _lacks_batch(shape: tuple[int, ...], spec: InputSpec) -> bool:
    """Whether a sample has one axis less than the input: the batch axis."""
    return spec.shape is None or len(shape) == len(spec.shape) - 1


def load(
    spec: str | Path | Dataset | Mapping[str, Any] | Iterable[Mapping[str, Any]],
    inputs: Mapping[str, tuple[Any, Sequence[Any] | None]],
    *,
    preprocessing: str | Path | Mapping[str, Any] | Preprocessing | None = None,
    limit: int | None = None,
) -> Dataset:
    """Load and check data for a model.

    Args:
        spec: A path, a mapping of arrays whose first axis is samples, or an iterable of feeds.
        inputs: Element type and shape of every input, as ``inputs_of(model)`` gives them.
        preprocessing: How images become tensors; only for image folders.
        limit: Use the first ``limit`` samples only.

    Raises:
        DataError: The data is missing, empty, misnamed, misshapen, of a wrong type or not finite.
    """
    from qcompiler.calibration.sources import read

    if isinstance(spec, Dataset):
        dataset = spec
    else:
        declared = {name: InputSpec(_dtype(pair[0]), _shape(pair[1])) for name, pair in inputs.items()}
        dataset = _assemble(declared, read(spec, declared, preprocessing))
    if limit is not None:
        if limit < 1:
            raise DataError(f"a limit of {limit} leaves no samples", where=dataset.source)
        dataset = dataset.subset(range(min(limit, len(dataset))))
    _check_early(dataset)
    return dataset


def _dtype(item: Any) -> np.dtype[Any]:
    result: np.dtype[Any] = np.dtype(item.numpy() if callable(getattr(item, "numpy", None)) else item)
    return result


def _shape(items: Iterable[Any] | None) -> tuple[int | str | None, ...] | None:
    if items is None:
        return None
    return tuple(item if isinstance(item, int | str | None) else getattr(item, "value", None) for item in items)


def _assemble(inputs: Mapping[str, InputSpec], found: Read) -> Dataset:
    """Check shapes, types and counts, and find the samples that make one feed."""
    columns, source, notes = found.columns, found.source, found.notes
    labels, given = (found.beside.get(name) for name in BESIDE)
    counts = {name: columns[name].count for name in inputs}
    if not counts:
        raise DataError("the model has no inputs to feed", where=source)
    count = next(iter(counts.values()))
    if len(set(counts.values())) > 1:
        raise DataError(f"inputs have different numbers of samples: {counts}", where=source)
    if count == 0:
        raise DataError("holds no samples", where=source)
    for name, spec in inputs.items():
        _check_column(name, spec, columns[name])
    if labels is not None and (labels.ndim == 0 or len(labels) != count):
        raise DataError(f"labels of shape {labels.shape} do not fit {count} samples", where=source)
    weights = None if given is None else given_weights.checked(given, inputs, columns, count, source)
    order = tuple(range(count))
    if weights is not None:
        order = tuple(index for index in order if weights[index].any())
        notes = (*notes, *given_weights.notes(weights, count - len(order)))
        weights = weights if (weights[list(order)] != 1).any() else None
    batch = _fixed_batch(inputs, columns, source)
    if len(order) < batch:
        hint = f"give at least {batch} samples" + ("" if len(order) == count else f" of weights above 0, of {count}")
        raise DataError(f"holds {len(order)} samples, the model takes {batch} at once", where=source, hint=hint)
    rest = len(order) % batch
    if rest:
        notes = (*notes, f"the last {rest} of {len(order)} samples do not fill a batch of {batch} and are not used")
    return Dataset(inputs, columns, source, order[: len(order) - rest], batch, labels, weights, notes)


def _check_column(name: str, spec: InputSpec, column: Column) -> None:
    check_dtype(name, column.dtype, spec.dtype, column.origin)
    for shape in sorted(column.shapes()):
        if fits(shape, spec.shape) or (spec.shape and fits((1, *shape), spec.shape, batch_free=True)):
            continue
        text = "×".join(map(str, shape)) or "scalar"
        wanted = spec.shape or ()
        moved = [wanted[0], *wanted[2:], wanted[1]] if len(wanted) == 4 else None
        hint = f"samples go along the first axis; the model takes {spec_text(spec)}"
        if moved and fits((1, *shape), tuple(moved), batch_free=True):
            hint = "the channels are last: transpose to (samples, channels, height, width)"
        message = f"input '{name}': a sample has shape {text}, which does not fit {spec_text(spec)}"
        raise DataError(message, where=column.origin, hint=hint)


def _fixed_batch(inputs: Mapping[str, InputSpec], columns: Mapping[str, Column], source: str) -> int:
    """Samples that one feed needs.

    Raises:
        DataError: The inputs disagree, so that samples cannot be grouped.
    """
    wanted: dict[str, int] = {}
    for name, spec in inputs.items():
        sample = next(iter(columns[name].shapes()))
        first = spec.shape[0] if spec.shape else None
        wanted[name] = first if _lacks_batch(sample, spec) and isinstance(first, int) else 1
        whole = not _lacks_batch(sample, spec)
        if not whole and not isinstance(first, int):
            wanted[name] = 0  # any batch will do
    sizes = set(wanted.values()) - {0}
    if len(sizes) > 1:
        raise DataError(
            f"inputs need different numbers of samples at once: {wanted}",
            where=source,
            hint="give whole feeds: a folder of test_data_set_*, or a Python iterable of feeds",
        )
    return sizes.pop() if sizes else 1


def _check_early(dataset: Dataset) -> None:
    """Read small data once, so that a bad sample is found before any work."""
    if any(getattr(column, "slow", False) for column in dataset.columns.values()):
        return
    sizes = [
        len(dataset.order) * column.dtype.itemsize * max((int(np.prod(shape)) for shape in column.shapes()), default=0)
        for column in dataset.columns.values()
    ]
    if sum(sizes) <= _EAGER_BYTES:
        for _ in dataset:
            pass


def split(dataset: Dataset) -> tuple[Dataset, Dataset]:
    """Calibration and held-out samples: the last eighth, at least 1 and at most 32, is held out.

    Raises:
        DataError: There is only one sample.
    """
    count = len(dataset)
    if count < 2:
        hint = "give a second sample, or --evaluation DATA"
        raise DataError("one sample cannot both calibrate and judge", where=dataset.source, hint=hint)
    held = min(max(count // 8, 1), 32)
    return dataset.subset(range(count - held)), dataset.subset(range(count - held, count))


def random(inputs: Mapping[str, tuple[Any, Sequence[Any] | None]], count: int = 8, seed: int = 0) -> Dataset:
    """Made-up samples of the right types and shapes: they exercise a model and say nothing about its real ranges.

    Floats are standard normal; 8-bit integers cover their range; other integers lie in 0 … 9, small enough for any
    vocabulary; masks are all ones. A dynamic batch is 1; other dynamic axes get 224 in images, else 16; axes of the
    same name are equal.
    """
    from qcompiler.calibration import made_up

    declared = {name: InputSpec(_dtype(pair[0]), _shape(pair[1])) for name, pair in inputs.items()}
    dataset = load(made_up.feeds(declared, count, seed), declared)
    return replace(dataset, source=made_up.MADE_UP, notes=made_up.notes(declared), made=Made())
