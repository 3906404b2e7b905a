"""Second moments of channels over calibration samples: where a tensor has energy, and in which directions.

``M = Σ xᵀ x`` over rows ``x``. Tensors that are turned by one matrix share one sum: memory is that of a matrix per
stream, however many norms read it. Rows of a stream count with length 1, which is what a norm makes of them: late in a
model a stream is longer, and no more important. Rows of values count as they are, those of each head for themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset
    from qcompiler.pipeline.base import Context

__all__ = ["moments"]

_Floats = NDArray[np.float64]


def moments(
    model: ir.Model, groups: Sequence[Sequence[str]], dataset: Dataset, ctx: Context, *, heads: bool
) -> list[_Floats]:
    """The sum of each group of tensors, ``(heads, channels, channels)``; its scale means nothing.

    Args:
        model: The model to run; it is not changed.
        groups: Names of tensors with channels on the last axis; each tensor of a group counts once.
        dataset: The samples; padding rows weigh nothing.
        ctx: Threads of one run; takes what there is to tell of weights.
        heads: Whether tensors have heads on axis 1 (where they have four axes), else they are streams: one sum each.
    """
    from qcompiler.calibration import engine, row_weights

    members = [tuple(dict.fromkeys(group)) for group in groups]
    names = list(dict.fromkeys(name for group in members for name in group))
    weights = row_weights.of(dataset, model.graph)
    totals: list[_Floats] = [np.zeros(()) for _ in members]
    for number, (feed, tensors) in enumerate(engine.stream(model, dataset, names, threads=ctx.jobs)):
        rows = None if weights is None else weights.of_feed(feed, number)
        for index, group in enumerate(members):
            for name in group:
                array = tensors[name]
                mask = None if rows is None else rows.of(name, array.shape)
                totals[index] = totals[index] + _moment(array, mask, heads=heads)
        tensors.clear()
    row_weights.tell(weights, ctx)
    return totals


def _moment(array: NDArray[Any], weights: NDArray[Any] | None, *, heads: bool) -> _Floats:
    """``(heads, channels, channels)`` of one tensor; each row with its weight."""
    found = array.astype(np.float64)
    if not heads:
        length = np.sqrt(np.square(found).sum(axis=-1, keepdims=True))
        found /= np.where(length > 0, length, 1)
    if weights is not None:
        found *= np.sqrt(weights)
    stacked = np.moveaxis(found, 1, 0) if heads and found.ndim > 3 else found[None]
    flat = stacked.reshape(stacked.shape[0], -1, stacked.shape[-1])
    return np.asarray(np.swapaxes(flat, 1, 2) @ flat)
