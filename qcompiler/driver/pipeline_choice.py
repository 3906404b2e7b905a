"""From ``--pipeline`` and the options that touch it to the passes that run.

The form of the quantized graph (``--lowering``, by default what the profile says) decides whether the passes of the
pipeline ``lower`` run behind ``place-qdq``. A weight-only format has a pipeline and a lowering of its own. A
pipeline that the user wrote is left as it is unless ``--lowering`` is given beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qcompiler.errors import UsageError

if TYPE_CHECKING:
    from qcompiler.driver.options import CompileOptions, PipelineSpec
    from qcompiler.pipeline.base import Pass
    from qcompiler.pipeline.manager import Pipeline
    from qcompiler.target.formats import FormatRequest
    from qcompiler.target.integer import Lowering
    from qcompiler.target.schema import Target

__all__ = ["check_lowering", "choose_pipeline", "effort_of", "lowering_of", "why_not_lowered"]

_DEFAULT = "default"
_WEIGHT_ONLY = "weight-only"
_LOWER = "lower"
_LOWERS = "lower-integer"
_LOWERS_WEIGHTS = "lower-weight-only"
_CHOOSES_LOGS = "choose-log-formats"
_RECIPE = ("choose-transforms", "choose-rounding")
_POINTS = 16
"""Plans of a front."""


def choose_pipeline(options: CompileOptions, profile: Lowering, request: FormatRequest) -> Pipeline:
    """The checked pipeline of a request.

    Args:
        options: The request.
        profile: The form that the profile of the target asks for.
        request: The format asked for.

    Raises:
        PipelineError: A pass is unknown, its options are wrong, or the order cannot work.
        UsageError: An option has no pass to act on.
    """
    from qcompiler.pipeline.manager import Pipeline

    chosen = _passes(options.pipeline, _WEIGHT_ONLY if request.weight_only else _DEFAULT)
    chosen = _with_effort(chosen, options)
    passes = _lowered(chosen, options, profile, _LOWERS_WEIGHTS if request.weight_only else _LOWER)
    if len(options.candidates) > 1:
        passes = _choosing(passes, options)
    if options.plan is not None:
        passes = _with_plan(passes, Path(options.plan))
    if options.calibration_method is not None:
        method = options.calibration_method
        passes = _changed(passes, "calibrate", "--calibration-method", lambda item: _with_method(item, method))
    if request.log is not None and options.format is not None and not _has(passes, _CHOOSES_LOGS):
        raise UsageError(
            f"log{request.log.bits} in --format needs the pass '{_CHOOSES_LOGS}', which this pipeline does not have",
            hint=f"put '{_CHOOSES_LOGS}' behind 'assign-formats', or leave that part of the format out",
        )
    if not options.bias_correction:
        passes = tuple(item for item in passes if item.name != "correct-bias")
    return Pipeline(passes)


def effort_of(passes: tuple[Pass, ...]) -> str:
    """How much a pipeline tries; what a plan says was kept is repeated, not tried."""
    trying = (item for item in passes if item.name in _RECIPE and not getattr(item, "plan", ""))
    return next((str(getattr(item, "effort", "normal")) for item in trying), "quick")


def _with_effort(passes: tuple[Pass, ...], options: CompileOptions) -> tuple[Pass, ...]:
    """The pipeline that tries as much as asked for; passes that the user wrote keep the effort written there."""
    if options.effort == "normal":
        return passes
    if not any(_has(passes, name) for name in _RECIPE):
        raise UsageError(
            f"--effort {options.effort} needs one of the passes {', '.join(_RECIPE)}, which are not there",
            hint="leave the option out",
        )
    if options.effort == "quick":
        if options.plan is not None and not _formats_alone(Path(options.plan)):  # what it kept is applied all the same
            return tuple(item for item in passes if item.name != "choose-rounding")
        return tuple(item for item in passes if item.name not in _RECIPE)
    return tuple(_tries(item, options.effort) if item.name in _RECIPE else item for item in passes)


def _tries(item: Any, effort: str) -> Pass:
    changed: Pass = replace(item, effort=effort)
    return changed


def lowering_of(passes: tuple[Pass, ...]) -> str:
    """The form in which a pipeline leaves the quantized graph."""
    return "integer" if _has(passes, _LOWERS) or _has(passes, _LOWERS_WEIGHTS) else "qdq"


def why_not_lowered(options: CompileOptions, profile: Lowering, passes: tuple[Pass, ...]) -> str | None:
    """What the user must know of a pipeline of their own that ends in Q/DQ form where the profile asks for integers."""
    own = options.pipeline is not None and options.pipeline != _DEFAULT
    if not own or options.lowering is not None or profile != "integer" or not _has(passes, "place-qdq"):
        return None
    if lowering_of(passes) == "integer":
        return None
    return (
        "this pipeline ends in Q/DQ form, and the target runs integer operators: --lowering integer adds the passes "
        "that write them, --lowering qdq says that Q/DQ is wanted"
    )


def check_lowering(passes: tuple[Pass, ...], target: Target) -> None:
    """Refuse early what legality would refuse after all the work.

    Raises:
        UsageError: Integer operators work on signed codes, and the target takes none.
    """
    forms = [form for rule in target.operators.values() for form in rule.activations]
    if _has(passes, _LOWERS) and forms and not any(form.signed for form in forms):
        raise UsageError(
            f"integer operators work on signed codes, {target.name} takes {', '.join(dict.fromkeys(map(str, forms)))}",
            where="--lowering integer", hint="--lowering qdq writes what this target takes",
        )  # fmt: skip


def _lowered(passes: tuple[Pass, ...], options: CompileOptions, profile: Lowering, lower: str) -> tuple[Pass, ...]:
    """The pipeline with or without integer lowering, as asked for."""
    from qcompiler.pipeline import spec

    asked = options.lowering
    own = options.pipeline is not None and options.pipeline != _DEFAULT
    if any(_has(passes, name) for name in (_LOWERS, _LOWERS_WEIGHTS)):
        if asked == "qdq":
            raise UsageError(
                f"--lowering qdq contradicts the pipeline, which has the pass '{_LOWERS}'",
                hint="leave out one of them",
            )
        return passes
    if (asked or ("qdq" if own else str(profile))) == "qdq":
        return passes
    if not _has(passes, "place-qdq"):
        raise UsageError(
            "--lowering integer needs the pass 'place-qdq', which this pipeline does not have",
            hint=f"'{_LOWERS}' turns what it places into integer operators",
        )
    end = 1 + max(index for index, item in enumerate(passes) if item.name == "place-qdq")
    return (*passes[:end], *spec.resolve(lower), *passes[end:])


def _has(passes: tuple[Pass, ...], name: str) -> bool:
    return any(item.name == name for item in passes)


def _passes(chosen: PipelineSpec | None, default: str) -> tuple[Pass, ...]:
    from qcompiler.pipeline import spec

    if chosen is not None and not isinstance(chosen, str | Path):
        return tuple(chosen)
    return spec.resolve(default if chosen in (None, _DEFAULT) else str(chosen))


def _with_plan(passes: tuple[Pass, ...], plan: Path) -> tuple[Pass, ...]:
    """The pipeline in which the plan stands where formats are assigned, or before where it says no more than those."""
    from qcompiler.passes.allocate.apply_plan import ApplyPlan
    from qcompiler.passes.allocate.choose_formats import ChooseFormats

    if _formats_alone(plan):
        return _before_formats(passes, ChooseFormats(plan=str(plan)), "--plan")
    follows = ("fit-powers-of-two", "choose-transforms")
    passes = tuple(_with_factors(item, plan) if item.name in follows else item for item in passes)
    # A plan's scales stay: only codes may be chosen anew.
    passes = tuple(_codes_only(item) if item.name == "choose-rounding" else item for item in passes)
    passes = tuple(_open_only(item) if item.name == "choose-log-formats" else item for item in passes)
    return _changed(passes, "assign-formats", "--plan", lambda _: ApplyPlan(path=str(plan)))


def _formats_alone(plan: Path) -> bool:
    from qcompiler.quant import plan as plans
    from qcompiler.quant import plan_file

    return plans.formats_alone(plan_file.load(str(plan)))


def _choosing(passes: tuple[Pass, ...], options: CompileOptions) -> tuple[Pass, ...]:
    """The pipeline with a pass that chooses among candidates, before formats are assigned."""
    from qcompiler.passes.allocate.choose_formats import ChooseFormats
    from qcompiler.passes.allocate.exemptions import parse_rules

    chooses = ChooseFormats(
        candidates=options.candidates,
        budget=str(options.budget or ""),
        sensitivity=options.sensitivity or ChooseFormats.sensitivity,
        pairs=options.pairs,
        metric=options.metric or "",
        exempt=parse_rules(",".join(options.exempt)),
        cost_table=str(options.cost_table or ""),
        points=_POINTS if options.pareto is not None else 0,
    )
    return _before_formats(passes, chooses, "--candidates")


def _before_formats(passes: tuple[Pass, ...], item: Pass, option: str) -> tuple[Pass, ...]:
    place = next((index for index, other in enumerate(passes) if other.name == "assign-formats"), None)
    if place is None:
        raise UsageError(f"{option} needs the pass 'assign-formats', which this pipeline does not have")
    return (*passes[:place], item, *passes[place:])


def _codes_only(item: Any) -> Pass:
    changed: Pass = replace(item, candidates=("round-gptq",))
    return changed


def _open_only(item: Any) -> Pass:
    changed: Pass = replace(item, open_only=True)
    return changed


def _with_factors(item: Any, plan: Path) -> Pass:
    changed: Pass = replace(item, plan=str(plan))
    return changed


def _with_method(item: Any, method: str) -> Pass:
    changed: Pass = replace(item, method=method)
    return changed


def _changed(passes: tuple[Pass, ...], name: str, option: str, change: Callable[[Pass], Pass]) -> tuple[Pass, ...]:
    if not _has(passes, name):
        raise UsageError(f"{option} needs the pass '{name}', which this pipeline does not have")
    return tuple(change(item) if item.name == name else item for item in passes)
