"""Measure how much every group loses under every option."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Final

from qcompiler.analysis.sensitivity.differences import GaussNewton, Taylor
from qcompiler.analysis.sensitivity.losses import plain_loss, prediction_difference, relative_distance
from qcompiler.analysis.sensitivity.metric import Measured, Metric
from qcompiler.analysis.sensitivity.store import choice_key, open_store
from qcompiler.analysis.sensitivity.study import Choice, Cost, Sensitivity, Study
from qcompiler.analysis.sensitivity.weights_alone import Spikes, Sqnr
from qcompiler.errors import DataError, PassError, UsageError, nearest

__all__ = ["METRICS", "estimate", "metric_named", "sensitivity"]

METRICS: Final[tuple[Metric, ...]] = (
    Measured(),
    GaussNewton(),
    Taylor(),
    Measured("divergence", plain_loss),
    Measured("prediction-difference", prediction_difference),
    Measured("block-distance", relative_distance, own=True),
    Sqnr(),
    Spikes(),
)
"""Metrics by which losses are found; the first is the default."""

_SAMPLES: Final = 128
_FEWEST: Final = 4
_WORK: Final = 4e12
"""Multiply-accumulates that a measurement takes at most: large models run fewer samples."""


def metric_named(name: str) -> Metric:
    """The metric of this name.

    Raises:
        UsageError: There is none.
    """
    known = {metric.name: metric for metric in METRICS}
    if name not in known:
        hint = nearest(name, known) or f"one of {', '.join(known)}"
        raise UsageError(f"there is no sensitivity metric '{name}'", hint=hint)
    return known[name]


def estimate(study: Study, metric: Metric, samples: int | None = None) -> tuple[int, Cost]:
    """How many samples a metric runs, and what that takes; no alternative is asked for.

    Raises:
        DataError: There are no samples.
        UsageError: ``samples`` is less than 1.
    """
    choices: list[Choice] = study.choices()
    used, _ = _samples(study, metric, choices, samples)
    return used, metric.cost(study, choices, used)


def sensitivity(
    study: Study,
    metric: str | Metric = "measured",
    *,
    samples: int | None = None,
    pairs: Sequence[Choice] = (),
    known: Sensitivity | None = None,
    cache_dir: Path | None = None,
    executor: Executor | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Sensitivity:
    """Losses of every group under every option.

    Args:
        study: The model and what may be decided on.
        metric: Its name, or a metric of one's own.
        samples: Samples to run; by default 128, fewer where the model is large.
        pairs: Two groups with options whose common loss is wanted beside that of each alone.
        known: An answer to the same without ``pairs``: its losses, on its samples, are taken as they are.
        cache_dir: Where results are kept, choice by choice; an interrupted run goes on.
        executor: Runs the parts of the work, on one thread each unless the study says how many; the figures are the
            same with any number of workers.
        progress: Called as ``progress("sensitivity", done, total)``.

    Raises:
        DataError: There are no samples.
        UsageError: There is no such metric.
        PassError: No option of a group has a finite loss.
    """
    start = time.perf_counter()
    chosen = metric_named(metric) if isinstance(metric, str) else metric
    if executor is not None and not study.threads:
        study = replace(study, threads=1)  # others run beside it
    choices = [*study.choices(), *pairs]
    used, notes = _samples(study, chosen, choices, samples) if known is None else (known.samples, known.notes)
    cost = chosen.cost(study, choices, used)
    found = _known(known)
    missing = [choice for choice in choices if choice not in found]
    found |= _measured(study, chosen, missing, used, (cache_dir, executor), progress)
    losses, dropped = _sorted_out(study, found) if known is None else (known.losses, known.dropped)
    return Sensitivity(
        chosen.name, used, time.perf_counter() - start, cost, losses, study.nodes, study.weights, dropped,
        _together(found, pairs), notes,
    )  # fmt: skip


def _together(found: Mapping[Choice, float], pairs: Sequence[Choice]) -> dict[Choice, float]:
    """What two groups lose beyond the sum, where it is finite."""
    finite = (choice for choice in pairs if math.isfinite(found[choice]))
    return {choice: found[choice] - sum(found[single,] for single in choice) for choice in finite}


def _known(answer: Sensitivity | None) -> dict[Choice, float]:
    """Losses of single choices that were measured before."""
    losses = {} if answer is None else answer.losses
    return {((group, option),): loss for group, own in losses.items() for option, loss in own.items()}


def _samples(
    study: Study, metric: Metric, choices: Sequence[Choice], wanted: int | None
) -> tuple[int, tuple[str, ...]]:
    """Samples to run, and what to say of them."""
    if not metric.forward:
        return 0, ()
    available = len(study.dataset)
    if available == 0:
        raise DataError(
            "there are no samples to measure sensitivity on", where=study.dataset.source, hint="give --calibration DATA"
        )
    if wanted is not None:
        if wanted < 1:
            raise UsageError(f"sensitivity on {wanted} samples measures nothing")
        return min(wanted, available), ()
    one = max(metric.cost(study, choices, 1).macs, 1)
    most = min(_SAMPLES, available)
    used = int(min(most, max(_FEWEST, _WORK // one)))
    note = f"measured on {used} of {available} samples: one takes {one:.2g} multiply-accumulates"
    return used, (note,) if used < most else ()


def _measured(
    study: Study,
    metric: Metric,
    choices: Sequence[Choice],
    samples: int,
    means: tuple[Path | None, Executor | None],
    progress: Callable[[str, int, int], None] | None,
) -> dict[Choice, float]:
    """Losses from the store, and measured ones put there."""
    cache_dir, executor = means
    store = open_store(study, metric, samples, cache_dir)
    keys = {
        choice: "" if cache_dir is None else choice_key(study, choice, study.alternative(choice)) for choice in choices
    }
    found = {choice: loss for choice, key in keys.items() if (loss := store.get(key)) is not None}
    pending = [choice for choice in keys if choice not in found]
    for choice, loss in metric.losses(study, pending, samples, executor) if pending else ():
        found[choice] = loss
        store.put(keys[choice], choice, loss)
        if progress is not None:
            progress("sensitivity", len(found), len(keys))
    return {choice: found[choice] for choice in keys}


def _sorted_out(
    study: Study, found: Mapping[Choice, float]
) -> tuple[dict[str, dict[str, float]], dict[tuple[str, str], str]]:
    """Finite losses by group and option, and why the others are none.

    Raises:
        PassError: A group has no option left.
    """
    losses: dict[str, dict[str, float]] = {}
    dropped: dict[tuple[str, str], str] = {}
    for group, options in study.options.items():
        own = {option: found[((group, option),)] for option in options}
        losses[group] = {option: loss for option, loss in own.items() if math.isfinite(loss)}
        dropped |= {(group, option): "the outputs are not finite" for option in own if option not in losses[group]}
        if not losses[group]:
            raise PassError(
                f"no option of '{group}' gives finite outputs: {', '.join(options)}",
                hint="look at the group's weights, or leave it out with --exclude",
            )
    return losses, dropped
