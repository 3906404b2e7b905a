"""Pipelines are checked when built, recorded while they run, and told apart when they fail."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
import pytest

from qcompiler.errors import DataError, PassError, PipelineError
from qcompiler.ir.edit import Edit
from qcompiler.pipeline.base import Context, Fact, Pass, PassRecord
from qcompiler.pipeline.instruments.base import Observer
from qcompiler.pipeline.manager import Pipeline


@dataclass(frozen=True)
class Base(Pass):
    name: ClassVar[str] = "base"
    problem: str = ""

    def run(self, model: ir.Model, ctx: Context) -> None:
        assert not gc.isenabled()
        ctx.edit.touch()
        ctx.skip("node", "a reason")
        ctx.warn("a warning")
        problems: dict[str, BaseException] = {
            "foreseen": DataError("no data", where="file"), "unforeseen": KeyError("x"), "stop": KeyboardInterrupt(),
        }
        if self.problem:
            raise problems[self.problem]


@dataclass(frozen=True)
class Provider(Base):
    name: ClassVar[str] = "provider"
    provides: ClassVar[frozenset[Fact]] = frozenset({Fact.FORMATS})


@dataclass(frozen=True)
class Consumer(Base):
    name: ClassVar[str] = "consumer"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.FORMATS})


@dataclass(frozen=True)
class Destroyer(Base):
    name: ClassVar[str] = "destroyer"
    invalidates: ClassVar[frozenset[Fact]] = frozenset({Fact.FORMATS})


@dataclass(frozen=True)
class Early(Base):
    name: ClassVar[str] = "early"
    before: ClassVar[frozenset[Fact]] = frozenset({Fact.FORMATS})


class Log(Observer):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def before(self, pass_: Pass, model: ir.Model, ctx: Context) -> None:
        self.lines.append(f"before {pass_.name}")

    def after(self, pass_: Pass, model: ir.Model, ctx: Context, record: PassRecord) -> None:
        self.lines.append(f"after {pass_.name} {record.edits}")

    def failed(self, pass_: Pass, model: ir.Model, ctx: Context, error: BaseException) -> None:
        self.lines.append(f"failed {pass_.name} {type(error).__name__}")


def test_a_missing_fact_names_the_pass_and_its_providers() -> None:
    with pytest.raises(PipelineError, match=r"'consumer' requires the fact 'formats'") as caught:
        Pipeline((Consumer(),))
    assert "assign-formats" in str(caught.value.hint)
    with pytest.raises(PipelineError) as caught:
        Pipeline((Consumer(), Provider()))
    assert caught.value.hint == "move 'provider' before 'consumer'"


def test_a_destroyed_fact_names_its_destroyer() -> None:
    with pytest.raises(PipelineError, match="destroyed by 'destroyer'"):
        Pipeline((Provider(), Destroyer(), Consumer()))
    Pipeline((Provider(), Consumer(), Destroyer()))
    Pipeline((Provider(), Destroyer(), Provider(), Consumer()))
    Pipeline((Consumer(),), given=frozenset({Fact.FORMATS}))


def test_a_pass_that_comes_too_late_is_named_with_its_place() -> None:
    Pipeline((Early(), Provider()))
    Pipeline((Early(),), given=frozenset({Fact.FORMATS}))  # what was given, no pass of this pipeline did
    told = r"'early' \(pass 4\) comes too late behind 'provider' \(pass 2\)"
    with pytest.raises(PipelineError, match=told) as caught:
        Pipeline((Early(), Provider(), Destroyer(), Early()))
    assert caught.value.hint == "move 'early' before 'provider'"


def test_records(small_cnn: ir.Model) -> None:
    ctx = Context(Edit(small_cnn))
    steps: list[tuple[str, int, int]] = []
    ctx.progress = lambda stage, done, total: steps.append((stage, done, total))
    log = Log()
    records = Pipeline((Base(), Provider())).run(small_cnn, ctx, [log])
    assert gc.isenabled()
    assert [(record.text, record.edits, len(record.skips), record.notes[0].level) for record in records] == [
        ("base", 1, 1, "warning"), ("provider", 1, 1, "warning"),
    ]
    assert all(record.seconds >= 0 for record in records)
    assert steps == [("passes", 0, 2), ("passes", 1, 2), ("passes", 2, 2)]
    assert log.lines == ["before base", "after base 1", "before provider", "after provider 1"]


def test_a_run_may_stop_behind_a_pass_that_others_follow(small_cnn: ir.Model) -> None:
    ctx = Context(Edit(small_cnn))
    records = Pipeline((Base(), Provider(), Consumer())).run(small_cnn, ctx, until="provider")
    assert [record.text for record in records] == ["base", "provider"]
    assert [item.name for item in ctx.following] == ["consumer"]


def test_own_errors_keep_their_type_and_learn_where(small_cnn: ir.Model) -> None:
    with pytest.raises(DataError) as caught:
        Pipeline((Base(problem="foreseen"),)).run(small_cnn, Context(Edit(small_cnn)))
    assert caught.value.where == "pass base, file"


def test_other_errors_become_pass_errors(small_cnn: ir.Model) -> None:
    log, ctx = Log(), Context(Edit(small_cnn))
    with pytest.raises(PassError, match="pass base: the pass failed: KeyError: 'x'") as caught:
        Pipeline((Provider(), Base(problem="unforeseen"), Consumer())).run(small_cnn, ctx, [log])
    assert isinstance(caught.value.__cause__, KeyError)
    assert log.lines[-2:] == ["before base", "failed base KeyError"]
    assert [(record.text, record.edits) for record in ctx.records] == [("provider", 1), ("base{problem=unforeseen}", 1)]


def test_an_interrupt_passes_through(small_cnn: ir.Model) -> None:
    log = Log()
    with pytest.raises(KeyboardInterrupt):
        Pipeline((Base(problem="stop"),)).run(small_cnn, Context(Edit(small_cnn)), [log])
    assert log.lines == ["before base", "failed base KeyboardInterrupt"]
    assert gc.isenabled()


def test_the_collector_stays_off_where_it_was_off(small_cnn: ir.Model) -> None:
    gc.disable()
    try:
        Pipeline((Base(),)).run(small_cnn, Context(Edit(small_cnn)))
        assert not gc.isenabled()
    finally:
        gc.enable()
