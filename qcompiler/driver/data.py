"""Samples to fit on and samples to judge by, never the same ones."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qcompiler.driver.formats_asked import bounds_loss
from qcompiler.driver.job import Job, is_generator, is_none, is_random
from qcompiler.driver.synthetic import from_generator, without_data
from qcompiler.errors import DataError, UsageError

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcompiler.calibration.data import Dataset, Feed
    from qcompiler.driver.options import DataSpec

__all__ = ["RANDOM_SAMPLES", "Samples", "load_samples"]

_RANDOM_TO_JUDGE = 8

RANDOM_SAMPLES = 32
"""Samples drawn by ``--calibration random`` unless ``--limit`` says otherwise."""


@dataclass(frozen=True)
class Samples:
    """The data of one compile.

    Attributes:
        calibration: What ranges and corrections are fitted on; ``None`` where a plan gives everything.
        evaluation: What the result is judged by.
        held_out: Whether the evaluation samples were taken from the calibration data.
        warnings: What the user must know.
        notes: What the reader of the report should know.
    """

    calibration: Dataset | None
    evaluation: Dataset
    held_out: bool
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def load_samples(job: Job, model: ir.Model, *, fits: bool = False) -> Samples:
    """Load the data of a job against the model's inputs.

    Args:
        job: What is asked for.
        model: The float model.
        fits: Whether samples to fit on are wanted though the job itself would fit nothing.

    Raises:
        DataError: The data is unusable, or too little to keep a bound on the loss.
        UsageError: Calibration and evaluation data are the same, or nothing is to be selected from.
    """
    from qcompiler.analysis.plan_loss import enough_to_judge

    samples = _loaded(job, model, fits=fits or job.fits)
    if bounds_loss(job.options):
        enough_to_judge(samples.calibration, len(samples.evaluation) if samples.held_out else 0)
    return samples


def _loaded(job: Job, model: ir.Model, *, fits: bool) -> Samples:
    from qcompiler.calibration import data

    inputs = data.inputs_of(model)
    options = job.options
    if not fits:
        if options.select:
            raise UsageError("--select chooses samples to fit on, and nothing is fitted in a weight-only format")
        return _to_judge_by(job, inputs)
    every, warnings = _to_fit_on(job, model, inputs)
    if job.evaluation is None and every is not None:
        calibration, held_out = data.split(every)
        _check_labels(job, held_out)
        note = f"the last {len(held_out)} of {len(every)} calibration samples were held out to judge by"
        return Samples(calibration, held_out, True, warnings, (note,))
    if job.evaluation is None:
        raise DataError("there is nothing to judge by", hint="give --evaluation DATA")
    evaluation = data.load(job.evaluation, inputs, preprocessing=options.preprocessing, limit=options.limit)
    _check_labels(job, evaluation)
    if every is None:
        return Samples(None, evaluation, False, warnings)
    evaluation, notes = _unseen(job, every, evaluation)
    return Samples(every, evaluation, False, warnings, notes)


def _to_fit_on(job: Job, model: ir.Model, inputs: Any) -> tuple[Dataset | None, tuple[str, ...]]:
    """The samples to fit on, and what the user must know of them; ``None`` where a plan gives everything."""
    from qcompiler.calibration import data, selection

    options, given = job.options, job.calibration
    if options.select and (is_random(given) or is_none(given)):
        raise UsageError(f"--select chooses among samples, and --calibration {given} has none to choose from")
    if is_random(given):
        return data.random(inputs, options.limit or RANDOM_SAMPLES, options.seed), _random_warning(job)
    if is_none(given):
        return without_data(job, inputs)
    if is_generator(given):
        every, warnings = from_generator(job, str(given), inputs)
        if options.select:
            every = selection.select(every, options.select, seed=options.seed, model=model, threads=options.jobs)
        return every, warnings
    return (None if given is None else _chosen(job, given, model, inputs)), ()


def _chosen(job: Job, given: DataSpec, model: ir.Model, inputs: Any) -> Dataset:
    """The calibration samples that the options choose; a limit counts those that were selected."""
    from qcompiler.calibration import data, selection

    options = job.options
    if not options.select:
        return data.load(given, inputs, preprocessing=options.preprocessing, limit=options.limit)
    every = data.load(given, inputs, preprocessing=options.preprocessing)
    every = selection.select(every, options.select, seed=options.seed, model=model, threads=options.jobs)
    return every if options.limit is None else data.load(every, inputs, limit=options.limit)


def _to_judge_by(job: Job, inputs: Any) -> Samples:
    """All data there is, where nothing is fitted; random samples where there is none."""
    from qcompiler.calibration import data

    options = job.options
    given = job.evaluation if job.evaluation is not None else job.calibration
    if given is None or is_random(given) or is_none(given):
        made_up = data.random(inputs, options.limit or _RANDOM_TO_JUDGE, options.seed)
        text = "quality was compared on random inputs: --evaluation DATA with real samples says what it is worth"
        return Samples(None, made_up, False, (text,))
    if is_generator(given):
        evaluation, _ = from_generator(job, str(given), inputs)
    else:
        evaluation = data.load(given, inputs, preprocessing=options.preprocessing, limit=options.limit)
    _check_labels(job, evaluation)
    return Samples(None, evaluation, False, (), ("nothing was fitted on samples",))


def _check_labels(job: Job, evaluation: Dataset) -> None:
    """Refuse before any work what could not be measured after it."""
    if job.metric.name == "top1" and evaluation.labels is None:
        hint = "add an array 'labels' to the evaluation data"
        raise DataError("metric top1 needs labels", where=evaluation.source, hint=hint)


def _random_warning(job: Job) -> tuple[str, ...]:
    if not is_random(job.calibration):
        return ()
    text = "ranges were fitted on random noise: the file shows that the model compiles, not that it is accurate"
    return (text, "give real samples with --calibration DATA before you use it")


def _unseen(job: Job, calibration: Dataset, evaluation: Dataset) -> tuple[Dataset, tuple[str, ...]]:
    """The evaluation samples that nothing was fitted on."""
    if _same_place(job.calibration, job.evaluation):
        raise UsageError(
            "calibration and evaluation data are the same: nothing may be judged by what it was fitted on",
            hint="leave --evaluation out: some calibration samples are then held out",
        )
    fitted = {_digest(feed) for feed in calibration}
    fresh = [index for index, feed in enumerate(evaluation) if _digest(feed) not in fitted]
    if len(fresh) == len(evaluation):
        return evaluation, ()
    if not fresh:
        raise DataError("every evaluation sample is a calibration sample too", where=evaluation.source)
    note = f"{len(evaluation) - len(fresh)} evaluation samples are calibration samples too and were left out"
    return evaluation.subset(fresh), (note,)


def _same_place(first: object, second: object) -> bool:
    if isinstance(first, str | Path) and isinstance(second, str | Path):
        return Path(first).resolve() == Path(second).resolve()
    return first is second


def _digest(feed: Feed) -> bytes:
    state = hashlib.blake2b(digest_size=16)
    for name in sorted(feed):
        state.update(f"{name}\0{feed[name].shape}\0".encode())
        state.update(np.ascontiguousarray(feed[name]).reshape(-1).view(np.uint8).data)
    return state.digest()
