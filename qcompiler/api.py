"""The Python interface: ``compile`` does what the command ``qcompile`` does.

>>> import qcompiler
>>> result = qcompiler.compile("digits_cnn", "edge-npu", output="digits.onnx")
>>> result.report.quality.outputs[0].agreement
100.0
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qcompiler.driver.options import BudgetSpec, CompileOptions, DataSpec, ModelSpec, PipelineSpec, Progress
from qcompiler.errors import GateError, UsageError

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcompiler.driver.compile import Outcome
    from qcompiler.driver.front_alone import FrontFound
    from qcompiler.driver.job import Job
    from qcompiler.report import Report

__all__ = ["CompileResult", "compile", "compile_with", "front", "front_with"]


@dataclass(frozen=True)
class CompileResult:
    """What a compile gives back.

    Attributes:
        model: The compiled model; weights stay in its file until looked at.
        path: Its file.
        report: What was done, measured and not measured.
        plan: The decisions, as ``plan.json`` has them.
    """

    model: ir.Model = field(repr=False)
    path: Path
    report: Report = field(repr=False)
    plan: dict[str, Any] = field(repr=False)


def compile(  # noqa: A001, D417 -- the compiler's verb; the options are described where they are defined
    model: ModelSpec,
    target: str | Path,
    *,
    calibration: DataSpec | None = None,
    select: str | Sequence[str] = (),
    evaluation: DataSpec | None = None,
    format: str | None = None,  # noqa: A002 -- named like its option
    candidates: str | Sequence[str] = (),
    budget: BudgetSpec | None = None,
    sensitivity: str | None = None,
    pairs: bool = False,
    exempt: str | Sequence[str] = (),
    pareto: str | Path | None = None,
    lowering: str | None = None,
    exclude: str | Sequence[str] = (),
    pipeline: PipelineSpec | None = None,
    plan: str | Path | None = None,
    output: str | Path | None = None,
    report: str | Path | None = None,
    plan_out: str | Path | None = None,
    depfile: str | Path | None = None,
    metric: str | None = None,
    calibration_method: str | None = None,
    bias_correction: bool = True,
    effort: str = "normal",
    jobs: int = 0,
    workers: int = 0,
    executor: str | None = None,
    verify: str = "facts",
    cost_table: str | Path | None = None,
    latency: bool = True,
    dump_dir: str | Path | None = None,
    repro_dir: str | Path | None = None,
    bisect: bool = False,
    cache_dir: str | Path | None = None,
    cache: bool = True,
    plugins: str | Path | Sequence[str | Path] = (),
    min_sqnr: float | None = None,
    min_agreement: float | None = None,
    max_fallback: float | None = None,
    keep: bool = False,
    limit: int | None = None,
    preprocessing: str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> CompileResult:
    """Compile a float model for a target and prove that the result still works.

    Args:
        model: Path of an ONNX file, name of a shipped sample, or a model in memory (which is not changed).
        target: Name of a shipped profile or path of a profile file.
        progress: Called as ``progress(stage, done, total)``.

    The other arguments are the options of ``qcompile``; ``CompileOptions`` describes each.

    Raises:
        UsageError: The request cannot be right.
        GateError: The result misses a quality gate; ``error.report`` says by how much. The file exists only with
            ``keep``.
        QCompilerError: The work failed; nothing is left behind.
    """
    arguments = dict(locals())
    callback = arguments.pop("progress")
    return compile_with(CompileOptions(**arguments), progress=callback)


def compile_with(
    options: CompileOptions,
    *,
    progress: Progress | None = None,
    announce: Callable[[Job], None] | None = None,
) -> CompileResult:
    """Compile as ``options`` say.

    Args:
        options: The request.
        progress: Called as ``progress(stage, done, total)``.
        announce: Called with the resolved request before any work.

    Raises:
        QCompilerError: As ``compile``.
    """
    from qcompiler.driver.compile import execute
    from qcompiler.driver.reporting import report_of
    from qcompiler.ir import io

    if options.front_alone:
        raise UsageError(
            "without a budget there is no model to compile, only plans for all sizes",
            hint="give a budget, or call qcompiler.front",
        )
    with _resolved(options, announce) as job:
        outcome = execute(job, progress or _silent)
        report = report_of(outcome)
        _write_side_files(outcome, report)
    if outcome.misses:
        raise _missed(outcome, report)
    return CompileResult(io.load(job.output), job.output, report, outcome.decisions.plan)


def _missed(outcome: Outcome, report: Report) -> GateError:
    """The refusal of a result that misses a gate, with its report."""
    from qcompiler.analysis.gates import gate_error

    hint = None if outcome.published else "--keep writes the file all the same"
    error = gate_error(list(outcome.misses), where=str(outcome.job.output), hint=hint)
    error.report = report
    return error


def front(
    model: ModelSpec,
    target: str | Path,
    candidates: str | Sequence[str],
    pareto: str | Path,
    *,
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Find plans of formats for all sizes, from one calibration, and compile none of them.

    >>> points = qcompiler.front("digits_cnn", "lowbit-cpu", "w8a8,w4a8,w2a8", "plans.json")["points"]
    >>> result = qcompiler.compile("digits_cnn", "lowbit-cpu", plan="plans.json:3")

    Args:
        model: As for ``compile``.
        target: As for ``compile``.
        candidates: Formats among which one is chosen for every layer; at least two.
        pareto: The file that the plans are written to.
        progress: Called as ``progress(stage, done, total)``.
        options: Arguments of ``compile`` that are not about a compiled model, such as ``calibration``.

    Returns:
        What the file holds: ``points`` ascend in size and descend in predicted loss.

    Raises:
        QCompilerError: As ``compile``.
    """
    arguments = {**options, "model": model, "target": target, "candidates": candidates, "pareto": pareto}
    found: dict[str, Any] = json.loads(front_with(CompileOptions(**arguments), progress=progress).text)
    return found


def front_with(
    options: CompileOptions,
    *,
    progress: Progress | None = None,
    announce: Callable[[Job], None] | None = None,
) -> FrontFound:
    """Find plans for all sizes as ``options`` say. Arguments and errors as for ``compile_with``."""
    from qcompiler.driver.front_alone import find_front

    if not options.front_alone:
        raise UsageError(
            "plans for all sizes are chosen among candidates, without a budget",
            hint="give several candidates, and no budget; qcompiler.compile keeps one",
        )
    with _resolved(options, announce) as job:
        return find_front(job, progress or _silent)


@contextlib.contextmanager
def _resolved(options: CompileOptions, announce: Callable[[Job], None] | None) -> Iterator[Job]:
    """The job that is asked for, announced before any work; the model it reads is there while the block runs."""
    from qcompiler.driver.job import resolve
    from qcompiler.driver.source import open_source

    with open_source(options.model) as source:
        job = resolve(options, source)
        if announce is not None:
            announce(job)
        yield job


def _silent(stage: str, done: int, total: int) -> None:
    """Report nothing."""


def _write_side_files(outcome: Outcome, report: Report) -> None:
    """Report, plans and dependencies; all but the last also for a result that missed a gate: they say why."""
    from qcompiler.driver.depfile import depfile_text
    from qcompiler.driver.files import write_text
    from qcompiler.driver.fronts import front_text

    options = outcome.job.options
    if options.report is not None:
        write_text(Path(options.report), report.to_json())
    if options.pareto is not None and outcome.decisions.allocation is not None:
        write_text(Path(options.pareto), front_text(outcome.decisions.allocation, outcome.job.target.name))
    if options.plan_out is not None:
        write_text(Path(options.plan_out), json.dumps(outcome.decisions.plan, indent=1, ensure_ascii=False) + "\n")
    if options.depfile is not None and outcome.published:
        own = () if outcome.job.source.temporary else outcome.files
        write_text(Path(options.depfile), depfile_text(outcome.job.output, (*own, *outcome.job.read_files())))
