"""Loss of a quantized model on samples that nothing was fitted on, with a bound that holds for more than these.

The loss is the mean over samples of one of the figures that ``--metric`` names, turned so that 0 is best: divergence,
one minus the cosine, share of other decisions, noise over signal. What few samples give is a draw, so what is compared
with a bound is an *upper bound* of the mean over all samples like these (``upper_bound``), at 99.5 % where losses are
normally distributed. They are far from that (on resnet20 with layers of 2 bits their skewness is 3.3: the mean plus
1.645 errors of 43 samples failed 12 times in 100, not 5), and the least of several plans is chosen: less is certain.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qcompiler.analysis import metrics
from qcompiler.errors import DataError, UsageError, nearest

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset
    from qcompiler.ir.execute import Runner

__all__ = ["LOSSES", "enough_to_judge", "loss_named", "sample_losses", "upper_bound"]

OneLoss: TypeAlias = Callable[[NDArray[Any], NDArray[Any]], float]

_DEVIATIONS: Final = 2.576
"""99.5 % of a normal distribution lie below this many standard deviations."""

_LEAST: Final = 24
"""Samples below which a third of them bounds nothing: Student's distribution needs some, skewed losses more."""
_MADE: Final = 32
"""Samples to be made where none are given: some are held out of these for the report."""


def enough_to_judge(data: Dataset | None, held_out: int = 0) -> Dataset:
    """The calibration samples, where a bound on the held-out loss can be kept with them.

    Args:
        data: The samples.
        held_out: How many more were given, and set aside to evaluate the result.

    Raises:
        DataError: There are too few.
    """
    count = 0 if data is None else len(data)
    if data is not None and count >= _LEAST:
        return data
    made = data is not None and data.made is not None
    more = f"have {_MADE} made with --limit {_MADE}" if made else "give more of --calibration"
    aside = f" ({held_out} of {count + held_out} held out for evaluation)" if held_out else ""
    other = ", or --evaluation DATA so that none are held out" if held_out and count + held_out >= _LEAST else ""
    raise DataError(
        f"a bound on the loss takes {_LEAST} calibration samples, and there are {count}{aside}: a third of them judges",
        where="--budget loss", hint=f"{more}{other}, or a budget of size",
    )  # fmt: skip


def _disagreement(reference: NDArray[Any], found: NDArray[Any]) -> float:
    return 1 - metrics.agreement(reference, found) / 100


def _noise(reference: NDArray[Any], found: NDArray[Any]) -> float:
    return float(10 ** (-metrics.sqnr(reference, found) / 10))


def _distance(reference: NDArray[Any], found: NDArray[Any]) -> float:
    return 1 - metrics.cosine(reference, found)


LOSSES: Final = MappingProxyType(
    {"kl": metrics.kl, "cosine": _distance, "agreement": _disagreement, "sqnr": _noise}
)
"""Losses by the metric they come from."""


def loss_named(metric: str | None, *, vector: bool, scores: OneLoss = metrics.kl) -> OneLoss:
    """The loss of a metric; without one, that of ``scores`` (divergence) and one minus the cosine of embeddings.

    ``sample_losses`` takes noise over signal where an output has a single score per row.

    Raises:
        UsageError: The metric has no loss to the float model.
    """
    if metric is None:
        return _distance if vector else scores
    if metric not in LOSSES:
        raise UsageError(
            f"--metric {metric} gives no loss to bound", where="--budget loss",
            hint=" ".join(filter(None, (nearest(metric, LOSSES), f"one of {', '.join(LOSSES)}"))),
        )  # fmt: skip
    return LOSSES[metric]


def sample_losses(
    reference: Runner,
    candidate: Runner,
    dataset: Dataset,
    vectors: frozenset[str],
    metric: str | None = None,
    *,
    scores: OneLoss = metrics.kl,
) -> NDArray[np.float64]:
    """Loss of every sample, a mean over the floating-point outputs; infinite where an output is not finite.

    Args:
        reference: The float model.
        candidate: The quantized model.
        dataset: Samples that nothing was fitted on.
        vectors: Names of outputs that are embeddings.
        metric: Which loss (``loss_named``).
        scores: What scores lose where no metric is named.
    """
    from qcompiler.calibration import row_weights

    rows = row_weights.of(dataset)
    found = []
    runs = zip(reference.stream(dataset), candidate.stream(dataset), strict=True)
    for index, ((feed, wanted), (_, got)) in enumerate(runs):
        weights = None if rows is None else rows.of_feed(feed, index)
        losses = []
        for name, array in wanted.items():
            if array.dtype.kind != "f":
                continue
            share = None if weights is None else weights.of(name, array.shape)
            single = metric is None and metrics.class_rows(array).shape[1] < 2  # one score decides nothing
            loss = _noise if single else loss_named(metric, vector=name in vectors, scores=scores)
            losses.append(_loss(array, got[name], share, loss))
        found.append(float(np.mean(losses)))
    return np.array(found, np.float64)


def _loss(wanted: NDArray[Any], got: NDArray[Any], share: NDArray[Any] | None, loss: OneLoss) -> float:
    """The loss of one output of one sample, padding left out."""
    if not (np.isfinite(got) | ~np.isfinite(wanted)).all():
        return math.inf
    if share is not None:
        leading = share.ndim
        while leading and share.shape[leading - 1] == 1:
            leading -= 1
        counted = np.broadcast_to(share.reshape(share.shape[:leading]) > 0, wanted.shape[:leading])
        wanted, got = wanted[counted], got[counted]
    return max(loss(wanted, got), 0.0)


def upper_bound(losses: NDArray[np.float64], *, shares: bool = False) -> float:
    """What the mean over all samples like these is at most, by Student's distribution at 99.5 %.

    Args:
        losses: One per sample, at least two; where one is infinite, so is the bound.
        shares: Whether a loss is a share of decisions. What did not happen in n samples may still happen: the bound is
            at least that of Wilson (1927) then, 6.6 / (n + 6.6) where nothing did.
    """
    if not np.isfinite(losses).all():
        return math.inf
    count, mean = len(losses), float(losses.mean())
    error = float(losses.std(ddof=1)) / math.sqrt(count) if count > 1 else math.inf
    found = mean + _student(count - 1) * error
    return max(found, _wilson(mean, count)) if shares else found


def _student(freedom: int) -> float:
    """Quantile of Student's distribution from the normal one (Fisher and Cornish 1960), good to 1 % from 7 on."""
    z, n = _DEVIATIONS, float(max(freedom, 1))
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / n + second / n**2 + third / n**3


def _wilson(share: float, count: int) -> float:
    """Upper end of Wilson's interval of a share."""
    z = _DEVIATIONS**2 / count
    spread = math.sqrt(share * (1 - share) * z + z**2 / 4)
    return (share + z / 2 + spread) / (1 + z)
