"""How much each row of a tensor counts: 0 where it is padding, else what the user gave its sample or position.

A model that takes an attention mask of shape ``N × L`` computes rows for padding tokens too, and nobody reads them:
they weigh 0. A tensor's token axis is found by shape, only where that leaves no doubt:

* ``(N, L, …)`` and the flattened ``(N·L, D)``: its leading axes,
* ``(N, H, L, D)``: its third axis; neither ``H`` nor ``D`` may happen to equal ``L``,
* where the caller knows that square matrices are attention, ``(N, H, L, L)``: its third axis, the token that attends.

Tensors that carry the mask are read at padded positions above all: what is computed from the mask alone (the additive
mask: 0 and −1e4) and the results of nodes that mix it in keep every row. Elsewhere, too, every row weighs 1.

Weights that the user gives (``qcompiler.calibration.given_weights``) multiply these. Those of positions are found like
padding; those of samples belong to the leading axis, which holds whole samples one after the other. Where it does not,
all rows get the mean weight of the samples in the feed. Tensors that may have the positions that the user weighted,
and in doubt are not weighted, are kept in mind (``RowWeights.doubts``) and told of once (``tell``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.calibration.checks import InputSpec
from qcompiler.errors import DataError

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset
    from qcompiler.pipeline.base import Context

__all__ = ["FeedWeights", "RowWeights", "find", "mean_weights", "of", "tell", "unheard"]

_DOUBT = "whose token axis is in doubt"
_SHAPE_ONLY = frozenset({"Shape", "Size"})


@dataclass(frozen=True)
class RowWeights:
    """The padding mask of a model, and what the user gave.

    Attributes:
        mask: Name of the input that holds it: 1 for tokens, 0 for padding; ``None`` without one.
        exempt: Tensors that carry the mask; all their rows count.
        given: Data with weights of samples or positions; ``None`` where all count alike.
        attention: Whether tensors ``(N, H, L, L)`` hold what each token attends to.
        doubts: Tensors so far that weights of positions did not reach because their token axis is not certain.
    """

    mask: str | None = None
    exempt: frozenset[str] = frozenset()
    given: Dataset | None = None
    attention: bool = False
    doubts: set[str] = field(default_factory=set, compare=False)

    def of_feed(self, feed: Mapping[str, NDArray[Any]], number: int = 0) -> FeedWeights | None:
        """Weights in this feed; ``None`` where every row weighs 1.

        Args:
            feed: The samples.
            number: Which feed of the data it is.

        Raises:
            DataError: The given positions are not those of the mask.
        """
        tokens = self._tokens(feed)
        given = None if self.given is None else self.given.weights_of(number)
        if given is None or given.ndim == 1:
            nothing = given is None and tokens is None
            return None if nothing else FeedWeights(tokens, self.exempt, given, self.attention)
        if tokens is not None and tokens.shape != given.shape:
            text = f"weights of shape {given.shape} do not fit '{self.mask}' of shape {tokens.shape}"
            where = "" if self.given is None else self.given.source
            raise DataError(text, where=where, hint="give weights of the positions that the mask is about")
        both = given if tokens is None else given * tokens
        return FeedWeights(both, self.exempt, attention=self.attention, doubts=self.doubts)

    def _tokens(self, feed: Mapping[str, NDArray[Any]]) -> NDArray[np.float32] | None:
        """1 for tokens, 0 for padding; ``None`` where nothing is padding or the input is no 0/1 mask."""
        if self.mask is None:
            return None
        mask = np.asarray(feed[self.mask])
        if mask.ndim != 2 or not np.isin(mask, (0, 1)).all() or mask.all() or not mask.any():
            return None
        return mask.astype(np.float32)

    def key(self) -> str:
        """What the weights depend on beside the data, for the cache."""
        return f"{self.mask} {sorted(self.exempt)}{' attention' if self.attention else ''}"


@dataclass(frozen=True, eq=False)
class FeedWeights:
    """Row weights of one feed.

    Attributes:
        tokens: Weights of positions, ``(N, L)``.
        exempt: Tensors in which every position counts alike.
        samples: Weights of samples, ``(N,)``.
        attention: Whether tensors ``(N, H, L, L)`` hold what each token attends to.
        doubts: Takes the names of tensors whose token axis is not certain; ``None`` where nobody wants to know.
    """

    tokens: NDArray[np.float32] | None
    exempt: frozenset[str] = frozenset()
    samples: NDArray[np.float32] | None = None
    attention: bool = False
    doubts: set[str] | None = None

    def of(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
        """Weights for a tensor, broadcastable to ``shape`` and of its rank; ``None`` where every row weighs 1."""
        positions = self._of_positions(name, shape)
        if positions is None and self.doubts is not None and self._in_doubt(name, shape):
            self.doubts.add(name)
        samples = self.of_samples(shape)
        if positions is None or samples is None:
            return samples if positions is None else positions
        return positions * samples

    def _of_positions(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
        """``None`` where the token axis is not certain."""
        if self.tokens is None or name in self.exempt:
            return None
        batch, length = self.tokens.shape
        if len(shape) == 2 and shape[0] == batch * length and shape[1] != length:
            return self.tokens.reshape(batch * length, 1)
        square = len(shape) == 4 and shape == (batch, shape[1], length, length) and shape[1] != length
        if self.attention and square:
            return self.tokens.reshape(batch, 1, length, 1)
        if len(shape) < 3 or shape[0] != batch or shape[1:].count(length) != 1:
            return None
        if shape[1] == length:
            return self.tokens.reshape(batch, length, *(1 for _ in shape[2:]))
        return self.tokens.reshape(batch, 1, length, 1) if len(shape) == 4 and shape[2] == length else None

    def _in_doubt(self, name: str, shape: tuple[int, ...]) -> bool:
        """Whether a tensor without weights of positions may have positions all the same."""
        if self.tokens is None or name in self.exempt:
            return False
        batch, length = self.tokens.shape
        return length > 1 and (length in shape or shape[:1] == (batch * length,))

    def of_samples(self, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
        """The same from weights of whole samples alone."""
        if self.samples is None:
            return None
        count = len(self.samples)
        if shape and shape[0] and shape[0] % count == 0 and count > 1:
            return np.repeat(self.samples, shape[0] // count).reshape(-1, *(1 for _ in shape[1:]))
        return np.full((1,) * len(shape), self.samples.mean(dtype=np.float64), np.float32)


def of(dataset: Dataset, graph: ir.Graph | None = None) -> RowWeights | None:
    """How much the rows of a data set count; ``None`` where all weigh 1.

    Args:
        dataset: The samples.
        graph: The model's graph, to know which tensors carry a padding mask.
    """
    found = find(dataset.inputs, graph)
    if dataset.all_weights is None:
        return found
    return RowWeights(given=dataset) if found is None else RowWeights(found.mask, found.exempt, dataset)


def unheard(dataset: Dataset, where: str) -> str | None:
    """What to tell of a step that knows samples alone; ``None`` where no weights of positions were given.

    Args:
        dataset: The samples.
        where: What the step works on, in the plural.
    """
    if dataset.all_weights is None or dataset.all_weights.ndim == 1:
        return None
    return f"weights of positions do not reach {where}: there all positions of all samples count alike"


def tell(weights: RowWeights | None, ctx: Context | None) -> None:
    """Warn of the tensors that weights of positions did not reach, the first time there are some in a compile."""
    if weights is None or weights.given is None or not weights.doubts or ctx is None:
        return
    if any(_DOUBT in note.text for record in ctx.records for note in record.notes):
        return
    names = sorted(weights.doubts)
    shown = ", ".join(f"'{name}'" for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    if (text := unheard(weights.given, f"tensors {_DOUBT} ({shown})")) is not None:
        ctx.warn(text)


def mean_weights(dataset: Dataset) -> NDArray[np.float64]:
    """The mean weight given to each feed, ``(feeds,)``, as a share of their mean; ones where all count alike."""
    given = [dataset.weights_of(number) for number in range(len(dataset))]
    means = np.array([1.0 if item is None else item.mean(dtype=np.float64) for item in given])
    return np.asarray(means / means.mean())


def find(inputs: Mapping[str, InputSpec], graph: ir.Graph | None = None) -> RowWeights | None:
    """The input that is a padding mask: of rank 2, named ``…attention_mask…``, else ``…mask…``.

    Args:
        inputs: The model's inputs.
        graph: Its graph, to know which tensors carry the mask.
    """
    ranked = [name for name, spec in inputs.items() if spec.shape is None or len(spec.shape) == 2]
    named = [name for name in ranked if "mask" in name.lower()]
    named.sort(key=lambda name: "attention_mask" not in name.lower())
    if not named:
        return None
    return RowWeights(named[0], frozenset() if graph is None else frozenset(_carriers(graph, named[0])))


def _carriers(graph: ir.Graph, mask: str) -> set[str]:
    """Names of values computed from the mask alone, and of results of nodes that read such a value."""
    alone = {mask}
    computed = {value.name for value in graph.inputs if value.name not in graph.initializers}
    mixed: set[str] = set()
    for node in graph:
        outputs = {str(value.name) for value in node.outputs}
        if node.op_type in _SHAPE_ONLY:
            continue
        reads = {str(value.name) for value in node.inputs if value is not None and value.name in computed}
        if not reads:
            continue
        computed |= outputs
        if reads <= alone:
            alone |= outputs
        elif reads & alone:
            mixed |= outputs
    return alone | mixed
