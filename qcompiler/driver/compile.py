"""The main job: float model in, verified quantized file out. It reads from top to bottom.

Load, run the pipeline, write to a private folder, read back what was written, check it against the profile, compare
it with the float model on samples that nothing was fitted on, judge, and only then rename it to the output.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qcompiler.driver.bisection import Fall, bisect_instrument, worst_fall
from qcompiler.driver.data import Samples, load_samples
from qcompiler.driver.decisions import DecisionWatch
from qcompiler.driver.files import publish, staging
from qcompiler.driver.job import Job
from qcompiler.driver.options import Progress
from qcompiler.driver.running import run_passes
from qcompiler.errors import QCompilerError, VerificationError

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcompiler.analysis.accumulators import Accumulator
    from qcompiler.analysis.integer_only import IntegerOnly
    from qcompiler.analysis.latency import Latency
    from qcompiler.analysis.predicted import Predicted
    from qcompiler.analysis.quality import Quality
    from qcompiler.pipeline.base import PassRecord
    from qcompiler.pipeline.instruments.bisect import Bisect, Measurement
    from qcompiler.report.parts import ModelPart

__all__ = ["Outcome", "execute"]

_LATENCY_BUDGET = 0.4
"""Seconds of runs: enough to see a factor, ``qcompiler bench`` measures properly."""


@dataclass(frozen=True)
class Outcome:
    """All that was decided and measured.

    Attributes:
        job: What was asked for.
        samples: The data.
        decisions: Plan and coverage.
        integer: What is float in the written graph; ``None`` where it was not lowered to integer operators.
        accumulators: What its accumulators can reach; ``None`` likewise.
        records: What each pass did.
        quality: The comparison with the float model.
        latency: Both models' latency, where it was measured.
        latency_reason: Why it was not measured.
        predicted: What the compiled model will cost on the machine of a cost table; ``None`` without one, or without
            integer operators.
        misses: Gates that are not met, as sentences.
        published: Whether the output exists under its name.
        files: Files of the float model, external data included.
        original: The float model as the report describes it.
        compiled: The compiled model as the report describes it.
        bisection: Quality after every pass, where asked for.
        fall: The pass after which quality fell most.
        seconds: Wall time of the whole job.
    """

    job: Job
    samples: Samples
    decisions: DecisionWatch
    integer: IntegerOnly | None
    accumulators: tuple[Accumulator, ...] | None
    records: tuple[PassRecord, ...]
    quality: Quality
    latency: Latency | None
    latency_reason: str
    predicted: Predicted | None
    misses: tuple[str, ...]
    published: bool
    files: tuple[Path, ...]
    original: ModelPart
    compiled: ModelPart
    bisection: tuple[Measurement, ...]
    fall: Fall | None
    seconds: float


@dataclass(frozen=True)
class _Compiled:
    """What the pipeline leaves besides the model."""

    decisions: DecisionWatch
    records: tuple[PassRecord, ...]
    bisect: Bisect | None


def execute(job: Job, progress: Progress) -> Outcome:
    """Do the job.

    Returns:
        The outcome; where ``misses`` is not empty the output exists only if it was asked to be kept.

    Raises:
        QCompilerError: Something cannot be done; nothing is left behind.
    """
    from qcompiler.ir import io
    from qcompiler.ir.memory import trim
    from qcompiler.report.build import model_part

    start = time.perf_counter()
    with staging(job.output) as staged, _public_names(job, staged):
        model = io.load(job.source.path)
        files = io.files(model)
        samples = load_samples(job, model)
        compiled = _run_pipeline(job, model, samples, progress)
        io.save(model, staged)
        io.release(model)  # its weights need not be in memory while the result is measured
        del model
        trim(graphs=True)
        graphs = io.load(job.source.path), io.load(staged)
        _check_legality(job, graphs[1], compiled.decisions)
        _check_size(graphs[1], compiled.decisions)
        integer = _integer_only(job, graphs[1], compiled.decisions)
        sums = _accumulators(job, graphs[1])
        quality = _measure(job, staged, samples, graphs, compiled.decisions.allocation is not None, progress)
        latency, reason = _latency(job, staged, samples)
        predicted = _predicted(job, staged)
        misses = _misses(job, quality, compiled.decisions)
        for graph in graphs:
            io.release(graph)
        original = model_part(job.source.path, job.source.text, graphs[0])
        parts = original, model_part(staged, str(job.output), graphs[1])
        published = not misses or job.options.keep
        if published:
            publish(staged, job.output)
    bisection = tuple(compiled.bisect.measurements) if compiled.bisect is not None else ()
    return Outcome(
        job, samples, compiled.decisions, integer, sums, compiled.records, quality, latency, reason, predicted,
        tuple(misses),
        published, tuple(files), *parts, bisection, worst_fall(bisection, job.metric), time.perf_counter() - start,
    )  # fmt: skip


def _run_pipeline(job: Job, model: ir.Model, samples: Samples, progress: Progress) -> _Compiled:
    decisions = DecisionWatch()
    bisect = bisect_instrument(job.source.path, samples.evaluation, job.metric) if job.options.bisect else None
    watching = [decisions, *([bisect] if bisect is not None else [])]
    records = run_passes(job, model, samples.calibration, progress, instruments=watching)
    return _Compiled(decisions, tuple(records), bisect)


@contextlib.contextmanager
def _public_names(job: Job, staged: Path) -> Iterator[None]:
    """Let errors speak of the output: the private folder is nobody's business, and gone by the time one reads."""
    try:
        yield
    except QCompilerError as error:
        if error.where is not None:
            error.where = error.where.replace(str(staged), str(job.output))
        raise


def _check_legality(job: Job, written: ir.Model, decisions: DecisionWatch) -> None:
    """What was written, not what was meant, must be legal on the target; only what is float is taken on trust."""
    from qcompiler.target.legality import check_model

    violations = check_model(written, job.target, decisions.floating)
    if violations:
        shown = "; ".join(str(item) for item in violations[:3])
        more = f" and {len(violations) - 3} more" if len(violations) > 3 else ""
        raise VerificationError(
            f"the compiled model is not legal on {job.target.name}: {shown}{more}",
            hint="--exclude the nodes it names, or choose another format",
        )


def _check_size(written: ir.Model, decisions: DecisionWatch) -> None:
    """A budget of bytes is about what lies on disk."""
    from qcompiler.analysis.group_costs import SIZE
    from qcompiler.ir import io

    budget = None if decisions.allocation is None else decisions.allocation.budgets.get(SIZE)
    size = sum(path.stat().st_size for path in io.files(written))
    if budget is not None and size > budget:
        raise VerificationError(
            f"the compiled model has {size} bytes, its budget is {budget:.0f}",
            hint=f"passes of your own may add to it: ask for {budget - (size - budget):.0f} bytes",
        )


def _integer_only(job: Job, written: ir.Model, decisions: DecisionWatch) -> IntegerOnly | None:
    """What is float in a graph that was to become integer."""
    from qcompiler.analysis.integer_only import integer_only

    return integer_only(written, decisions.islands) if _on_codes(job) else None


def _on_codes(job: Job) -> bool:
    """Whether the graph computes on codes; in a weight-only format activations are real numbers between products."""
    return job.lowering == "integer" and not job.format.weight_only


def _accumulators(job: Job, written: ir.Model) -> tuple[Accumulator, ...] | None:
    """What the accumulators of an integer graph can reach."""
    from qcompiler.analysis.accumulators import accumulators

    return tuple(accumulators(written, job.target.integer)) if _on_codes(job) else None


def _measure(
    job: Job, staged: Path, samples: Samples, graphs: tuple[ir.Model, ir.Model], chosen: bool, progress: Progress
) -> Quality:
    """Compare what was written with the float model; ``graphs`` are both, as loaded.

    ``chosen``: formats were, so the loss that was predicted is measured too.
    """
    from qcompiler.analysis.layers import match_layers
    from qcompiler.analysis.quality import compare
    from qcompiler.ir import io
    from qcompiler.ir.memory import trim

    pairs = match_layers(*graphs)
    for graph in graphs:
        io.release(graph)
    trim()
    return compare(
        job.source.path, staged, samples.evaluation, per_layer=pairs, metric=job.metric, softened=chosen,
        threads=job.options.jobs, progress=progress,
    )  # fmt: skip


def _latency(job: Job, staged: Path, samples: Samples) -> tuple[Latency | None, str]:
    """Latency of both models, or why it says nothing here."""
    from qcompiler.target.runs_here import runs_here

    if not job.options.latency:
        return None, "not asked for"
    here, reason = runs_here(job.target)
    if not here:
        return None, reason
    from qcompiler.analysis.latency import measure_latency, too_large

    if (excuse := too_large(job.source.path, staged)) is not None:
        return None, excuse
    feed: dict[str, Any] = next(iter(samples.evaluation))
    return measure_latency(job.source.path, staged, feed, budget=_LATENCY_BUDGET, provider=job.target.provider), ""


def _predicted(job: Job, staged: Path) -> Predicted | None:
    """What the compiled model will cost where the cost table was measured."""
    if job.costs is None or job.lowering != "integer":
        return None
    from qcompiler.analysis.predicted import predict_latency
    from qcompiler.analysis.profile_plan import weight_widths

    widths, threads = weight_widths(job.target), job.costs.threads()[0]
    return predict_latency(staged, job.costs, widths, target=job.target.name, threads=threads)


def _misses(job: Job, quality: Quality, decisions: DecisionWatch) -> list[str]:
    from qcompiler.analysis.gates import Gates, check_gates

    options = job.options
    gates = Gates(options.min_sqnr, options.min_agreement, options.max_fallback)
    fallback = decisions.coverage.fallback_share if decisions.coverage is not None else None
    return check_gates(quality, gates, fallback=fallback)
