"""Samples of token identifiers where there is no data: drawn from the tables that a model looks them up in.

Every row of a table of words can be read, so words are drawn evenly from all of them; lengths are drawn evenly as well,
and a padding mask says where a sample ends. Such samples mean nothing as text. What words alone decide (embeddings, the
channels that are large whatever is read) they show; what a text has beyond its words (who attends to whom, how sure a
prediction is) they do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.calibration import made_up, row_weights, words
from qcompiler.calibration.checks import InputSpec

__all__ = ["Tokens", "drawn"]

_SHORTEST: Final = 4
_POSITIONS: Final = 32
"""Length of an axis that the model leaves open."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """Drawn samples.

    Attributes:
        feeds: One sample each.
        words: Words in the table that they were drawn from.
    """

    feeds: list[dict[str, NDArray[Any]]]
    words: int


def drawn(model: ir.Model, inputs: Mapping[str, InputSpec], count: int, seed: int = 0) -> Tokens | None:
    """Samples for a model that reads token identifiers; ``None`` for others.

    The input of words, and others that read a table, get identifiers that their table has; positions count up, a
    padding mask is 1 up to the sample's length; all else is as in ``made_up``.

    Args:
        model: The float model.
        inputs: Its inputs.
        count: Number of samples.
        seed: Seed of what is drawn.
    """
    tables = words.tables(model.graph)
    vocabulary = words.find(model.graph)
    if vocabulary is None:
        return None
    fixed = {name: InputSpec(spec.dtype, _closed(spec)) for name, spec in inputs.items()}
    padding = row_weights.find(fixed)
    mask = None if padding is None or padding.mask in tables else padding.mask
    generator = np.random.default_rng(seed)
    feeds: list[dict[str, NDArray[Any]]] = []
    for feed in made_up.feeds(fixed, count, seed):
        length = feed[vocabulary.name].shape[-1]
        end = length if mask is None else int(generator.integers(min(_SHORTEST, length), length + 1))
        for name, rows in tables.items():
            found = generator.integers(0, rows, feed[name].shape)
            found = np.broadcast_to(np.arange(found.shape[-1]) % rows, found.shape) if "position" in name else found
            feed[name] = np.where(np.arange(found.shape[-1]) < end, found, 0).astype(feed[name].dtype)
        if mask is not None and feed[mask].shape == feed[vocabulary.name].shape:
            feed[mask] = np.broadcast_to(np.arange(length) < end, feed[mask].shape).astype(feed[mask].dtype)
        feeds.append(feed)
    return Tokens(feeds, vocabulary.rows)


def _closed(spec: InputSpec) -> tuple[int | str | None, ...] | None:
    """The shape with open axes behind the batch set to a usual length."""
    if spec.shape is None or len(spec.shape) != 2 or spec.dtype.kind not in "iub":
        return spec.shape
    return (spec.shape[0], *(item if isinstance(item, int) else _POSITIONS for item in spec.shape[1:]))
