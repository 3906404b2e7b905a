"""Samples in batches, and what the float model makes of them.

Several samples at a time keep the processor busy, but not every graph takes them: a Reshape may hold the number 1. So
a batch is tried once, and kept where it gives what its samples give alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from qcompiler.analysis.quality import vector_outputs
from qcompiler.analysis.sensitivity.losses import Reference
from qcompiler.analysis.sensitivity.piece import PieceRunner, Tensors, cut_out
from qcompiler.analysis.sensitivity.study import Study
from qcompiler.analysis.work import total_macs
from qcompiler.calibration import row_weights
from qcompiler.errors import ModelError

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset

__all__ = ["Batches", "batches_of", "macs_of", "macs_of_sample"]

_BATCH_MACS: Final = 4e9
"""Multiply-accumulates of a batch: small networks take many samples at a time."""
_MOST: Final = 64
_TOLERANCE: Final = 1e-3
"""How much of the largest magnitude outputs of a batch may differ from those of its samples."""


@dataclass(frozen=True, eq=False)
class Batches:
    """Feeds that run together, with reference outputs.

    Attributes:
        outputs: Names of the outputs that have a loss.
        tensors: Per batch, the feed; later what is alive at a cut.
        references: Per batch, what the float model gives.
        sizes: Samples in each batch.
    """

    outputs: list[str]
    tensors: list[Tensors]
    references: list[Reference]
    sizes: list[int]


def batches_of(study: Study, samples: int) -> Batches:
    """The samples (evenly drawn from the data) in batches, and the outputs of the float model.

    Raises:
        ModelError: The model has no floating-point output, or cannot be run.
    """
    feeds: list[Tensors] = [dict(feed) for feed in study.dataset.evenly(samples)]
    right = study.reference or study.model
    names = _scored(right)
    runner = PieceRunner(cut_out(right, feeds[0], names), study.threads)
    size = _batch_size(runner, feeds, int(max(1, min(_MOST, _BATCH_MACS // max(macs_of_sample(study), 1)))))
    together = [_stacked(chunk) if len(chunk) > 1 else chunk[0] for chunk in _chunks(feeds, size)]
    sizes = [len(chunk) for chunk in _chunks(feeds, size)]
    rows, vectors = row_weights.find(study.dataset.inputs, right.graph), vector_outputs(right)
    references = []
    for feed in together:
        outputs = tuple(runner.run(feed))
        weights = None if rows is None else rows.of_feed(feed)
        counted = tuple(_counted(weights, name, array.shape) for name, array in zip(names, outputs, strict=True))
        references.append(Reference(outputs, tuple(name in vectors for name in names), counted))
    return Batches(names, together, references, sizes)


def macs_of_sample(study: Study) -> int:
    """Multiply-accumulates of the model on the first sample."""
    return macs_of(study.model, study.dataset)


def macs_of(model: ir.Model, dataset: Dataset) -> int:
    """Multiply-accumulates of a model on the first sample."""
    feed = next(iter(dataset), {})
    sizes: dict[str, int] = {}
    for value in model.graph.inputs:
        if value.shape is None or value.name not in feed:
            continue
        for dimension, size in zip(value.shape, feed[value.name].shape, strict=False):
            if isinstance(dimension, ir.SymbolicDim) and dimension.value is not None:
                sizes[str(dimension.value)] = size
    return total_macs(model, sizes)


def _scored(model: ir.Model) -> list[str]:
    """Outputs of the model that have a loss: floating-point ones that a node makes."""
    found = [
        str(value.name)
        for value in model.graph.outputs
        if value.producer() is not None and (value.dtype is None or value.dtype.is_floating_point())
    ]
    if not found:
        raise ModelError("no output holds real numbers: there is no loss to measure", where=model.graph.name)
    return found


def _chunks(feeds: Sequence[Tensors], size: int) -> Iterator[list[Tensors]]:
    """Consecutive feeds of equal shapes, at most ``size``."""
    chunk: list[Tensors] = []
    for feed in feeds:
        if chunk and (len(chunk) == size or not _alike(chunk[0], feed)):
            yield chunk
            chunk = []
        chunk.append(feed)
    if chunk:
        yield chunk


def _alike(one: Tensors, other: Tensors) -> bool:
    return all(array.shape == other[name].shape for name, array in one.items())


def _stacked(feeds: Sequence[Tensors]) -> Tensors:
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}


def _batch_size(runner: PieceRunner, feeds: Sequence[Tensors], wanted: int) -> int:
    """``wanted`` where a batch of two gives what its samples give alone, else 1."""
    pair = next((chunk for chunk in _chunks(feeds, 2) if len(chunk) == 2), None)
    if wanted < 2 or pair is None or any(array.ndim == 0 for array in pair[0].values()):
        return 1
    alone = [runner.run(feed) for feed in pair]
    try:
        both = runner.run(_stacked(pair))
    except ModelError:
        return 1
    for first, second, found in zip(*alone, both, strict=True):
        if first.ndim == 0 or found.shape != (len(first) + len(second), *first.shape[1:]):
            return 1
        expected = np.concatenate([first, second])
        if not np.allclose(found, expected, rtol=0, atol=_TOLERANCE * float(np.abs(expected).max(initial=0.0))):
            return 1
    return wanted


def _counted(
    weights: row_weights.FeedWeights | None, name: str, shape: tuple[int, ...]
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]] | None:
    """Leading positions of an output that are no padding."""
    share = None if weights is None else weights.of(name, shape)
    if share is None:
        return None
    leading = share.ndim
    while leading and share.shape[leading - 1] == 1:
        leading -= 1
    return np.broadcast_to(share.reshape(share.shape[:leading]) > 0, shape[:leading]) if leading else None
