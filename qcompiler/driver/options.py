"""What a user can ask for, checked as soon as it is said.

``CompileOptions`` is the one list of options: every command-line option and every argument of
``qcompiler.compile`` is a field here. Nothing heavy is imported, so that a wrong word is refused in milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from qcompiler.calibration.selectors import parse_all
from qcompiler.errors import UsageError, nearest

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from qcompiler.pipeline.base import Pass

__all__ = [
    "CALIBRATION_METHODS",
    "EFFORTS",
    "LOWERINGS",
    "METRICS",
    "VERIFY_LEVELS",
    "BudgetSpec",
    "CompileOptions",
    "DataSpec",
    "ModelSpec",
    "PipelineSpec",
    "Progress",
]

VERIFY_LEVELS = ("off", "facts", "numerics")
CALIBRATION_METHODS = ("minmax", "moving-average", "percentile", "mse", "entropy")
EFFORTS = ("quick", "normal", "high")
LOWERINGS = ("qdq", "integer")
METRICS = ("sqnr", "cosine", "kl", "agreement", "top1")

ModelSpec: TypeAlias = "str | Path | onnx.ModelProto | ir.Model"
DataSpec: TypeAlias = "str | Path | Iterable[Mapping[str, Any]]"
BudgetSpec: TypeAlias = "str | Mapping[str, str | float]"
PipelineSpec: TypeAlias = "str | Path | Iterable[Pass]"
Progress: TypeAlias = Callable[[str, int, int], None]


@dataclass(frozen=True)
class CompileOptions:
    """One compile request.

    Attributes:
        model: Path of an ONNX file, name of a shipped sample, or a model in memory.
        target: Name of a shipped profile or path of a profile file.
        calibration: Samples to fit on: ``.npz``, folder, an iterable of feeds, ``generator:FILE.py:FUNCTION``, ``none``
            (synthesised from the statistics in the model) or ``random``.
        select: Which of them: ``outliers``, ``clusters:N``, ``stratify:INPUT[:N]``, one after the other.
        evaluation: Samples to judge by; ``None`` holds out the last eighth of the calibration samples.
        format: Format name such as ``w8a8`` with modifiers; ``None`` takes the profile's default. Beside a
            plan: what nodes follow that it leaves open.
        candidates: Formats among which one is chosen for every layer, within ``budget``; a single one is ``format``.
        budget: What the compiled model may take: ``size=0.25x,latency=2ms,loss=0.05``, or as a mapping
            ``{"size": "0.25x", "loss": 0.05}``, which becomes such a text.
        sensitivity: Metric that predicts what a layer loses in a candidate format.
        pairs: Whether what neighbouring layers lose together is measured as well.
        exempt: Rules by which layers keep the widest candidate: ``first-last``, ``tiny``, ``spikes``.
        pareto: Where to write plans for other budgets; without ``budget``, plans for all sizes and no model
            (``qcompiler.front``).
        lowering: Form of the quantized graph: ``qdq`` (float operators between DequantizeLinear and QuantizeLinear) or
            ``integer`` (operators of ``ai.qcompiler`` on codes); ``None`` is the profile's.
        exclude: Nodes to leave in float: names, operator types, ``re:PATTERN``.
        pipeline: Pipeline text, TOML file, named pipeline or passes; ``None`` takes the default pipeline.
        plan: A ``plan.json`` to apply instead of deciding formats and ranges.
        output: Where the compiled model goes; ``None`` is ``MODEL.TARGET.onnx`` in the current folder.
        report: Where to write the report as JSON.
        plan_out: Where to write the decisions.
        depfile: Where to write the inputs that were read, in Make syntax.
        metric: The figure that is reported first, that ``bisect`` follows and a budget of the loss is of; ``None`` is
            ``sqnr``, and for a budget of the loss divergence of scores and one minus the cosine of embeddings.
        calibration_method: Observer of activations; ``None`` keeps the pipeline's choice.
        bias_correction: Whether ``correct-bias`` runs.
        effort: How much the default pipeline tries: ``quick`` nothing, ``normal`` transforms and roundings that are
            kept where they gain on samples left out, ``high`` more of them on more samples.
        jobs: Threads that a run of the model may use; 0 takes all processors.
        workers: Processes that measure what layers lose in candidate formats; 0 is this one.
        executor: A cluster that does so instead: ``dask://HOST:PORT``, ``ray`` or ``ray://HOST:PORT``.
        verify: What is checked after each pass: ``off``, ``facts`` or ``numerics``.
        cost_table: What operators cost on a machine, as ``qcompiler profile`` measured it: the report then predicts
            the latency there.
        latency: Whether the latency of both models is measured (where the target is this machine).
        dump_dir: Folder for the model after each pass that changed it.
        repro_dir: Folder for a reproducer, should a pass fail.
        bisect: Whether to measure ``metric`` after each pass and name the one after which it fell.
        cache_dir: Folder of the calibration cache; ``None`` is the user's cache folder.
        cache: Whether calibration results are kept and reused.
        plugins: Python files with further passes or metrics.
        min_sqnr: Gate: least signal-to-quantization-noise ratio of any output, in dB.
        min_agreement: Gate: least agreement with the float model, in percent.
        max_fallback: Gate: greatest share of the multiply-accumulates left in float, in percent.
        keep: Whether the output is kept although a gate is not met.
        limit: Greatest number of samples taken from each data set.
        preprocessing: How images become inputs, as TOML file or text.
        seed: Seed of everything drawn at random: made-up samples, first centres of clusters.
    """

    model: ModelSpec
    target: str | Path
    calibration: DataSpec | None = None
    select: tuple[str, ...] = ()
    evaluation: DataSpec | None = None
    format: str | None = None
    candidates: tuple[str, ...] = ()
    budget: BudgetSpec | None = None
    sensitivity: str | None = None
    pairs: bool = False
    exempt: tuple[str, ...] = ()
    pareto: str | Path | None = None
    lowering: str | None = None
    exclude: tuple[str, ...] = ()
    pipeline: PipelineSpec | None = None
    plan: str | Path | None = None
    output: str | Path | None = None
    report: str | Path | None = None
    plan_out: str | Path | None = None
    depfile: str | Path | None = None
    metric: str | None = None
    calibration_method: str | None = None
    bias_correction: bool = True
    effort: str = "normal"
    jobs: int = 0
    workers: int = 0
    executor: str | None = None
    verify: str = "facts"
    cost_table: str | Path | None = None
    latency: bool = True
    dump_dir: str | Path | None = None
    repro_dir: str | Path | None = None
    bisect: bool = False
    cache_dir: str | Path | None = None
    cache: bool = True
    plugins: tuple[str | Path, ...] = ()
    min_sqnr: float | None = None
    min_agreement: float | None = None
    max_fallback: float | None = None
    keep: bool = False
    limit: int | None = None
    preprocessing: str | Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("exclude", "plugins", "select"):
            value = getattr(self, name)
            # One selector or file may be given as it is; a string is not a list of letters.
            object.__setattr__(self, name, (value,) if isinstance(value, str | Path) else tuple(value))
        object.__setattr__(self, "candidates", _texts("candidates", self.candidates))
        object.__setattr__(self, "exempt", _texts("exempt", self.exempt))
        object.__setattr__(self, "budget", _budget_text(self.budget))
        parse_all(self.select)
        _known("verify", self.verify, VERIFY_LEVELS)
        _known("effort", self.effort, EFFORTS)
        if self.lowering is not None:
            _known("lowering", self.lowering, LOWERINGS)
        if self.calibration_method is not None:
            _known("calibration-method", self.calibration_method, CALIBRATION_METHODS)
        _at_least("jobs", self.jobs, 0)
        _at_least("workers", self.workers, 0)
        _at_least("limit", self.limit, 1)
        _at_least("seed", self.seed, 0)
        _percent("min-agreement", self.min_agreement)
        _percent("max-fallback", self.max_fallback)
        if self.min_sqnr is not None and math.isnan(self.min_sqnr):
            raise UsageError("--min-sqnr is not a number")

    @property
    def front_alone(self) -> bool:
        """Whether plans for all sizes are asked for, and no model."""
        return len(self.candidates) > 1 and self.budget is None and self.pareto is not None

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of all options, in order."""
        return tuple(field.name for field in fields(cls))


def _texts(option: str, given: str | Iterable[str] | None) -> tuple[str, ...]:
    """Words, given as one text with commas or as several."""
    texts = [text.strip() for text in (given.split(",") if isinstance(given, str) else given or ())]
    if not all(texts):
        raise UsageError(f"--{option} '{','.join(texts)}' has an empty item", hint="write A,B,… or leave it out")
    return tuple(dict.fromkeys(texts))


def _budget_text(given: str | Mapping[str, str | float] | None) -> str | None:
    """Budgets as one text."""
    if given is None or isinstance(given, str):
        return given
    if not isinstance(given, Mapping):
        raise UsageError(
            f"a budget is text or a mapping, not {type(given).__name__}", where="budget",
            hint="write 'size=0.25x,latency=2ms', or {'size': '0.25x', 'latency': 0.002}",
        )  # fmt: skip
    return ",".join(f"{resource}={amount}" for resource, amount in given.items())


def _known(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        hint = nearest(value, known) or f"one of {', '.join(known)}"
        raise UsageError(f"--{option} '{value}' is not known", hint=hint)


def _at_least(option: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise UsageError(f"--{option} {value} is less than {least}")


def _percent(option: str, value: float | None) -> None:
    if value is not None and not 0 <= value <= 100:
        raise UsageError(f"--{option} {value} is not a percentage between 0 and 100")
