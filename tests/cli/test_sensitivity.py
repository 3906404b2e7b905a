"""``qcompiler sensitivity``: the ranking, equal figures whoever measures, and refusals."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from qcompiler.driver.executors import executor_of

Run = Callable[..., Result]


@pytest.fixture
def ask(toolbox: Run, small_cnn_path: Path, data: Path) -> Run:
    """Asks about ``small_cnn`` on ``edge-npu``; further arguments are added."""

    def run(*arguments: object, candidates: str = "w8a8,w4a8,w2a8") -> Result:
        return toolbox(
            "sensitivity", small_cnn_path, "-t", "edge-npu", "-c", data, "--candidates", candidates, *arguments
        )

    return run


def figures(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return {group["name"]: group["options"] for group in json.loads(result.stdout)["groups"]}


# -- what it shows ---------------------------------------------------------------------------------------------


def test_layers_are_ranked_by_what_they_lose(ask: Run, work: Path) -> None:
    result = ask("-o", "losses.json")
    assert result.exit_code == 0, result.output
    found = json.loads((work / "losses.json").read_text(encoding="utf-8"))
    assert found["candidates"] == ["w8a8", "w4a8", "w2a8"]
    assert found["rounding"] == "gptq"
    assert found["metric"] == "measured"
    assert found["samples"] == 21
    most = {group["name"]: max(group["options"].values()) for group in found["groups"]}
    assert found["ranking"] == sorted(most, key=lambda name: -most[name])
    assert len(most) == 2
    for group in found["groups"]:
        assert 0 < group["options"]["w8a8"] < group["options"]["w4a8"] < group["options"]["w2a8"]
    lines = result.stdout.splitlines()
    rows = {name: [line for line in lines if line.startswith(f"{name} ")] for name in found["ranking"]}
    places = [lines.index(own[0]) for own in rows.values()]
    assert places == sorted(places)
    assert "choose-transforms did not run" in result.stdout
    assert "measured on 21 samples" in result.stdout


def test_what_a_selection_left_is_told(ask: Run) -> None:
    asked = ("--metric", "sqnr", "--select", "clusters:12")
    left = "12 of 24 samples, the middle one of each cluster"
    line = next(line for line in ask(*asked).stdout.splitlines() if line.startswith("calibration"))
    assert line.split(maxsplit=1)[1].rstrip() == f"11 samples; {left}"  # one is held out
    assert left in json.loads(ask(*asked, "--json").stdout)["notes"]


def test_losses_are_those_that_a_compile_chooses_by(
    ask: Run, qcompile: Run, small_cnn_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = figures(ask("--json"))
    monkeypatch.setattr(
        "qcompiler.analysis.sensitivity.metric.measure", lambda *_: pytest.fail("the cache was not used")
    )
    assert figures(ask("--json")) == found
    result = qcompile(
        small_cnn_path, "-t", "edge-npu", "-c", data, "--candidates", "w8a8,w4a8,w2a8", "--budget", "bops=1",
        "--no-latency", "--pipeline", "normalize,equalize-channels,fit-powers-of-two,choose-widths,assign-formats,"
        "calibrate,calibrate-weights,choose-rounding,place-qdq,finalize",
    )  # fmt: skip
    assert result.exit_code == 2, result.output
    assert "bops" in result.stderr


def test_weights_alone_are_measured_on_samples_made_from_the_model(toolbox: Run, small_cnn_path: Path) -> None:
    """As a compile chooses among them; without any word of samples it is refused."""
    asked = "sensitivity", small_cnn_path, "-t", "lowbit-cpu", "--candidates", "w4,w2", "--json"
    found = figures(toolbox(*asked, "-c", "none"))
    assert found
    for options in found.values():
        assert 0 < options["w4"] < options["w2"]
    result = toolbox(*asked)
    assert result.exit_code == 1, result.output
    assert "there are no samples to measure on" in result.stderr
    assert "--calibration none" in result.stderr


def test_estimates_of_all_metrics_come_first(ask: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qcompiler.driver.sensitivity.Question.answer", lambda *_: pytest.fail("it was measured"))
    result = ask("--list-metrics")
    assert result.exit_code == 0, result.output
    from qcompiler.analysis.sensitivity import METRICS

    for metric in METRICS:
        assert metric.name in result.stdout
    listed = {item["metric"]: item for item in json.loads(ask("--list-metrics", "--json").stdout)}
    assert list(listed) == [metric.name for metric in METRICS]
    assert listed["measured"]["cost"]["macs"] > 0
    assert listed["sqnr"]["samples"] == 0


@pytest.mark.parametrize(
    "metric", ["gauss-newton", "taylor", "divergence", "prediction-difference", "block-distance", "sqnr", "spikes"]
)
def test_every_metric_can_be_asked(ask: Run, metric: str) -> None:
    result = ask("--metric", metric, "--json", "--samples", 4)
    assert all(own["w2a8"] > own["w8a8"] for own in figures(result).values())
    assert json.loads(result.stdout)["metric"] == metric


def test_rounding_matters_and_is_said(ask: Run) -> None:
    nearest, fitted = ask("--rounding", "nearest", "--json"), ask("--rounding", "gptq", "--json")
    assert json.loads(nearest.stdout)["rounding"] == "nearest"
    assert figures(nearest) != figures(fitted)
    assert figures(ask("--json")) == figures(fitted)


def test_one_candidate_is_enough_to_rank(ask: Run) -> None:
    assert all(list(own) == ["w4a8"] for own in figures(ask("--json", candidates="w4a8")).values())


def test_activations_are_measured_too(ask: Run) -> None:
    found = figures(ask("--json", candidates="w8a8,w8a16"))
    assert any(own.get("w8a16", 1) < own["w8a8"] for own in found.values())


def test_weights_alone(toolbox: Run, small_cnn_path: Path, data: Path) -> None:
    arguments = ("sensitivity", small_cnn_path, "-t", "lowbit-cpu", "--candidates", "w4,w2", "-c", data, "--json")
    assert all(own["w2"] > own["w4"] for own in figures(toolbox(*arguments)).values())


def test_a_shipped_sample_brings_its_data(toolbox: Run) -> None:
    result = toolbox("sensitivity", "digits_cnn", "-t", "edge-npu", "--candidates", "w4a8", "--list-metrics")
    assert result.exit_code == 0, result.output
    assert "128 samples" in result.stdout


def test_a_picture_is_drawn(ask: Run, work: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    assert ask("--plot", "losses.svg").exit_code == 0
    text = (work / "losses.svg").read_text(encoding="utf-8")
    assert all(word in text for word in ("small_cnn on edge-npu", "w2a8", "conv"))


# -- who measures ----------------------------------------------------------------------------------------------


def test_processes_give_the_same_figures(ask: Run) -> None:
    alone = figures(ask("--json", "--no-cache"))
    assert figures(ask("--json", "--no-cache", "--workers", 2)) == alone


def test_dask_gives_the_same_figures(ask: Run) -> None:
    distributed = pytest.importorskip("distributed", reason="needs the extra dask")
    alone = figures(ask("--json", "--no-cache"))
    options = {"processes": True, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": "ERROR"}
    with distributed.LocalCluster(n_workers=2, **options) as cluster:
        address = cluster.scheduler_address.removeprefix("tcp://")
        assert figures(ask("--json", "--no-cache", "--executor", f"dask://{address}")) == alone


def test_ray_gives_the_same_figures(ask: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="needs the extra ray")
    alone = figures(ask("--json", "--no-cache"))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        assert figures(ask("--json", "--no-cache", "--executor", "ray")) == alone
    finally:
        ray.shutdown()


def test_a_compile_chooses_the_same_with_any_executor(
    qcompile: Run, small_cnn_path: Path, data: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str | None, int]] = []
    real = executor_of

    def watched(text: str | None, workers: int) -> Any:
        opened.append((text, workers))
        return real(text, workers)

    monkeypatch.setattr("qcompiler.driver.running.executor_of", watched)
    base = (small_cnn_path, "-t", "edge-npu", "-c", data, "--candidates", "w8a8,w4a8,w2a8", "--budget", "size=9600",
            "--no-latency", "--no-cache", "--effort", "quick")  # fmt: skip
    alone = qcompile(*base, "-o", "one.onnx")
    assert alone.exit_code == 0, alone.output
    result = qcompile(*base, "--workers", 1, "-o", "two.onnx")
    assert result.exit_code == 0, result.output
    assert "workers" in result.stdout
    assert (work / "one.onnx").read_bytes() == (work / "two.onnx").read_bytes()
    assert opened == [(None, 0), (None, 1)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--workers", "2"), "--workers is about a choice, and there is none"),
        (("--executor", "ray"), "--executor is about a choice, and there is none"),
        (("--workers", "-1"), "--workers -1 is less than 0"),
        (("--candidates", "w8a8,w4a8", "--budget", "size=1x", "--executor", "slurm"), "'slurm' is not known"),
    ],
)
def test_a_compile_refuses_wrong_executors(
    qcompile: Run, small_cnn_path: Path, data: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = qcompile(small_cnn_path, "-t", "edge-npu", "-c", data, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


# -- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--metric", "mesured"), "did you mean 'measured'?"),
        (("--rounding", "gtpq"), "did you mean 'gptq'?"),
        (("--samples", "0"), "measures nothing"),
        (("--executor", "slurm://host:1"), "dask://HOST:PORT, ray, ray://HOST:PORT"),
        (("--executor", "ray", "--workers", "2"), "leave one of them out"),
        (("--plot", "losses.pdf"), "svg or png"),
    ],
)
def test_wrong_words_are_refused(ask: Run, arguments: tuple[str, ...], message: str) -> None:
    result = ask(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("candidates", "message"),
    [("w8a8,w5a8", "w5a8"), ("w8a8,w4", "computes on codes"), (" , ", "has an empty item")],
)
def test_candidates_that_the_target_has_not_are_refused(ask: Run, candidates: str, message: str) -> None:
    result = ask(candidates=candidates)
    assert result.exit_code == 2
    assert message in result.stderr


def test_no_samples_are_refused(toolbox: Run, small_cnn_path: Path) -> None:
    for target, candidates in (("edge-npu", "w8a8,w4a8"), ("lowbit-cpu", "w4,w2")):
        result = toolbox("sensitivity", small_cnn_path, "-t", target, "--candidates", candidates)
        assert result.exit_code == 1
        assert "--calibration" in result.stderr


def test_what_cannot_be_written_is_refused_before_anything_is_measured(
    ask: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qcompiler.driver.sensitivity.question", lambda *_: pytest.fail("it was made ready"))
    result = ask("-o", "nowhere/losses.json")
    assert result.exit_code == 1
    assert "'nowhere' does not exist" in result.stderr


@pytest.mark.parametrize(
    ("library", "arguments", "extra"),
    [
        ("distributed", ("--executor", "dask://127.0.0.1:1"), "dask"),
        ("ray", ("--executor", "ray"), "ray"),
        ("matplotlib", ("--plot", "losses.svg"), "plot"),
    ],
)
def test_a_library_that_is_missing_is_named(
    ask: Run, library: str, arguments: tuple[str, ...], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qcompiler.driver.sensitivity.question", lambda *_: pytest.fail("it was made ready"))
    monkeypatch.setitem(sys.modules, library, None)
    result = ask(*arguments)
    assert result.exit_code == 1
    assert f"pip install 'qcompiler[{extra}]'" in result.stderr
