"""Observers of a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.errors import PassError, UsageError, VerificationError
from qcompiler.ir import io
from qcompiler.ir.edit import Edit
from qcompiler.ir.execute import Runner
from qcompiler.ir.render import render
from qcompiler.pipeline import registry, replay
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves
from qcompiler.pipeline.instruments.bisect import Bisect
from qcompiler.pipeline.instruments.dump import Dump
from qcompiler.pipeline.instruments.reproducer import Reproducer
from qcompiler.pipeline.instruments.timing import Timing
from qcompiler.pipeline.instruments.verify import Verify, deviation
from qcompiler.pipeline.manager import Pipeline
from qcompiler.quant import state
from qcompiler.quant.state import NodeDecision


@dataclass(frozen=True)
class Scale(Pass):
    """Multiply the last bias; claims whatever it is told to."""

    name: ClassVar[str] = "scale"
    preserves: ClassVar[Preserves] = Preserves.FLOAT
    factor: float = 1.0

    def run(self, model: ir.Model, ctx: Context) -> None:
        bias = model.graph.initializers["fc_bias"]
        assert bias.const_value is not None
        ctx.edit.set_constant(bias, (bias.const_value.numpy() * np.float32(self.factor)).astype(np.float32))
        ctx.skip("somewhere", "no reason")


@dataclass(frozen=True)
class ScaleExactly(Scale):
    name: ClassVar[str] = "scale-exactly"
    preserves: ClassVar[Preserves] = Preserves.EXACT


@dataclass(frozen=True)
class Break(Pass):
    """Do harm of a kind."""

    name: ClassVar[str] = "break"
    provides: ClassVar[frozenset[Fact]] = frozenset({Fact.SORTED})
    kind: Literal["nothing", "order", "type", "exception", "output"] = "nothing"

    def run(self, model: ir.Model, ctx: Context) -> None:
        ctx.edit.touch()
        relu, pool = model.graph[1], model.graph[2]
        if self.kind == "order":
            model.graph.remove(relu)
            model.graph.insert_after(pool, relu)
        elif self.kind == "type":
            relu.outputs[0].type = None
        elif self.kind == "exception":
            model.graph.remove(relu, safe=False)
            raise ValueError("planted")


@dataclass(frozen=True)
class Decide(Pass):
    """Put a decision on the graph, as assign-formats does, without an edit."""

    name: ClassVar[str] = "decide"

    def run(self, model: ir.Model, ctx: Context) -> None:
        for node in model.graph:
            state.set_node_decision(node, NodeDecision(False, "because"))


@dataclass(frozen=True)
class NeedDecision(Pass):
    """Fail where there is a decision."""

    name: ClassVar[str] = "need-decision"

    def run(self, model: ir.Model, ctx: Context) -> None:
        if state.has_state(model.graph):
            raise ValueError("there is a decision")


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    registry._PLUGINS.update({cls.name: cls for cls in (Scale, ScaleExactly, Break, Decide, NeedDecision)})
    yield
    registry._PLUGINS.clear()


# -- verify ------------------------------------------------------------------------------------------------------


def test_a_claimed_fact_that_does_not_hold(small_cnn: ir.Model) -> None:
    with pytest.raises(VerificationError, match=r"pass break: it provides the fact 'sorted': pool .* before relu"):
        Pipeline((Break("order"),)).run(small_cnn, Context(Edit(small_cnn)), [Verify()])


def test_a_fact_that_was_not_kept(small_cnn: ir.Model) -> None:
    given = frozenset({Fact.TYPED})
    with pytest.raises(VerificationError, match="pass break: it does not keep the fact 'typed': 'relu'"):
        Pipeline((Break("type"),)).run(small_cnn, Context(Edit(small_cnn)), [Verify("facts", given=given)])


def test_off_checks_nothing(small_cnn: ir.Model) -> None:
    Pipeline((Break("order"),)).run(small_cnn, Context(Edit(small_cnn)), [Verify("off")])


def test_moved_outputs_name_pass_output_and_figure(small_cnn: ir.Model) -> None:
    passes = (Scale(1.0), Scale(1.0 + 1e-6), Scale(1.01), Scale(1.0))
    words = r"pass scale: .*float outputs, but output 'y' moved by 0\.\d+"
    with pytest.raises(VerificationError, match=words) as caught:
        Pipeline(passes).run(small_cnn, ctx := Context(Edit(small_cnn)), [Verify("numerics")])
    assert "at most 1e-05" in str(caught.value)
    assert ctx.records[-1].text == "scale{factor=1.01}"


def test_exact_means_exact(small_cnn: ir.Model) -> None:
    Pipeline((ScaleExactly(1.0),)).run(small_cnn, Context(Edit(small_cnn)), [Verify("numerics")])
    with pytest.raises(VerificationError, match="pass scale-exactly: it promises exact outputs"):
        Pipeline((ScaleExactly(1.0 + 1e-6),)).run(small_cnn, Context(Edit(small_cnn)), [Verify("numerics")])


def test_a_pass_that_promises_nothing_resets_the_reference(small_cnn: ir.Model) -> None:
    @dataclass(frozen=True)
    class Change(Scale):
        name: ClassVar[str] = "change"
        preserves: ClassVar[Preserves] = Preserves.NOTHING

    Pipeline((Scale(1.0), Change(3.0), Scale(1.0))).run(small_cnn, Context(Edit(small_cnn)), [Verify("numerics")])


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ([1, 2], [1, 2.5], 0.25), ([0, 0], [0, 0], 0), ([0, 0], [0, 1e-30], np.inf), ([1, np.inf], [1, np.inf], 0),
        ([1, np.inf], [1, -np.inf], np.inf), ([1, np.nan], [1, np.nan], 0), ([1, 2], [1, np.nan], np.inf),
        ([1, 2], [1, 2, 3], np.inf), ([], [], 0), ([np.nan], [np.nan], 0),
    ],
)
def test_deviation(one: list[float], two: list[float], expected: float) -> None:
    assert deviation(np.array(one, np.float32), np.array(two, np.float32)) == pytest.approx(expected)


# -- timing and dump ---------------------------------------------------------------------------------------------


def test_timing(small_cnn: ir.Model) -> None:
    timing = Timing()
    with pytest.raises(PassError):
        Pipeline((Scale(2.0), Break("exception"))).run(small_cnn, Context(Edit(small_cnn)), [timing])
    assert [(row.text, row.edits, row.skips) for row in timing.rows] == [
        ("scale{factor=2.0}", 1, (("no reason", 1),)), ("break{kind=exception}", 1, ()),
    ]
    assert "1 × no reason" in timing.table()


def test_dump_writes_what_changed(small_cnn: ir.Model, tmp_path: Path) -> None:
    passes = (Scale(1.0), Decide(), Scale(2.0), Break("exception"))
    with pytest.raises(PassError):
        Pipeline(passes).run(small_cnn, Context(Edit(small_cnn)), [Dump(tmp_path / "dump", models=True)])
    names = sorted(path.name for path in (tmp_path / "dump").iterdir())
    assert names == [
        "000_input.onnx", "000_input.txt", "002_decide.onnx", "002_decide.txt", "003_scale.onnx", "003_scale.txt",
        "004_break.failed.txt",
    ]
    assert "!float: because" in (tmp_path / "dump" / "002_decide.txt").read_text()
    text = render(io.load(tmp_path / "dump" / "003_scale.onnx"))
    assert text.splitlines()[:4] == (tmp_path / "dump" / "003_scale.txt").read_text().splitlines()[:4]


# -- bisect ------------------------------------------------------------------------------------------------------


def run_bisect(model: ir.Model, higher: bool, tolerance: float, factors: list[float]) -> Bisect:
    feed = {"x": np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)}
    reference = Runner(model).run(feed)["y"]

    def measure(candidate: ir.Model) -> float:
        error = float(np.abs(Runner(candidate).run(feed)["y"] - reference).max())
        return 1.0 - error if higher else error

    bisect = Bisect(measure, higher, tolerance)
    Pipeline(tuple(Scale(factor) for factor in factors)).run(model, Context(Edit(model)), [bisect])
    return bisect


@pytest.mark.parametrize("higher", [True, False])
def test_bisect_names_the_planted_pass(small_cnn: ir.Model, higher: bool) -> None:
    bisect = run_bisect(small_cnn, higher, 1e-4, [1.0, 1.0 + 1e-6, 5.0, 2.0])
    verdict = bisect.verdict()
    assert verdict.culprit == "scale{factor=5.0}"
    assert abs(verdict.before - higher) < 1e-4 < abs(verdict.after - higher)
    assert [item.text for item in bisect.measurements][:2] == ["input", "scale"]
    assert str(verdict).startswith("scale{factor=5.0}: from ")


def test_bisect_without_a_culprit(small_cnn: ir.Model) -> None:
    verdict = run_bisect(small_cnn, True, 1e-4, [1.0, 1.0]).verdict()
    assert verdict.culprit is None
    assert str(verdict) == "no pass made it worse (at the end 1)"


def test_bisect_sees_slow_decline_and_nan(small_cnn: ir.Model) -> None:
    def verdict(figures: list[float]) -> str | None:
        series = iter(figures)
        bisect = Bisect(lambda _: next(series), True, 0.5)
        Pipeline(tuple(Scale(1.0 + i) for i in range(len(figures) - 1))).run(
            small_cnn, Context(Edit(small_cnn)), [bisect]
        )
        return bisect.verdict().culprit

    assert verdict([10.0, 9.8, 9.6, 9.4]) == "scale{factor=3.0}"
    assert verdict([10.0, float("nan"), 9.9]) == "scale"
    assert verdict([5.0, 9.0, 8.8]) is None


# -- reproduce and replay ----------------------------------------------------------------------------------------


def fail(path: Path, passes: tuple[Pass, ...], folder: Path) -> Context:
    model = io.load(path)
    ctx = Context(Edit(model), format="w8a8", exclude=("conv",))
    with pytest.raises(PassError):
        Pipeline(passes).run(model, ctx, [Reproducer(folder, passes, {"seed": 3})])
    return ctx


def test_a_reproducer_repeats_the_failure(small_cnn_path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "repro"
    fail(small_cnn_path, (Scale(2.0), Break("exception"), Scale(3.0)), folder)
    manifest = json.loads((folder / "reproduce.json").read_text())
    assert manifest["pipeline"] == "break{kind=exception},scale{factor=3.0}"
    assert manifest["failed"] == "break{kind=exception}"
    assert manifest["error"] == "ValueError: planted"
    assert manifest["exact"]
    assert (manifest["format"], manifest["exclude"], manifest["options"]) == ("w8a8", ["conv"], {"seed": 3})
    before = io.load(small_cnn_path)
    Pipeline((Scale(2.0),)).run(before, Context(Edit(before)))
    assert render(io.load(folder / "model.onnx")) == render(before)
    with pytest.raises(PassError, match=r"pass break: .*planted"):
        replay.replay(folder)


def test_decisions_in_memory_are_made_again(small_cnn_path: Path, tmp_path: Path) -> None:
    fail(small_cnn_path, (Scale(2.0), Decide(), Scale(2.0), NeedDecision()), tmp_path / "repro")
    manifest = replay.read_manifest(tmp_path / "repro")
    assert manifest["pipeline"] == "decide,scale{factor=2.0},need-decision"
    with pytest.raises(PassError, match="there is a decision"):
        replay.replay(tmp_path / "repro")


def test_without_a_source_the_broken_model_is_kept(small_cnn: ir.Model, tmp_path: Path) -> None:
    passes = (Break("exception"),)
    with pytest.raises(PassError):
        Pipeline(passes).run(small_cnn, Context(Edit(small_cnn)), [Reproducer(tmp_path / "r", passes)])
    manifest = replay.read_manifest(tmp_path / "r")
    assert not manifest["exact"]


def test_success_leaves_nothing_and_interrupts_neither(small_cnn_path: Path, tmp_path: Path) -> None:
    model = io.load(small_cnn_path)
    passes = (Scale(2.0),)
    reproducer = Reproducer(tmp_path / "r", passes)
    Pipeline(passes).run(model, Context(Edit(model)), [reproducer])
    reproducer.failed(passes[0], model, Context(Edit(model)), KeyboardInterrupt())
    assert not (tmp_path / "r").exists()


def test_an_unwritable_folder_does_not_hide_the_cause(small_cnn_path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    ctx = fail(small_cnn_path, (Break("exception"),), tmp_path / "file" / "repro")
    assert "could not be written" in ctx.records[-1].notes[-1].text


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 2}'])
def test_other_folders_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "reproduce.json").write_text(text)
    with pytest.raises(UsageError):
        replay.replay(tmp_path)
    with pytest.raises(UsageError):
        replay.replay(tmp_path / "absent")


def test_a_real_pipeline_verifies(sample_models: dict[str, Path], parse: Callable[[str], ir.Model]) -> None:
    from qcompiler.pipeline import spec

    del parse
    for path in sample_models.values():
        model = io.load(path)
        Pipeline(spec.parse("normalize")).run(model, Context(Edit(model)), [Verify("numerics")])
