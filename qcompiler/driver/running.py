"""The passes of a job, run on its model: what they are given, and who watches them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from qcompiler.driver.executors import executor_of
from qcompiler.driver.watchers import watchers
from qcompiler.errors import QCompilerError

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcompiler.calibration.data import Dataset
    from qcompiler.driver.job import Job
    from qcompiler.driver.options import Progress
    from qcompiler.pipeline.base import Context, PassRecord
    from qcompiler.pipeline.manager import Instrument

__all__ = ["run_passes"]


def run_passes(
    job: Job,
    model: ir.Model,
    calibration: Dataset | None,
    progress: Progress,
    *,
    instruments: Sequence[Instrument] = (),
    until: str = "",
) -> list[PassRecord]:
    """Run the pipeline of a job on ``model``, in place.

    Args:
        job: What is asked for.
        model: The float model.
        calibration: Samples to fit on.
        progress: Called as ``progress(stage, done, total)``.
        instruments: Observers besides those that the job asks for.
        until: The pass to stop behind; empty runs all.

    Returns:
        One record per pass that ran.

    Raises:
        QCompilerError: A pass failed or refused; the hint names the reproducer, where one was written.
    """
    watching, reproducer = watchers(job)
    context = _context(job, model, calibration, progress)
    try:
        return job.pipeline.run(model, context, [*instruments, *watching], until=until)
    except QCompilerError as error:
        if reproducer.written:
            error.hint = f"'qcompiler replay {reproducer.folder}' repeats it; please report it with that folder"
        raise


def _context(job: Job, model: ir.Model, calibration: Dataset | None, progress: Progress) -> Context:
    from qcompiler.ir.edit import Edit
    from qcompiler.pipeline.base import Context

    options = job.options
    return Context(
        edit=Edit(model), target=job.target, format=job.format.text, calibration=calibration,
        exclude=options.exclude, cache_dir=job.cache_dir, jobs=options.jobs, progress=progress,
        baseline_path=job.source.path, executor=partial(executor_of, options.executor, options.workers),
    )  # fmt: skip
