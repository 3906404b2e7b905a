"""What each layer of a model loses in each candidate format: the question of ``qcompiler sensitivity``.

The model is made ready by the passes that a compile runs before ``choose-formats``. ``choose-transforms`` alone is left
out: it compiles the model several times over to find out which transforms are worth keeping.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from qcompiler.driver.data import load_samples
from qcompiler.driver.job import resolve
from qcompiler.driver.options import CompileOptions, Progress
from qcompiler.driver.source import Source, find
from qcompiler.errors import DataError, UsageError, nearest

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcompiler.analysis.sensitivity import Cost, Sensitivity, Study
    from qcompiler.passes.allocate.groups import Grouping, TieGroup
    from qcompiler.pipeline.base import Context
    from qcompiler.target.schema import Target

__all__ = ["Estimate", "Question", "question", "ranking", "result_json"]

_LEFT_OUT: Final = "choose-transforms"
_CHOOSES: Final = "assign-formats"


@dataclass(frozen=True)
class Estimate:
    """What a metric would take.

    Attributes:
        metric: Its name.
        samples: Samples it runs; 0 where it looks at weights alone.
        cost: Runs, multiply-accumulates, seconds.
    """

    metric: str
    samples: int
    cost: Cost


@dataclass(frozen=True, eq=False)
class Question:
    """A model that is ready to be asked.

    Attributes:
        source: Where it came from.
        target: The profile.
        candidates: Format texts, widest first.
        model: The model, normalized and with widths chosen.
        ctx: What its passes were given, samples among it.
        grouping: What shares a decision.
        groups: The groups that are measured, in graph order: those that hold weights or have a choice.
        rounding: How weights are rounded.
        notes: What the reader must know.
        warnings: What the user must know.
    """

    source: Source
    target: Target
    candidates: tuple[str, ...]
    model: ir.Model
    ctx: Context
    grouping: Grouping
    groups: tuple[TieGroup, ...]
    rounding: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def estimates(self, samples: int | None = None) -> list[Estimate]:
        """What every metric would take; nothing is calibrated for it.

        Raises:
            UsageError: ``samples`` is less than 1.
        """
        from qcompiler.analysis.sensitivity import METRICS, estimate

        study = self._unprepared()
        return [Estimate(metric.name, *estimate(study, metric, samples)) for metric in METRICS]

    def answer(self, metric: str, samples: int | None = None, executor: Executor | None = None) -> Sensitivity:
        """Losses of every group under every candidate that it may follow.

        Args:
            metric: Name of a metric.
            samples: Samples to run; ``None`` leaves it to the metric.
            executor: Who measures; ``None`` does it here.

        Raises:
            UsageError: The metric is unknown, or cannot tell these candidates apart.
        """
        from qcompiler.analysis.sensitivity import sensitivity
        from qcompiler.passes.allocate.alternatives import added_notes, study_of
        from qcompiler.passes.allocate.roundings import rounding_named

        study = study_of(self.model, self.ctx, self.groups, rounding_named(self.rounding))
        found = sensitivity(
            study, metric, samples=samples, cache_dir=self.ctx.cache_dir, executor=executor, progress=self.ctx.progress
        )
        return replace(found, notes=(*found.notes, *added_notes(study.dataset, self.ctx.calibration)))

    def _unprepared(self) -> Study:
        """The study without its alternatives, which take a calibration."""
        from qcompiler.analysis.sensitivity import Study
        from qcompiler.passes.allocate.alternatives import study_samples

        if self.ctx.calibration is None:
            raise DataError("there are no samples to measure on", hint="give --calibration DATA")
        samples = study_samples(self.model, self.ctx.calibration, self.target, self.groups)
        options = {group.name: group.options for group in self.groups}
        nodes = {group.name: group.nodes for group in self.groups}
        weights = {group.name: group.weights for group in self.groups}
        return Study(self.model, samples, options, nodes, weights, _nothing, self.ctx.jobs)


def question(options: CompileOptions, rounding: str | None = None, progress: Progress | None = None) -> Question:
    """Make a model ready as a compile of the same options would.

    Args:
        options: Model, target, candidates (one or more), data; what concerns only the result is ignored.
        rounding: ``nearest`` or ``gptq``; ``None`` is what a compile would use.
        progress: Called as ``progress(stage, done, total)``.

    Raises:
        UsageError: A word is unknown, or nothing in the model follows a candidate.
        DataError: There are no samples.
    """
    from qcompiler.ir import io
    from qcompiler.passes.allocate.groups import tie_groups
    from qcompiler.passes.allocate.roundings import ROUNDINGS, rounding_ahead

    if rounding is not None and rounding not in ROUNDINGS:
        hint = nearest(rounding, ROUNDINGS) or f"one of {', '.join(ROUNDINGS)}"
        raise UsageError(f"--rounding '{rounding}' is not known", hint=hint)
    source, target, candidates = _resolved(options)
    model = io.load(source.path)
    widest = replace(options, candidates=(), format=candidates[0])
    ctx, notes, warnings = _made_ready(widest, source, model, progress)
    grouping = tie_groups(model, target, candidates, options.exclude)
    free = set(grouping.groups)
    groups = tuple(group for group in grouping.all if group in free or group.weights)
    chosen = rounding or rounding_ahead(model, grouping.groups or groups, ctx)
    return Question(source, target, candidates, model, ctx, grouping, groups, chosen, notes, warnings)


def ranking(found: Sensitivity) -> list[str]:
    """Groups from the one that loses most under any of its options."""
    return sorted(found.losses, key=lambda group: -max(found.losses[group].values()))


def result_json(asked: Question, found: Sensitivity) -> dict[str, Any]:
    """The answer as plain data.

    ``schema, model, target, candidates, rounding, ranking``, what ``Sensitivity.to_json`` gives, and ``refused``: nodes
    with weights that follow no candidate.
    """
    given, dataset = found.to_json(), asked.ctx.calibration
    own = () if dataset is None else dataset.notes
    return {
        "schema": 1, "model": asked.source.text, "target": asked.target.name, "candidates": list(asked.candidates),
        "rounding": asked.rounding, **given, "notes": [*given["notes"], *own, *asked.notes], "ranking": ranking(found),
        "refused": dict(asked.grouping.refused),
    }  # fmt: skip


def _resolved(options: CompileOptions) -> tuple[Source, Target, tuple[str, ...]]:
    from qcompiler.target.formats import widest_first
    from qcompiler.target.load import load

    target = load(options.target)
    if not options.candidates:
        raise UsageError("there are no candidates", hint=f"--candidates A,B,…; {target.name} offers {_list(target)}")
    if not isinstance(options.model, str):
        raise UsageError("the model must be a file or a shipped sample")
    return find(options.model), target, widest_first(target, options.candidates)


def _list(target: Target) -> str:
    return ", ".join(target.formats)


def _made_ready(
    options: CompileOptions, source: Source, model: ir.Model, progress: Progress | None
) -> tuple[Context, tuple[str, ...], tuple[str, ...]]:
    """Run on ``model`` what a compile runs before formats are chosen."""
    from qcompiler.ir.edit import Edit
    from qcompiler.pipeline.base import Context
    from qcompiler.pipeline.manager import Pipeline

    job = resolve(options, source)
    if job.calibration is None:  # a format of weights alone needs none, but what it loses does
        hint = "give --calibration DATA (.npz, folder), or --calibration none to have samples made from the model"
        raise DataError("there are no samples to measure on", hint=hint)
    samples = load_samples(job, model, fits=True)
    ctx = Context(
        edit=Edit(model), target=job.target, format=job.format.text, calibration=samples.calibration,
        exclude=options.exclude, cache_dir=job.cache_dir, jobs=options.jobs, baseline_path=source.path,
    )  # fmt: skip
    if progress is not None:
        ctx.progress = progress
    passes = job.pipeline.passes
    place = next(index for index, item in enumerate(passes) if item.name == _CHOOSES)
    before = tuple(item for item in passes[:place] if item.name != _LEFT_OUT)
    records = Pipeline(before).run(model, ctx)
    ctx.following = passes[place:]
    warnings = [note.text for record in records for note in record.notes if note.level == "warning"]
    left_out = any(item.name == _LEFT_OUT for item in passes[:place])
    text = f"{_LEFT_OUT} did not run: losses are those of the model without the transforms that a compile may keep"
    return ctx, (*samples.notes, *((text,) if left_out else ())), (*samples.warnings, *warnings)


def _nothing(_choice: object) -> Any:
    raise AssertionError("an estimate needs no alternative")
