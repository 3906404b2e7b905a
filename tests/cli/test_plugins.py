"""Passes and metrics from files of one's own: the README's example, wrong order, ``--bisect``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Run = Callable[..., Result]

README = Path(__file__).resolve().parents[2] / "README.md"
REST = "assign-formats,calibrate,calibrate-weights,correct-bias,place-qdq,finalize"


@pytest.fixture
def example(work: Path) -> Path:
    """The pass that the README shows, as a file."""
    blocks = re.findall(r"```python\n(# clip_weights\.py\n.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 1
    path = work / "clip_weights.py"
    path.write_text(blocks[0], encoding="utf-8")
    return path


def test_the_example_has_at_most_forty_lines(example: Path) -> None:
    assert len(example.read_text(encoding="utf-8").splitlines()) <= 40


def test_the_example_runs(compile_small: Run, example: Path) -> None:
    pipeline = f"normalize,clip-weights{{sigma=1.0}},{REST}"
    result = compile_small("--plugin", example, "--pipeline", pipeline, "--json")
    assert result.exit_code == 0, result.output
    done = {item["text"]: item["edits"] for item in json.loads(result.stdout)["passes"]}
    assert done["clip-weights{sigma=1.0}"] == 1


def test_the_example_is_described(toolbox: Run, example: Path) -> None:
    found = json.loads(toolbox("passes", "clip-weights", "--plugin", example, "--json").stdout)
    assert found["family"] == "plugin"
    assert found["options"] == [{"name": "sigma", "default": "4.0", "takes": "a number"}]


def test_a_wrong_order_is_refused_before_any_work(compile_small: Run, example: Path, work: Path) -> None:
    result = compile_small("--plugin", example, "--pipeline", f"clip-weights,normalize,{REST}")
    assert result.exit_code == 2
    assert "'clip-weights' requires the fact 'canonical'" in result.stderr
    assert "move 'import-model' before 'clip-weights'" in result.stderr
    assert [path.name for path in work.iterdir()] == ["clip_weights.py"]


BAD = '''
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from qcompiler.ir.constants import array
from qcompiler.pipeline.base import Context, Pass


@dataclass(frozen=True)
class BreakIt(Pass):
    """Spoil the weights of the last layer."""

    name: ClassVar[str] = "break-it"

    def run(self, model: ir.Model, ctx: Context) -> None:
        for value in list(model.graph.initializers.values()):
            if value.shape is not None and len(value.shape) == 2:
                ctx.edit.set_constant(value, -array(value))
'''


@pytest.mark.parametrize("metric", ["sqnr", "cosine", "kl"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_bisect_names_the_bad_pass(compile_small: Run, work: Path, place: str, metric: str) -> None:
    (work / "bad.py").write_text(BAD, encoding="utf-8")
    pipeline = f"normalize,break-it,{REST}"
    if place == "after":
        pipeline = "normalize,assign-formats,calibrate,break-it,calibrate-weights,place-qdq,finalize"
    result = compile_small("--plugin", "bad.py", "--pipeline", pipeline, "--bisect", "--metric", metric, "--keep")
    assert f"{metric} fell most in the pass break-it: from" in " ".join(result.stdout.split())


def test_bisect_tells_ranges_of_activations_from_scales_of_weights(compile_small: Run) -> None:
    result = compile_small("--bisect", "--json")
    figures = {item["text"]: item["figure"] for item in json.loads(result.stdout)["bisect"]}
    assert figures["assign-formats"] > 100 > figures["calibrate"] > figures["calibrate-weights"]


def test_replay_says_in_json_that_the_failure_is_still_there(
    compile_small: Run, toolbox: Run, example: Path, work: Path
) -> None:
    example.write_text(example.read_text(encoding="utf-8").replace("weight.std", "weight.sdt"), encoding="utf-8")
    plugin = ("--plugin", example)
    result = compile_small(*plugin, "--pipeline", f"normalize,clip-weights,{REST}", "--repro-dir", work / "repro")
    assert result.exit_code == 1
    result = toolbox("replay", work / "repro", *plugin, "--json")
    assert result.exit_code == 1
    said = json.loads(result.stdout)
    assert said["reproduced"]
    assert "sdt" in said["error"]


METRIC = '''
import numpy as np

from qcompiler.analysis.metrics import metric


@metric("largest-error", higher_is_better=False)
def largest_error(reference, candidate):
    return float(np.abs(reference - candidate).max())
'''


def test_a_metric_of_ones_own(compile_small: Run, work: Path) -> None:
    (work / "mine.py").write_text(METRIC, encoding="utf-8")
    result = compile_small("--plugin", "mine.py", "--metric", "largest-error", "--json")
    assert result.exit_code == 0, result.output
    quality = json.loads(result.stdout)["quality"]
    assert quality["metric"] == "largest-error"
    assert 0 < quality["value"] <= quality["outputs"][0]["max_abs_error"]


def test_a_plugin_that_fails_is_named(compile_small: Run, work: Path) -> None:
    (work / "broken.py").write_text("import nothing_of_the_kind\n", encoding="utf-8")
    result = compile_small("--plugin", "broken.py")
    assert result.exit_code == 2
    assert "broken.py:1" in result.stderr
