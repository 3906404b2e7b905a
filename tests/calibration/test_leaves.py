"""Pictures of leaves: bounded, alike at every scale as photographs are, and the start where they explain a model."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcompiler.calibration.colours import coloured, spectrum, standardised, whitened
from qcompiler.calibration.data import inputs_of
from qcompiler.calibration.leaves import SIZES, pictures
from qcompiler.calibration.synthesis import synthesise
from qcompiler.ir.execute import Runner


def draw(count: int, *, seed: int = 0, shape: tuple[int, int, int] = (3, 64, 48)) -> np.ndarray:
    return pictures(np.random.default_rng(seed), count, shape, *SIZES[1])


def test_intensities_lie_between_black_and_white() -> None:
    found = draw(6)
    assert found.shape == (6, 3, 64, 48)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 1
    assert 0.3 < found.mean() < 0.6
    assert 0.15 < found.std() < 0.35
    np.testing.assert_array_equal(found, draw(6))
    assert not np.array_equal(found, draw(6, seed=1))


def test_most_neighbours_are_alike_and_some_are_not() -> None:
    steps = np.abs(np.diff(draw(6), axis=3))
    assert np.median(steps) < 0.05  # surfaces
    assert np.quantile(steps, 0.98) > 0.15  # edges


def test_power_falls_with_frequency_as_in_photographs() -> None:
    power = (np.abs(np.fft.fft2(draw(24, shape=(1, 64, 64)))) ** 2).mean(axis=(0, 1))
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64)[None])
    used = (frequency > 0.03) & (frequency < 0.4)
    slope = np.polyfit(np.log(frequency[used]), np.log(power[used]), 1)[0]
    assert -3.2 < slope < -1.4  # Field 1987: -2


@pytest.mark.parametrize("sides", [(32, 32), (33, 20)])
def test_whitening_undoes_colouring(sides: tuple[int, int]) -> None:
    noise = standardised(pictures(np.random.default_rng(0), 2, (3, *sides), 20, 0.1))
    amplitude = spectrum(*sides, 1.0)
    np.testing.assert_allclose(coloured(whitened(noise, amplitude), amplitude), noise, atol=2e-5)


@pytest.fixture
def edges() -> ir.Model:
    """Differences of neighbours, whose statistics are those of leaves in the range -1 … 1."""
    generator = np.random.default_rng(5)
    weight = generator.standard_normal((8, 3, 3, 3)).astype(np.float32)
    weight -= weight.mean(axis=(2, 3), keepdims=True)

    def make(mean: np.ndarray, variance: np.ndarray) -> ir.Model:
        proto = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 21]>
            g (float[N, 3, 40, 40] x) => (float[N, 8, 38, 38] y)
            { c = Conv(x, w)  r = Abs(c)  y = BatchNormalization(r, gamma, beta, mean, var) }""")
        ones = np.ones(8, np.float32)
        for name, content in {"w": weight, "gamma": ones, "beta": 0 * ones, "mean": mean, "var": variance}.items():
            proto.graph.initializer.append(onnx.numpy_helper.from_array(content.astype(np.float32), name))
        return ir.from_proto(onnx.shape_inference.infer_shapes(proto))

    model = make(np.zeros(8), np.ones(8))
    views = pictures(generator, 16, (3, 40, 40), *SIZES[0]) * 2 - 1
    found = Runner(model, ["r"]).run({"x": views})["r"]
    return make(found.mean(axis=(0, 2, 3)), found.var(axis=(0, 2, 3)))


def test_leaves_are_where_the_descent_starts_if_they_explain_more_than_noise(edges: ir.Model) -> None:
    found = synthesise(edges, inputs_of(edges), (1, 3, 40, 40), 4)
    assert found.encoding == "-1 … 1"
    assert found.after < 0.1
    assert found.after < found.before
    samples = np.concatenate([feed["x"] for feed in found.feeds])
    assert np.abs(samples).max() <= 1
    assert np.median(np.abs(np.diff(samples, axis=3))) < 0.15
