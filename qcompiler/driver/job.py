"""A request with every word resolved: what will really be done, before any work.

Resolving reads the profile, the pipeline and the plugins, so everything that can be refused for what it says is
refused here; the model and the data are not opened yet.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from qcompiler.calibration.generators import PREFIX, generator_file
from qcompiler.driver.options import CompileOptions, DataSpec
from qcompiler.driver.pipeline_choice import check_lowering, choose_pipeline, effort_of, lowering_of
from qcompiler.driver.plugins import load_plugins
from qcompiler.driver.side_files import check_side_files
from qcompiler.driver.source import Source
from qcompiler.errors import DataError, UsageError
from qcompiler.quant import plan_file

if TYPE_CHECKING:
    from qcompiler.analysis.cost_table import CostTable
    from qcompiler.analysis.metrics import Metric
    from qcompiler.pipeline.manager import Pipeline
    from qcompiler.target.formats import FormatRequest
    from qcompiler.target.schema import Target

__all__ = ["Job", "default_cache_dir", "is_generator", "is_none", "is_random", "resolve"]

_ECHOED = ("limit", "min_sqnr", "min_agreement", "max_fallback", "preprocessing", "plan", "dump_dir", "repro_dir",
           "cost_table", "budget", "sensitivity", "pareto", "executor")  # fmt: skip

_RANDOM = "random"
"""The word that asks for random calibration samples."""

_NONE = "none"
"""The word that asks for a compile without data: samples are synthesised from the model."""


@dataclass(frozen=True)
class Job:
    """A resolved request.

    Attributes:
        options: The request.
        source: The float model.
        target: The profile.
        format: The format asked for, or the profile's default.
        pipeline: The passes that will run.
        metric: The figure reported first.
        calibration: Samples to fit on.
        evaluation: Samples to judge by; ``None`` holds out some of ``calibration``, or takes all if nothing is fitted.
        output: Where the compiled model goes.
        cache_dir: Where calibration results are kept; ``None`` keeps none.
        costs: What operators cost on a machine; ``None`` predicts nothing.
    """

    options: CompileOptions
    source: Source
    target: Target
    format: FormatRequest
    pipeline: Pipeline
    metric: Metric
    calibration: DataSpec | None
    evaluation: DataSpec | None
    output: Path
    cache_dir: Path | None
    costs: CostTable | None = None

    @property
    def lowering(self) -> str:
        """The form in which the quantized graph is written: ``qdq`` or ``integer``."""
        return lowering_of(self.pipeline.passes)

    @property
    def fits(self) -> bool:
        """Whether anything is fitted on samples: weights alone need none, and are rounded better with some."""
        if _must_fit(self.options, self.format):
            return True
        own = self.options.pipeline not in (None, "default")
        return self.calibration is not None and not (is_random(self.calibration) or is_none(self.calibration)) and (
            own or effort_of(self.pipeline.passes) != "quick"
        )

    def effective(self) -> dict[str, str]:
        """The configuration in force, by option name, as text to echo and to report."""
        options = self.options
        shown = {
            "model": self.source.text,
            "target": f"{self.target.name}: {self.target.title}",
            "format": self._format_text(),
            "lowering": self._lowering_text(),
            "calibration": self._calibration_text(),
            "evaluation": self._evaluation_text(),
            "pipeline": self._pipeline_text(),
            "calibration-method": self._method_text(),
            "effort": effort_of(self.pipeline.passes),
            "bias-correction": "yes" if any(item.name == "correct-bias" for item in self.pipeline.passes) else "no",
            "metric": self.metric.name,
            "verify": options.verify,
            "output": "none: plans alone" if options.front_alone else str(self.output),
        }
        return shown | self._rest()

    def _format_text(self) -> str:
        options = self.options
        if len(options.candidates) > 1:
            return f"chosen among {', '.join(options.candidates)}"
        if self._mixed:
            return f"mixed by the plan: {self._mixed} nodes; others {self.format.text}"
        own = options.format is None and not options.candidates and options.plan is None
        return f"{self.format.text}{' (default of the profile)' if own else ''}"

    @cached_property
    def _mixed(self) -> str:
        """How many nodes follow which format of the plan; empty where all follow that of the model."""
        from qcompiler.passes.allocate.layer_formats import counted
        from qcompiler.quant.plan import node_formats
        from qcompiler.report.words import counts_text

        plan = self.options.plan
        counts = counted(node_formats(plan_file.load(plan)).values() if plan is not None else ())
        return "" if set(counts) <= {self.format.text} else counts_text(counts)

    def _pipeline_text(self) -> str:
        from qcompiler.pipeline import spec

        chosen = self.options.pipeline
        if chosen is None:
            return "default"
        return str(chosen) if isinstance(chosen, str | Path) else spec.to_text(self.pipeline.passes)

    def _lowering_text(self) -> str:
        own_choice = self.options.lowering is None and self.options.pipeline in (None, "default")
        return f"{self.lowering}{' (default of the profile)' if own_choice else ''}"

    def _method_text(self) -> str:
        methods = [str(getattr(item, "method", "")) for item in self.pipeline.passes if item.name == "calibrate"]
        return ", ".join(methods) or "none"

    def _calibration_text(self) -> str:
        return _data_text(self.calibration, self.source) if self.fits else "not needed"

    def _evaluation_text(self) -> str:
        if self.fits:
            return "held out from calibration" if self.evaluation is None else _data_text(self.evaluation, self.source)
        given = self.evaluation if self.evaluation is not None else self.calibration
        return _RANDOM if given is None else _data_text(given, self.source)

    def _rest(self) -> dict[str, str]:
        """Options that were set, but do not always matter."""
        options = self.options
        rest: dict[str, str] = {}
        if options.exclude:
            rest["exclude"] = ", ".join(options.exclude)
        for name in _ECHOED:
            value = getattr(options, name)
            if value is not None:
                rest[name.replace("_", "-")] = str(value)
        if options.select:
            rest["select"] = ", ".join(options.select)
        if options.plugins:
            rest["plugin"] = ", ".join(str(path) for path in options.plugins)
        if options.bisect:
            rest["bisect"] = "yes"
        if options.workers:
            rest["workers"] = str(options.workers)
        made = is_random(self.calibration) or is_none(self.calibration) or is_generator(self.calibration)
        if options.select or made or self._evaluation_text() == _RANDOM:
            rest["seed"] = str(options.seed)
        return rest

    def read_files(self) -> list[Path]:
        """Files and folders that the result depends on, where they lie on disk."""
        options = self.options
        candidates = [
            None if self.source.temporary else self.source.path,
            self.calibration, self.evaluation, options.plan and plan_file.file_of(options.plan),
            options.preprocessing, options.pipeline, options.cost_table,
            options.target, *options.plugins,
        ]
        if is_generator(self.calibration):
            candidates.append(generator_file(str(self.calibration))[0])
        paths = [Path(item) for item in candidates if isinstance(item, str | Path)]
        return [path for path in paths if _exists(path)]


def resolve(options: CompileOptions, source: Source) -> Job:
    """Resolve every word of a request.

    Raises:
        UsageError: A word is unknown or two contradict each other.
        DataError: There is nothing to calibrate on.
    """
    from qcompiler.analysis.cost_table import load_table
    from qcompiler.analysis.quality import metric
    from qcompiler.driver.formats_asked import requested
    from qcompiler.target.load import load

    metrics = load_plugins(options.plugins)
    target = load(options.target)
    request = requested(options, target)
    calibration, evaluation = _data(options, source, target, fits=_must_fit(options, request))
    pipeline = choose_pipeline(options, target.lowering, request)
    check_lowering(pipeline.passes, target)
    output = _output(options, source, target.name)
    check_side_files(options, source.path, output)
    return Job(
        options=options,
        source=source,
        target=target,
        format=request,
        pipeline=pipeline,
        metric=metric(options.metric or "sqnr", metrics),
        calibration=calibration,
        evaluation=evaluation,
        output=output,
        cache_dir=_cache_dir(options),
        costs=load_table(options.cost_table) if options.cost_table is not None else None,
    )


def default_cache_dir() -> Path:
    """The user's cache folder, as the XDG base directory specification has it."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "qcompiler"


def is_random(data: DataSpec | None) -> bool:
    """Whether the data is asked for by the word ``random``; an array compares with no word."""
    return isinstance(data, str) and data == _RANDOM


def is_none(data: DataSpec | None) -> bool:
    """Whether the user has no data and says so."""
    return isinstance(data, str) and data == _NONE


def is_generator(data: DataSpec | None) -> bool:
    """Whether samples come from a Python function that the user names."""
    return isinstance(data, str) and data.startswith(PREFIX)


def _must_fit(options: CompileOptions, request: FormatRequest) -> bool:
    """Whether nothing can be done without samples: ranges are of samples, and so is what layers lose in candidates."""
    return not request.weight_only or len(options.candidates) > 1


def _data(
    options: CompileOptions, source: Source, target: Target, *, fits: bool
) -> tuple[DataSpec | None, DataSpec | None]:
    """Where samples come from; ``fits`` says whether anything is fitted on some."""
    calibration, evaluation = options.calibration, options.evaluation
    for name, given in (("calibration", calibration), ("evaluation", evaluation)):
        if isinstance(given, str) and not given.strip():
            raise UsageError(f"--{name} is empty", hint="name a file or a folder, or leave the option out")
    if source.sample is not None and calibration is None:
        calibration = source.sample.calibration
        evaluation = evaluation if evaluation is not None else source.sample.evaluation
    if calibration is None and fits and not (options.plan is not None and evaluation is not None):
        choice = len(options.candidates) > 1
        alone = [name for name in target.formats if "a" not in name]
        without = f"; weights alone need none: --format {' or '.join(alone)}" if alone else ""
        unknown = "what layers lose in each of the candidates" if choice else "ranges"
        raise DataError(
            f"there is no calibration data: {unknown} cannot be guessed",
            hint=f"give --calibration DATA (.npz, folder), --calibration none to have samples made from the model, or "
            f"--calibration random to try things out{without}",
        )
    if is_generator(calibration):
        generator_file(str(calibration))
    if is_none(evaluation) or is_generator(evaluation):
        raise UsageError(f"--evaluation {evaluation} proves nothing", hint="give real samples, or leave it out")
    if is_random(evaluation):
        hint = "leave it out: samples are held out from calibration"
        raise UsageError("--evaluation random proves nothing", hint=hint)
    return calibration, evaluation


def _output(options: CompileOptions, source: Source, target: str) -> Path:
    output = Path(options.output) if options.output is not None else Path(f"{source.stem}.{target}.onnx")
    if output.exists() and source.path.exists() and output.samefile(source.path):
        raise UsageError(f"the output '{output}' would replace the float model", hint="name another file with -o")
    return output


def _cache_dir(options: CompileOptions) -> Path | None:
    if not options.cache:
        return None
    return Path(options.cache_dir) if options.cache_dir is not None else default_cache_dir()


def _data_text(data: DataSpec | None, source: Source) -> str:
    if data is None:
        return "none"
    if is_none(data):
        return "none: samples made from the model"
    if source.sample is not None and data in (source.sample.calibration, source.sample.evaluation):
        return f"{Path(str(data)).name} (shipped with the sample)"
    return str(data) if isinstance(data, str | Path) else f"samples in memory ({type(data).__name__})"


def _exists(path: Path) -> bool:
    """Whether there is such a file; a name that is too long for one (pipeline text) is none."""
    try:
        return path.exists()
    except OSError:
        return False
