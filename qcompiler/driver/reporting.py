"""From the outcome of a compile to its report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from qcompiler.driver.pipeline_choice import why_not_lowered
from qcompiler.report import build
from qcompiler.report.accumulators import accumulators_part
from qcompiler.report.build_formats import formats_part, formats_warnings
from qcompiler.report.cost import cost_part
from qcompiler.report.formats import FormatsPart
from qcompiler.report.measured import BisectPart, CoveragePart, QualityPart, TimingPart, UnmeasuredPart
from qcompiler.report.model import Report
from qcompiler.report.parts import GatesPart, TargetPart

if TYPE_CHECKING:
    from qcompiler.driver.compile import Outcome

__all__ = ["report_of"]


def report_of(outcome: Outcome) -> Report:
    """Everything there is to say about a compile."""
    from qcompiler.target.runs_here import runs_here
    from qcompiler.version import version

    job, samples = outcome.job, outcome.samples
    quality = build.quality_part(outcome.quality)
    formats = _formats(outcome, quality)
    return Report(
        compiler=version(),
        model=outcome.original,
        compiled=outcome.compiled,
        target=TargetPart(job.target.name, job.target.title, runs_here(job.target)[0]),
        size=build.size_part(outcome.original.bytes, outcome.compiled.bytes),
        gates=_gates(outcome),
        kept=outcome.published,
        configuration=job.effective(),
        calibration=build.data_part(samples.calibration) if samples.calibration is not None else None,
        evaluation=build.data_part(samples.evaluation, held_out=samples.held_out, notes=samples.notes),
        passes=build.pass_parts(outcome.records),
        coverage=_coverage(outcome),
        integer=build.integer_part(outcome.integer) if outcome.integer is not None else None,
        accumulators=accumulators_part(outcome.accumulators) if outcome.accumulators is not None else None,
        formats=formats,
        quality=quality,
        cost=cost_part(outcome.predicted) if outcome.predicted is not None else None,
        bisect=tuple(BisectPart(item.text, _number(item.figure)) for item in outcome.bisection),
        warnings=(*_warnings(outcome), *formats_warnings(formats)),
        unmeasured=tuple(_unmeasured(outcome)),
        timing=TimingPart(
            outcome.seconds,
            tuple(record.seconds for record in outcome.records),
            build.latency_part(outcome.latency) if outcome.latency is not None else None,
            tuple(trial.seconds for record in outcome.records for trial in record.trials),
        ),
    )


def _coverage(outcome: Outcome) -> CoveragePart | None:
    decisions, weights_only = outcome.decisions, outcome.job.format.weight_only
    if decisions.coverage is None:
        return None
    return build.coverage_part(decisions.coverage, weights_only=weights_only, formats=decisions.format_counts)


def _formats(outcome: Outcome, quality: QualityPart) -> FormatsPart | None:
    """How formats were chosen; ``None`` where there was nothing to choose."""
    from qcompiler.passes.allocate.choose_formats import ChooseFormats
    from qcompiler.target.formats import resolve_format, widest_first

    found = outcome.decisions.allocation
    if found is None:
        return None
    texts, target = [text for group in found.groups for text in (*group.sizes, *group.losses)], outcome.job.target
    requests = {text: resolve_format(target, text) for text in widest_first(target, texts)}
    bounded = next((item.metric for item in outcome.job.pipeline.passes if isinstance(item, ChooseFormats)), "")
    vectors = outcome.decisions.vectors
    return formats_part(found, requests, outcome.compiled.bytes, quality.outputs, vectors, bounded)


def _gates(outcome: Outcome) -> GatesPart:
    options = outcome.job.options
    asked = {
        "min-sqnr": options.min_sqnr, "min-agreement": options.min_agreement, "max-fallback": options.max_fallback
    }  # fmt: skip
    return GatesPart({name: float(value) for name, value in asked.items() if value is not None}, True, outcome.misses)


def _warnings(outcome: Outcome) -> Iterator[str]:
    yield from outcome.samples.warnings
    yield from build.pass_warnings(outcome.records)
    yield from build.quality_warnings(outcome.quality)
    if outcome.predicted is not None:
        yield from outcome.predicted.warnings
    if outcome.decisions.coverage is None:
        yield "nothing was quantized: this pipeline places no Q/DQ nodes"
    job = outcome.job
    if (reason := why_not_lowered(job.options, job.target.lowering, job.pipeline.passes)) is not None:
        yield reason
    if (fall := outcome.fall) is not None:
        metric = outcome.job.metric
        unit = f" {metric.unit}" if metric.unit else ""
        yield f"{metric.name} fell most in the pass {fall.text}: from {fall.before:.6g} to {fall.after:.6g}{unit}"


def _unmeasured(outcome: Outcome) -> Iterator[UnmeasuredPart]:
    if outcome.latency is None:
        yield UnmeasuredPart("latency", outcome.latency_reason)
    if outcome.job.costs is not None and outcome.predicted is None:
        yield UnmeasuredPart("predicted latency", "a cost table is about integer operators: use --lowering integer")
    if outcome.samples.evaluation.labels is None:
        yield UnmeasuredPart("top1", "the evaluation data has no labels")


def _number(value: float) -> float | None:
    return value if value == value else None
