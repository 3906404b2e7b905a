"""Run passes in order: checked before the first one starts, recorded and watched while they run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import onnx_ir as ir

from qcompiler.errors import PassError, PipelineError, QCompilerError
from qcompiler.ir import io
from qcompiler.ir.collector import collector_paused
from qcompiler.pipeline.base import Context, Fact, Pass, PassRecord

__all__ = ["Instrument", "Pipeline"]


class Instrument(Protocol):
    """Something that watches a pipeline run. All methods are called; inherit to get empty ones."""

    def before(self, pass_: Pass, model: ir.Model, ctx: Context) -> None:
        """Called before each pass."""

    def after(self, pass_: Pass, model: ir.Model, ctx: Context, record: PassRecord) -> None:
        """Called after each pass that succeeded, in the order of the instruments; it may raise."""

    def failed(self, pass_: Pass, model: ir.Model, ctx: Context, error: BaseException) -> None:
        """Called when a pass, or an instrument after it, raised. The model is in whatever state that left it."""


@dataclass(frozen=True)
class Pipeline:
    """A sequence of passes that is known to fit together.

    Attributes:
        passes: The passes in order.
        given: Facts that hold before the first pass.

    Raises:
        PipelineError: A pass requires a fact that nothing before it provides, or that a pass in between destroyed; or
            it comes too late, behind a fact that it must come before.
    """

    passes: tuple[Pass, ...]
    given: frozenset[Fact] = field(default=frozenset())

    def __post_init__(self) -> None:
        holds = set(self.given)
        destroyed: dict[Fact, str] = {}
        reached: dict[Fact, tuple[int, Pass]] = {}
        for position, pass_ in enumerate(self.passes):
            for fact in sorted(pass_.requires - holds):
                raise _missing(fact, pass_, self.passes[position + 1 :], destroyed.get(fact))
            for fact in sorted(pass_.before & reached.keys()):
                raise _too_late(pass_, position, *reached[fact])
            reached |= dict.fromkeys(pass_.provides - reached.keys(), (position, pass_))
            destroyed |= dict.fromkeys(pass_.invalidates & holds, pass_.name)
            holds = (holds - pass_.invalidates) | pass_.provides

    def run(
        self, model: ir.Model, ctx: Context, instruments: Sequence[Instrument] = (), *, until: str = ""
    ) -> list[PassRecord]:
        """Run every pass on ``model`` in place.

        Args:
            model: The model; ``ctx.edit`` must be an edit of it.
            ctx: What the passes may use; its ``records`` grow by one per pass.
            instruments: Observers, called in this order.
            until: Name of a pass to stop behind; to it the others follow all the same. Empty runs all.

        Returns:
            One record per pass that ran.

        Raises:
            PassError: A pass failed for a reason it did not foresee.
            QCompilerError: A pass or an instrument refused; it keeps its own type.
        """
        first = len(ctx.records)
        with collector_paused():
            for position, pass_ in enumerate(self.passes):
                ctx.progress("passes", position, len(self.passes))
                ctx.following = self.passes[position + 1 :]
                _run_one(pass_, model, ctx, instruments)
                io.release(model)
                if pass_.name == until:
                    break
            ctx.progress("passes", len(self.passes), len(self.passes))
        return ctx.records[first:]


def _run_one(pass_: Pass, model: ir.Model, ctx: Context, instruments: Sequence[Instrument]) -> None:
    """Run one pass between the calls of its observers; a failure is told to all of them."""
    from qcompiler.pipeline.spec import to_text

    record = PassRecord(to_text((pass_,)))
    ctx.records.append(record)
    try:
        for instrument in instruments:
            instrument.before(pass_, model, ctx)
        edits, start = ctx.edit.count, time.perf_counter()
        try:
            pass_.run(model, ctx)
        finally:
            record.seconds = time.perf_counter() - start
            record.edits = ctx.edit.count - edits
        for instrument in instruments:
            instrument.after(pass_, model, ctx, record)
    except BaseException as error:
        for instrument in instruments:
            instrument.failed(pass_, model, ctx, error)
        if isinstance(error, QCompilerError):
            error.where = f"pass {pass_.name}, {error.where}" if error.where else f"pass {pass_.name}"
            raise
        if isinstance(error, Exception):
            text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise PassError(
                f"the pass failed: {text}", where=f"pass {pass_.name}",
                hint="this is a fault of the pass; the reproducer folder holds what it takes to repeat it",
            ) from error
        raise


def _missing(fact: Fact, pass_: Pass, later: Sequence[Pass], destroyer: str | None) -> PipelineError:
    """Why the pipeline cannot work, and which pass would cure it."""
    reason = f"destroyed by '{destroyer}' before it" if destroyer else "and nothing before it provides that"
    providers = [other.name for other in later if fact in other.provides]
    hint: str | None
    if providers:
        hint = f"move '{providers[0]}' before '{pass_.name}'"
    else:
        from qcompiler.pipeline.registry import known

        names = sorted(name for name, cls in known().items() if fact in cls.provides and name != pass_.name)
        hint = f"put one of these before it: {', '.join(names)}" if names else None
    return PipelineError(f"'{pass_.name}' requires the fact '{fact.value}', {reason}", where="pipeline", hint=hint)


def _too_late(pass_: Pass, position: int, reached: int, provider: Pass) -> PipelineError:
    """A pass that would do nothing, or harm, where it stands."""
    places = f"'{pass_.name}' (pass {position + 1})", f"'{provider.name}' (pass {reached + 1})"
    return PipelineError(
        f"{places[0]} comes too late behind {places[1]}",
        where="pipeline", hint=f"move '{pass_.name}' before '{provider.name}'",
    )  # fmt: skip
