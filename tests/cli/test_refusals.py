"""Wrong words are refused before any work: exit code 2, the word, the nearest one, and no file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

CASES = [
    (["--target", "edge-npv"], ["edge-npv", "did you mean 'edge-npu'"]),
    (["--target", "./nowhere.toml"], ["nowhere.toml"]),
    (["--format", "banana"], ["banana", "w8a8"]),
    (["--format", "w8a9"], ["9", "cpu-x86"]),
    (["--format", "w8a8/blok=32"], ["blok=32", "did you mean 'block=N'"]),
    (["--pipeline", "fold-batchnorm"], ["fold-batchnorm", "did you mean 'fold-batch-norm'"]),
    (["--pipeline", "calibrate{methd=mse}"], ["methd", "did you mean 'method'"]),
    (["--pipeline", "nowhere.toml"], ["nowhere.toml"]),
    (["--pipeline", "place-qdq"], ["place-qdq", "requires the fact"]),
    (["--metric", "sqrn"], ["sqrn", "did you mean 'sqnr'"]),
    (["--observer", "percentil"], ["percentil", "did you mean 'percentile'"]),
    (["--verify", "numeric"], ["numeric", "did you mean 'numerics'"]),
    (["--jobs", "-1"], ["--jobs -1"]),
    (["--jobs", "many"], ["--jobs", "many"]),
    (["--limit", "-3"], ["--limit -3"]),
    (["--min-agreement", "101"], ["percentage"]),
    (["--select", "outlier"], ["outlier", "did you mean 'outliers'"]),
    (["--select", "clusters"], ["number of samples"]),
    (["--select", "clusters:none"], ["number of samples"]),
    (["--select", "stratify"], ["stratify:INPUT"]),
    (["--select", "stratify:nope"], ["--select stratify:nope", "no input 'nope'", "the inputs are x"]),
    (["--select", "outliers", "--select", "stratify:xx:4"], ["no input 'xx'", "did you mean 'x'?", "the inputs are x"]),
    (["--calibration", "random", "--select", "outliers"], ["--calibration random has none to choose from"]),
    (["--effort", "hihg"], ["hihg", "did you mean 'high'"]),
    (["--evaluation", "random"], ["proves nothing"]),
    (["--plan", "nowhere.json"], ["nowhere.json"]),
    (["--plugin", "nowhere.py"], ["nowhere.py"]),
    (["--config", "nowhere.toml"], ["nowhere.toml"]),
    (["--no-such-option"], ["--no-such-option"]),
    (["--calibratoin", "x"], ["--calibration"]),
    (["--exclude", "convv"], ["convv", "did you mean 'conv'"]),
    (["--exclude", "re:("], ["re:(", "regular expression"]),
    (["--candidates", "w8a8,w7a8"], ["w7a8", "--budget"]),
    (["--candidates", "w8a8,w7a8", "--budget", "sise=1"], ["sise", "did you mean 'size'"]),
    (["--candidates", "w8a8,w7a8", "--budget", "size=1KB"], ["no plan keeps size", "the smallest feasible"]),
    (["--candidates", "w8a8,w1a8", "--budget", "size=0.5x"], ["w1a8", "offers"]),
    (["--candidates", "w8a8,w7a8", "--format", "w8a8", "--budget", "size=1x"], ["--candidates and --format"]),
    (["--candidates", "w8a8,w7a8", "--budget", "size=1x", "--exempt", "tinny"], ["tinny", "did you mean 'tiny'"]),
    (["--candidates", "w8a8,w7a8", "--budget", "size=1x", "--sensitivity", "hessian"], ["hessian"]),
    (["--candidates", "w8a8,w7a8", "--budget", "loss=0.1", "--metric", "top1"], ["top1", "kl"]),
    (["--candidates", "w8a8,w7a8", "--budget", "loss=0.1", "--metric", "cosin"],
     ["cosin", "did you mean 'cosine'", "one of kl, cosine, agreement, sqnr"]),
    (["--candidates", "w8a8,w7a8", "--budget", "latency=1ms"],
     ["nothing says how fast cpu-x86 is", "--cost-table", "[cost]"]),
    (["--candidates", "w8a8,,w7a8", "--budget", "size=1x"], ["'w8a8,,w7a8' has an empty item"]),
    (["--budget", "size=1x"], ["--budget is about a choice"]),
    (["--pareto", "p.json"], ["--pareto is about a choice"]),
    (["-c", ""], ["--calibration is empty"]),
    (["--report", "nowhere/r.json"], ["the folder of --report", "does not exist"]),
    (["--report", "r.json", "--plan-out", "./r.json"], ["--plan-out", "would replace --report"]),
    (["-o", "m.onnx", "--depfile", "m.onnx"], ["--depfile", "would replace the output"]),
]


@pytest.mark.parametrize(("arguments", "words"), CASES, ids=[" ".join(case[0]) for case in CASES])
def test_a_wrong_word_is_refused(
    compile_small: Callable[..., Result], work: Path, arguments: list[str], words: list[str]
) -> None:
    result = compile_small(*arguments)
    assert result.exit_code == 2, result.output
    for word in words:
        assert word in result.stderr
    assert list(work.iterdir()) == []


def test_too_few_samples_for_a_bound_are_counted_before_any_work(
    compile_small: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qcompiler.driver.compile._run_pipeline", None)
    result = compile_small("--candidates", "w8a8,w7a8", "--budget", "loss=0.1")
    assert result.exit_code == 1, result.output
    assert "there are 21 (3 of 24 held out for evaluation)" in result.stderr
    assert "or --evaluation DATA" in result.stderr


def test_a_target_is_needed(qcompile: Callable[..., Result], small_cnn_path: Path) -> None:
    result = qcompile(small_cnn_path)
    assert result.exit_code == 2
    assert "--target" in result.stderr


def test_without_data_there_is_a_hint(qcompile: Callable[..., Result], small_cnn_path: Path, work: Path) -> None:
    result = qcompile(small_cnn_path, "--target", "edge-npu")
    assert result.exit_code == 1
    assert "--calibration random" in result.stderr
    assert list(work.iterdir()) == []


def test_the_float_model_is_never_replaced(compile_small: Callable[..., Result], small_cnn_path: Path) -> None:
    before = small_cnn_path.read_bytes()
    result = compile_small("-o", small_cnn_path)
    assert result.exit_code == 2
    assert "would replace the float model" in result.stderr
    assert small_cnn_path.read_bytes() == before


def test_judging_by_fitted_samples_is_refused(compile_small: Callable[..., Result], data: Path) -> None:
    result = compile_small("--evaluation", data)
    assert result.exit_code == 2
    assert "nothing may be judged by what it was fitted on" in result.stderr
