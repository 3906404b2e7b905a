"""``--config``: the same names as the options, the command line wins, paths are seen from the file's folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Run = Callable[..., Result]


def _report(result: Result) -> dict[str, object]:
    assert result.exit_code == 0, result.output
    report: dict[str, object] = json.loads(result.stdout)
    return report


@pytest.fixture
def project(tmp_path: Path, small_cnn_path: Path, data: Path) -> Path:
    """A folder with model, data and configuration, away from the current one."""
    folder = tmp_path / "project"
    folder.mkdir()
    small_cnn_path.rename(folder / "net.onnx")
    data.rename(folder / "data.npz")
    (folder / "qcompile.toml").write_text(
        'model = "net.onnx"\ntarget = "cpu-x86"\ncalibration = "data.npz"\nlatency = false\n'
        'exclude = ["fc"]\nmin-sqnr = 5\ncalibration_method = "percentile"\noutput = "net.q.onnx"\n',
        encoding="utf-8",
    )
    return folder


def test_a_file_may_say_everything(qcompile: Run, project: Path) -> None:
    report = _report(qcompile("--config", project / "qcompile.toml", "--json"))
    configuration = report["configuration"]
    assert isinstance(configuration, dict)
    assert configuration["calibration-method"] == "percentile"
    assert configuration["exclude"] == "fc"
    assert configuration["min-sqnr"] == "5.0"
    assert (project / "net.q.onnx").is_file()


def test_the_command_line_wins(qcompile: Run, project: Path, work: Path) -> None:
    result = qcompile(
        "--config", project / "qcompile.toml", "--json", "--target", "edge-npu", "--observer", "mse", "-o", "out.onnx",
        "--exclude", "conv",
    )  # fmt: skip
    report = _report(result)
    configuration = report["configuration"]
    assert isinstance(configuration, dict)
    assert configuration["target"].startswith("edge-npu:")
    assert configuration["calibration-method"] == "mse"
    assert configuration["exclude"] == "conv"
    assert (work / "out.onnx").is_file()
    assert not (project / "net.q.onnx").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('targt = "edge-npu"', ["targt", "did you mean 'target'"]),
        ("min-sqrn = 5", ["min-sqrn", "did you mean 'min-sqnr'"]),
        ('verify = "numeric"', ["numeric", "did you mean 'numerics'"]),
        ('jobs = "many"', ["many"]),
        ("jobs = [1]", ["jobs", "one value"]),
        ("jobs =", ["not TOML"]),
        ('config = "other.toml"', ["config"]),
    ],
)
def test_a_wrong_file_is_refused(qcompile: Run, tmp_path: Path, line: str, words: list[str]) -> None:
    path = tmp_path / "c.toml"
    path.write_text(line + "\n", encoding="utf-8")
    result = qcompile("digits_cnn", "-t", "edge-npu", "--config", path)
    assert result.exit_code == 2, result.output
    for word in words:
        assert word in result.stderr


def test_every_option_may_stand_in_a_file() -> None:
    from qcompiler.cli.compile import main
    from qcompiler.cli.config import _known
    from qcompiler.driver.options import CompileOptions

    known = _known(main)
    assert set(known.values()) >= set(CompileOptions.names())
    assert known["observer"] == "calibration_method"
    assert known["plugin"] == "plugins"
