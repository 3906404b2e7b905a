"""From ``--pipeline`` and the options that touch it to the passes that run."""

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

__all__ = ["choose_pipeline"]

_DEFAULT = "default"


def choose_pipeline(options: CompileOptions) -> Pipeline:
    """The checked pipeline of a request.

    Raises:
        PipelineError: A pass is unknown, its options are wrong, or the order cannot work.
        UsageError: An option has no pass to act on.
    """
    from qcompiler.pipeline.manager import Pipeline

    passes = _passes(options.pipeline)
    if options.plan is not None:
        passes = _with_plan(passes, Path(options.plan))
    if options.calibration_method is not None:
        method = options.calibration_method
        passes = _changed(passes, "calibrate", "--calibration-method", lambda item: _with_method(item, method))
    if not options.bias_correction:
        passes = tuple(item for item in passes if item.name != "correct-bias")
    return Pipeline(passes)


def _passes(chosen: PipelineSpec | None) -> tuple[Pass, ...]:
    from qcompiler.pipeline import spec

    if chosen is not None and not isinstance(chosen, str | Path):
        return tuple(chosen)
    return spec.resolve(str(chosen if chosen is not None else _DEFAULT))


def _with_plan(passes: tuple[Pass, ...], plan: Path) -> tuple[Pass, ...]:
    """The pipeline in which the plan stands where formats are assigned."""
    from qcompiler.passes.allocate.apply_plan import ApplyPlan

    return _changed(passes, "assign-formats", "--plan", lambda _: ApplyPlan(path=str(plan)))


def _with_method(item: Any, method: str) -> Pass:
    changed: Pass = replace(item, method=method)
    return changed


def _changed(passes: tuple[Pass, ...], name: str, option: str, change: Callable[[Pass], Pass]) -> tuple[Pass, ...]:
    if all(item.name != name for item in passes):
        raise UsageError(f"{option} needs the pass '{name}', which this pipeline does not have")
    return tuple(change(item) if item.name == name else item for item in passes)
