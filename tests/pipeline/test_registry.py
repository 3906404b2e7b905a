"""Finding passes: in the tree, in packages, in a user's file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.errors import PipelineError, UsageError
from qcompiler.ir.edit import Edit
from qcompiler.pipeline import registry, spec
from qcompiler.pipeline.base import Context, Fact
from qcompiler.pipeline.instruments.verify import Verify
from qcompiler.pipeline.manager import Pipeline

EXAMPLE = Path(__file__).with_name("plugin_example.py")


@pytest.fixture(autouse=True)
def no_plugins_left() -> Iterator[None]:
    yield
    registry._PLUGINS.clear()
    registry._PLUGIN_METRICS.clear()


def test_every_in_tree_pass_is_found_by_name() -> None:
    passes = registry.known()
    assert {"import-model", "infer-shapes", "finalize", "assign-formats", "place-qdq"} <= set(passes)
    assert list(passes) == sorted(passes)
    for name, cls in passes.items():
        assert registry.find(name) is cls
        assert cls.__doc__
    assert registry.family(passes["finalize"]) == "finalize"
    assert registry.find("nonsense") is None


def test_looking_one_up_imports_no_other() -> None:
    code = (
        "import sys; from qcompiler.pipeline import registry; registry.find('infer-shapes');"
        "print([m for m in sys.modules if m.startswith('qcompiler.passes.')])"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.strip() == "['qcompiler.passes.normalize', 'qcompiler.passes.normalize.infer_shapes']"


def test_the_example_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 40


def test_a_plugin_file_runs(small_cnn: ir.Model) -> None:
    (cls,) = registry.load_plugin(EXAMPLE)
    edit = Edit(small_cnn)
    relu = small_cnn.graph[1]
    mul = edit.insert("Mul", [relu.outputs[0], edit.constant("one", np.float32(1))], after=relu)
    mul.outputs[0].shape, mul.outputs[0].type = relu.outputs[0].shape, relu.outputs[0].type
    edit.set_input(small_cnn.graph[3], 0, mul.outputs[0])
    passes = spec.parse("drop-multiply-by-one{limit=5}")
    assert isinstance(passes[0], cls)
    records = Pipeline(passes, frozenset({Fact.CANONICAL})).run(small_cnn, Context(edit), [Verify("numerics")])
    assert records[0].edits == 2
    assert [node.op_type for node in small_cnn.graph] == ["Conv", "Relu", "MaxPool", "Flatten", "Gemm"]
    assert registry.known()["drop-multiply-by-one"] is cls
    figure = registry.metrics()["largest-error"]
    assert figure(np.zeros(2), np.array([1.0, -3.0])) == 3.0
    assert not figure.higher_is_better
    assert {"sqnr", "kl"} <= set(registry.metrics())


def test_loading_twice_is_harmless() -> None:
    registry.load_plugin(EXAMPLE)
    registry.load_plugin(EXAMPLE)


def test_a_plugin_in_the_wrong_place_is_refused_before_any_work() -> None:
    registry.load_plugin(EXAMPLE)
    with pytest.raises(PipelineError, match="'drop-multiply-by-one' requires the fact 'canonical'") as caught:
        Pipeline(spec.parse("drop-multiply-by-one,import-model"))
    assert caught.value.hint == "move 'import-model' before 'drop-multiply-by-one'"


TEMPLATE = """
from dataclasses import dataclass
from typing import ClassVar
from qcompiler.pipeline.base import Pass
{decorator}
class Mine(Pass):
    name: ClassVar[str] = {name!r}
    {field}
    def run(self, model, ctx): pass
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 / 0", r"ZeroDivisionError"),
        ("def (", "SyntaxError"),
        ("raise SystemError('no')", "SystemError: no"),
        (TEMPLATE.format(decorator="", name="mine", field=""), "frozen dataclass"),
        (TEMPLATE.format(decorator="@dataclass(frozen=True)", name="my pass", field=""), "letters, digits"),
        (TEMPLATE.format(decorator="@dataclass(frozen=True)", name="mine", field="x: int"), "'x' needs a default"),
        (TEMPLATE.format(decorator="@dataclass(frozen=True)", name="finalize", field=""), "'finalize' exists already"),
    ],
)
def test_bad_plugins_are_refused_with_words(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "bad.py"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        registry.load_plugin(path)
    assert not registry._PLUGINS


def test_the_failing_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("x = 1\ny = 2\nz = x / 0\n")
    with pytest.raises(UsageError, match=r"bad\.py:3: the plugin fails"):
        registry.load_plugin(tmp_path / "bad.py")
    with pytest.raises(UsageError, match="no such plugin"):
        registry.load_plugin(tmp_path / "absent.py")


def test_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution on the path that offers the example, a broken pass and a metric."""
    info = tmp_path / "thirdparty-1.0.dist-info"
    info.mkdir()
    (tmp_path / "thirdparty.py").write_text(EXAMPLE.read_text())
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thirdparty\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[qcompiler.passes]\ndrop-multiply-by-one = thirdparty:DropMultiplyByOne\nbroken = thirdparty:absent\n"
        "[qcompiler.metrics]\nlargest-error = thirdparty:largest_error\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert metadata.entry_points(group="qcompiler.passes")
    assert spec.parse("drop-multiply-by-one")[0].name == "drop-multiply-by-one"
    with pytest.raises(PipelineError, match="cannot be loaded"):
        spec.parse("broken")
    with pytest.warns(RuntimeWarning, match="broken = thirdparty:absent"):
        assert "drop-multiply-by-one" in registry.known()
    assert registry.metrics()["largest-error"].name == "largest-error"
