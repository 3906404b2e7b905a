"""Synthesised samples meet the statistics in the model; gradients are those of finite differences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import qcompiler
from qcompiler.calibration.batch_statistics import Target, distance, targets
from qcompiler.calibration.colours import ENCODINGS, coloured, spectrum
from qcompiler.calibration.data import inputs_of
from qcompiler.calibration.generators import generated
from qcompiler.calibration.synthesis import synthesise
from qcompiler.errors import DataError, ModelError, UsageError

TEXT = """<ir_version: 10, opset_import: ["": 21]>
    g (float[N, 1, 12, 8] x) => (float[N, 2, 12, 8] y)
    <float[2] gamma = {1.0, 2.0}, float[2] beta = {0.0, 1.0}, float[2] mean = {3.0, -6.0}, float[2] var = {4.0, 16.0},
     float[2, 1, 1, 1] w = {1.0, -2.0}>
    { c = Conv(x, w)  b = BatchNormalization(c, gamma, beta, mean, var)  y = Relu(b) }"""


@pytest.fixture
def model(parse: Callable[[str], ir.Model]) -> ir.Model:
    return parse(TEXT)


def test_statistics_are_those_of_the_normalization(model: ir.Model) -> None:
    (target,) = targets(model)
    assert str(target.value.name) == "c"
    np.testing.assert_allclose(target.mean, [3, -6])
    np.testing.assert_allclose(target.deviation, [2, 4])


def test_the_gradient_is_that_of_finite_differences() -> None:
    generator = np.random.default_rng(0)
    value = ir.Value(name="c")
    wanted = [Target(value, np.array([0.5, -1.0]), np.array([2.0, 0.3]), np.array([2.0, 0.4]))]
    data = generator.standard_normal((3, 2, 4))
    gradient = distance(wanted, {"c": data})[1]["c"]
    for index in [(0, 0, 0), (1, 1, 2), (2, 0, 3)]:
        step = np.zeros_like(data)
        step[index] = 1e-5
        slope = distance(wanted, {"c": data + step})[0] - distance(wanted, {"c": data - step})[0]
        assert gradient[index] == pytest.approx(slope / 2e-5, rel=1e-3)


def test_colouring_is_its_own_transpose() -> None:
    generator = np.random.default_rng(0)
    amplitude = spectrum(7, 10, 1.0)
    first, second = generator.standard_normal((2, 7, 10)).astype(np.float32)
    left, right = (coloured(first, amplitude) * second).sum(), (first * coloured(second, amplitude)).sum()
    assert left == pytest.approx(right, rel=1e-4)
    many = coloured(generator.standard_normal((200, 32, 32)).astype(np.float32), spectrum(32, 32, 1.0))
    assert many.std() == pytest.approx(1, rel=0.15)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda item: item.text)
def test_photographs_lie_between_black_and_white(encoding: object) -> None:
    low, high = encoding.limits(3)  # type: ignore[attr-defined]
    level, spread = encoding.usual(3)  # type: ignore[attr-defined]
    assert (low < level - spread).all()
    assert (level + spread < high).all()


def test_samples_meet_the_statistics_and_are_the_same_again(model: ir.Model) -> None:
    found = synthesise(model, inputs_of(model), (1, 1, 12, 8), 8, seed=3)
    samples = np.concatenate([feed["x"] for feed in found.feeds])
    assert found.layers == 1
    assert found.encoding is None
    assert found.after < 0.02 < found.before
    assert samples.mean() == pytest.approx(3, abs=0.2)
    assert samples.std() == pytest.approx(2, rel=0.1)
    again = synthesise(model, inputs_of(model), (1, 1, 12, 8), 8, seed=3)
    np.testing.assert_array_equal(samples, np.concatenate([feed["x"] for feed in again.feeds]))


def test_a_model_without_statistics_says_so(parse: Callable[[str], ir.Model]) -> None:
    plain = parse("""<ir_version: 10, opset_import: ["": 21]>
        g (float[N, 1, 4, 4] x) => (float[N, 1, 4, 4] y) { y = Relu(x) }""")
    with pytest.raises(ModelError, match="no BatchNormalization statistics"):
        synthesise(plain, inputs_of(plain), (1, 1, 4, 4), 4)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled files go where they are forgotten."""
    monkeypatch.chdir(tmp_path)


def test_none_is_honest(model: ir.Model) -> None:
    result = qcompiler.compile(
        model, "edge-npu", calibration="none", lowering="qdq", limit=8, latency=False, cache=False
    )
    assert result.report.calibration is not None
    assert "synthesised" in result.report.calibration.source
    assert any("samples synthesised to fit them, as near as real ones" in text for text in result.report.warnings)
    assert any("--evaluation" in text for text in result.report.warnings)
    assert result.report.configuration["calibration"].startswith("none")


# -- a generator of the user's own -----------------------------------------------------------------------------

GENERATOR = """
import numpy as np

def generate(inputs, count, seed):
    random = np.random.default_rng(seed)
    while True:
        yield {"x": random.standard_normal((1, 1, 12, 8)).astype("float32")}

def nothing(inputs, count, seed):
    return []

def broken(inputs, count, seed):
    raise ValueError("no such thing")
"""


@pytest.fixture
def generator(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(GENERATOR, encoding="utf-8")
    return f"generator:{path}"


def test_a_generator_gives_the_samples(model: ir.Model, generator: str) -> None:
    assert len(generated(f"{generator}:generate", inputs_of(model), 5, 0)) == 5
    result = qcompiler.compile(
        model, "edge-npu", calibration=f"{generator}:generate", lowering="qdq", limit=8, latency=False, cache=False
    )
    assert any("generator" in text for text in result.report.warnings)


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        ("generat", UsageError, "no function"),
        ("nothing", DataError, "gave no samples"),
        ("broken", DataError, "no such thing"),
    ],
)
def test_what_a_generator_does_wrong(
    model: ir.Model, generator: str, function: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        generated(f"{generator}:{function}", inputs_of(model), 4, 0)


@pytest.mark.parametrize("spec", ["generator:", "generator:nowhere.py", "generator:nowhere.py:f"])
def test_a_generator_that_is_not_there(model: ir.Model, spec: str) -> None:
    with pytest.raises(UsageError):
        qcompiler.compile(model, "edge-npu", calibration=spec)
