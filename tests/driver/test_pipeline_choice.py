"""Which passes run: the profile's lowering, --lowering, and pipelines of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qcompiler.driver.options import CompileOptions
from qcompiler.driver.pipeline_choice import choose_pipeline, effort_of, lowering_of, why_not_lowered
from qcompiler.errors import PipelineError, UsageError
from qcompiler.pipeline import spec
from qcompiler.target.formats import resolve_format
from qcompiler.target.integer import Lowering
from qcompiler.target.load import load


@pytest.fixture(autouse=True)
def _a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``plan.json`` is looked into: one with formats alone stands elsewhere."""
    monkeypatch.chdir(tmp_path)
    Path("plan.json").write_text('{"schema": 1, "nodes": {}}')
    Path("formats.json").write_text('{"schema": 1, "formats": {"conv": "w4a8"}}')


OWN = "normalize,assign-formats,calibrate,calibrate-weights,place-qdq,finalize"


def names(profile: str, *, kind: str | None = "w8a8", **options: Any) -> list[str]:
    request = CompileOptions(model="m.onnx", target="t", **options)
    passes = choose_pipeline(request, Lowering(profile), resolve_format(load("lowbit-cpu"), kind)).passes
    lowers = {"lower-integer", "lower-weight-only"} & {item.name for item in passes}
    assert lowering_of(passes) == ("integer" if lowers else "qdq")
    return [item.name for item in passes]


def follows(found: list[str]) -> bool:
    """Whether the passes of the pipeline 'lower' come right behind place-qdq."""
    lower = spec.named()["lower"].text.split(",")
    start = found.index("place-qdq") + 1
    return found[start : start + len(lower)] == lower


@pytest.mark.parametrize("pipeline", [None, "default"])
def test_the_profile_decides_unless_asked_otherwise(pipeline: str | None) -> None:
    assert "lower-integer" not in names("qdq", pipeline=pipeline)
    assert "lower-integer" not in names("integer", pipeline=pipeline, lowering="qdq")
    for found in (names("integer", pipeline=pipeline), names("qdq", pipeline=pipeline, lowering="integer")):
        assert follows(found)
        assert found[-1] == "finalize"


def test_a_pipeline_of_ones_own_is_left_alone() -> None:
    assert "lower-integer" not in names("integer", pipeline=OWN)
    assert "lower-integer" not in names("integer", pipeline=OWN, lowering="qdq")
    found = names("qdq", pipeline=OWN, lowering="integer")
    assert follows(found)
    lowered = OWN.replace("place-qdq", "place-qdq,lower-integer")
    assert names("qdq", pipeline=lowered).count("lower-integer") == 1
    assert names("qdq", pipeline=lowered, lowering="integer").count("lower-integer") == 1


@pytest.mark.parametrize("late", ["correct-bias", "round-gptq", "calibrate-weights", "assign-formats", "rotate"])
def test_decisions_are_made_before_they_become_nodes(late: str) -> None:
    message = rf"'{late}' \(pass \d+\) comes too late behind 'place-qdq'"
    with pytest.raises(PipelineError, match=message):
        names("qdq", pipeline=OWN.replace("place-qdq", f"place-qdq,{late}"))


def test_a_pipeline_that_ends_before_the_integers_is_told_so() -> None:
    def told(profile: str, **options: Any) -> bool:
        request = CompileOptions(model="m.onnx", target="t", **options)
        passes = choose_pipeline(request, Lowering(profile), resolve_format(load("lowbit-cpu"), "w8a8")).passes
        return why_not_lowered(request, Lowering(profile), passes) is not None

    assert told("integer", pipeline=OWN)
    assert not told("qdq", pipeline=OWN)
    assert not any(told("integer", pipeline=OWN, lowering=kind) for kind in ("qdq", "integer"))
    assert not any(told("integer", pipeline=kind) for kind in (None, "default", "normalize"))
    assert not told("integer", pipeline=OWN.replace("place-qdq", "place-qdq,lower-integer"))


def test_a_log_format_needs_the_pass_that_finds_its_grid() -> None:
    with pytest.raises(UsageError, match="log4 in --format needs the pass 'choose-log-formats'"):
        names("qdq", kind="w8a8/log4", format="w8a8/log4", pipeline=OWN)
    chosen = OWN.replace(",calibrate,", ",choose-log-formats,calibrate,")
    assert names("qdq", kind="w8a8/log4", format="w8a8/log4", pipeline=chosen)
    assert "choose-log-formats" in names("integer", kind="w8a8/log4", format="w8a8/log4")


def test_contradictions_are_refused() -> None:
    with pytest.raises(UsageError, match="--lowering qdq contradicts the pipeline"):
        names("integer", pipeline=OWN.replace("place-qdq", "place-qdq,lower-integer"), lowering="qdq")
    with pytest.raises(UsageError, match="--lowering integer needs the pass 'place-qdq'"):
        names("integer", pipeline="normalize", lowering="integer")
    with pytest.raises(UsageError, match="--lowering 'integr' is not known\n  hint: did you mean 'integer'"):
        names("qdq", lowering="integr")


@pytest.mark.parametrize("pipeline", [None, "default"])
def test_a_weight_only_format_has_a_pipeline_of_its_own(pipeline: str | None) -> None:
    found = names("integer", kind="w4", pipeline=pipeline)
    assert found[-6:-3] == ["assign-formats", "calibrate-weights", "choose-rounding"]
    assert found[-3:] == ["place-qdq", "lower-weight-only", "finalize"]
    assert "lower-weight-only" not in names("integer", kind="w4", pipeline=pipeline, lowering="qdq")
    assert "apply-plan" in names("integer", kind="w4", pipeline=pipeline, plan="plan.json")
    with pytest.raises(UsageError, match="needs the pass 'calibrate'"):
        names("integer", kind="w4", calibration_method="mse")


RECIPE = {"choose-transforms", "choose-rounding"}


def test_the_effort_says_what_the_default_pipelines_try() -> None:
    for kind in ("w8a8", "w4"):
        assert set(names("integer", kind=kind)) >= RECIPE
        assert not RECIPE & set(names("integer", kind=kind, effort="quick"))
        request = CompileOptions("model.onnx", "lowbit-cpu", effort="high")
        passes = choose_pipeline(request, Lowering("integer"), resolve_format(load("lowbit-cpu"), kind)).passes
        assert effort_of(passes) == "high"
        assert {item.effort for item in passes if item.name in RECIPE} == {"high"}  # type: ignore[attr-defined]


def test_a_pipeline_of_ones_own_tries_what_it_says() -> None:
    assert "choose-rounding" not in names("qdq", pipeline=OWN)
    with pytest.raises(UsageError, match="--effort high needs one of the passes choose-transforms, choose-rounding"):
        names("qdq", pipeline=OWN, effort="high")
    own = OWN.replace("place-qdq", "choose-rounding{effort=high},place-qdq")
    assert "choose-rounding" in names("qdq", pipeline=own)
    assert "choose-rounding" not in names("qdq", pipeline=own, effort="quick")
    with pytest.raises(UsageError, match="--effort 'hihg' is not known\n  hint: did you mean 'high'"):
        names("qdq", effort="hihg")


def test_candidates_are_chosen_among_before_formats_are_assigned() -> None:
    found = names("integer", candidates="w8a8,w4a8", budget="size=0.2x")
    assert found[found.index("choose-formats") + 1] == "assign-formats"
    assert "choose-formats" not in names("integer", candidates="w8a8")
    with pytest.raises(UsageError, match="--candidates needs the pass 'assign-formats'"):
        names("qdq", candidates="w8a8,w4a8", budget="size=0.2x", pipeline="normalize")


def test_a_plan_of_formats_alone_leaves_the_rest_to_the_compiler() -> None:
    found = names("integer", plan="formats.json")
    assert found[found.index("choose-formats") + 1] == "assign-formats"
    assert "apply-plan" not in found
    Path("format.json").write_text('{"schema": 1, "format": "w4a8"}')
    assert names("integer", plan="format.json") == found, "the model's format is what all nodes follow"
    Path("nothing.json").write_text('{"schema": 1, "formats": {}}')
    with pytest.raises(UsageError, match=r"the plan decides nothing.*\n  hint: write it again with --plan-out"):
        names("integer", plan="nothing.json")


def test_no_effort_tries_nothing_beside_formats_of_a_plan() -> None:
    """``choose-transforms`` repeats what a complete plan kept; formats alone kept nothing."""
    found = names("integer", plan="formats.json", effort="quick")
    assert "choose-transforms" not in found
    assert "choose-rounding" not in found
    assert "choose-transforms" in names("integer", plan="plan.json", effort="quick")


@pytest.mark.parametrize(("effort", "shown"), [("quick", "quick"), ("normal", "normal"), ("high", "high")])
def test_the_effort_shown_with_a_plan_is_what_is_tried(effort: str, shown: str) -> None:
    """``choose-transforms`` stays, and repeats what the plan says was kept."""
    request = CompileOptions("model.onnx", "lowbit-cpu", effort=effort, plan="plan.json")
    passes = choose_pipeline(request, Lowering("integer"), resolve_format(load("lowbit-cpu"), "w8a8")).passes
    assert effort_of(passes) == shown


def test_other_options_keep_working() -> None:
    found = names("integer", plan="plan.json", bias_correction=False, calibration_method="mse")
    assert "apply-plan" in found
    assert "lower-integer" in found
    assert "correct-bias" not in found
