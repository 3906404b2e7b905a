"""How far the outputs of a changed model are from the float model's: one non-negative number, 0 for equal ones.

Scores of a classifier or a language model lose their divergence (``metrics.softened_kl``, nats per row), embeddings
and states one minus the cosine; a single number per row, such as a regression, its squared error over
its squared size. Rows that are padding do not count. Several outputs count alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.analysis import metrics

__all__ = [
    "Reference",
    "curvature",
    "label_loss_change",
    "output_loss",
    "plain_loss",
    "prediction_difference",
    "relative_distance",
]


@dataclass(frozen=True, eq=False)
class Reference:
    """What the float model gives for one batch.

    Attributes:
        outputs: Its floating-point outputs.
        vectors: Which of them are embeddings.
        counted: Per output, which leading positions count; ``None`` where all do.
    """

    outputs: tuple[NDArray[Any], ...]
    vectors: tuple[bool, ...]
    counted: tuple[NDArray[np.bool_] | None, ...]


def output_loss(reference: Reference, found: Sequence[NDArray[Any]]) -> float:
    """The loss of one batch, a mean over its rows and over outputs; infinite where an output is not finite."""
    return _mean_loss(reference, found, metrics.softened_kl)


def plain_loss(reference: Reference, found: Sequence[NDArray[Any]]) -> float:
    """The same with the plain divergence alone: what users are shown of a model, and what a plan is judged by."""
    return _mean_loss(reference, found, metrics.kl)


def _mean_loss(reference: Reference, found: Sequence[NDArray[Any]], divergence: metrics.MetricFunction) -> float:
    losses = []
    for wanted, got, vector in _rows(reference, found):
        if not (np.isfinite(got) | ~np.isfinite(wanted)).all():
            return math.inf
        losses.append(_loss(wanted, got, divergence, vector=vector))
    return max(float(np.mean(losses)), 0.0) if losses else 0.0


def prediction_difference(reference: Reference, found: Sequence[NDArray[Any]]) -> float:
    """Mean total variation of the class probabilities; of embeddings the relative distance.

    Source: PD-Quant (arXiv:2212.07048), which fits quantization to the change of predictions.
    """
    losses = []
    for wanted, got, vector in _rows(reference, found):
        if vector:
            losses.append(math.sqrt(_distance(wanted, got)))
        else:
            losses.append(float(np.abs(_probabilities(wanted) - _probabilities(got)).sum(1).mean()) / 2)
    return float(np.mean(losses)) if losses else 0.0


def relative_distance(reference: Reference, found: Sequence[NDArray[Any]]) -> float:
    """Squared error over squared magnitude, a mean over outputs, whatever they are."""
    pairs = zip(reference.outputs, found, strict=True)
    return float(np.mean([_distance(wanted, got) for wanted, got in pairs])) if found else 0.0


def curvature(reference: Reference, found: Sequence[NDArray[Any]]) -> float:
    """``d' H d`` for the change ``d`` of the outputs and the Hessian ``H`` of the loss where they are equal.

    Of the divergence ``H = diag(p) - p p'``; of the cosine loss, the part of ``d`` across the vector over its square
    length. Half of this is the loss to second order.
    """
    losses = []
    for wanted, got, vector in _rows(reference, found):
        change = got.astype(np.float64) - wanted
        if vector:
            rows, moves = wanted.reshape(len(wanted), -1).astype(np.float64), change.reshape(len(wanted), -1)
            length = np.maximum(np.square(rows).sum(1), 1e-30)
            along = (rows * moves).sum(1)
            losses.append(float(((np.square(moves).sum(1) - along**2 / length) / length).mean()))
        else:
            shares, moves = _probabilities(wanted), metrics.class_rows(change)
            losses.append(float(((shares * moves**2).sum(1) - (shares * moves).sum(1) ** 2).mean()))
    return float(np.mean(losses)) if losses else 0.0


def label_loss_change(reference: Reference, found: Sequence[NDArray[Any]]) -> float:
    """By how much the cross-entropy of the float model's own decisions grows; of embeddings the relative distance."""
    losses = []
    for wanted, got, vector in _rows(reference, found):
        if vector:
            losses.append(math.sqrt(_distance(wanted, got)))
            continue
        before, after = _probabilities(wanted), _probabilities(got)
        label = before.argmax(1)[:, None]
        ratio = np.take_along_axis(before, label, 1) / np.maximum(np.take_along_axis(after, label, 1), 1e-30)
        losses.append(float(np.log(ratio).mean()))
    return float(np.mean(losses)) if losses else 0.0


def _rows(reference: Reference, found: Sequence[NDArray[Any]]) -> Iterator[tuple[NDArray[Any], NDArray[Any], bool]]:
    """Outputs of both, without positions that do not count, and whether they are embeddings."""
    for wanted, got, vector, counted in zip(
        reference.outputs, found, reference.vectors, reference.counted, strict=True
    ):
        yield (wanted, got, vector) if counted is None else (wanted[counted], got[counted], vector)


def _loss(wanted: NDArray[Any], got: NDArray[Any], divergence: metrics.MetricFunction, *, vector: bool) -> float:
    """One minus the cosine of an embedding, the divergence of scores; of a single score the relative distance."""
    if vector:
        return 1.0 - metrics.cosine(wanted, got)
    return divergence(wanted, got) if metrics.class_rows(wanted).shape[1] > 1 else _distance(wanted, got)


def _distance(wanted: NDArray[Any], got: NDArray[Any]) -> float:
    power = float(np.square(wanted, dtype=np.float64).sum())
    noise = float(np.square(wanted - got, dtype=np.float64).sum())
    return noise / power if power > 0 else (0.0 if noise == 0 else math.inf)


def _probabilities(scores: NDArray[Any]) -> NDArray[np.float64]:
    """Class probabilities of logits or of probabilities, a row per decision."""
    rows = metrics.class_rows(scores).astype(np.float64)
    if metrics.are_probabilities(rows):
        return rows
    powers = np.exp(rows - rows.max(1, keepdims=True))
    found: NDArray[np.float64] = powers / powers.sum(1, keepdims=True)
    return found
