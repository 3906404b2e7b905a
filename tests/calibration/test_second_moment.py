"""Second moments: what each weight is multiplied with, against layers computed one product at a time."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from qcompiler.calibration.histogram import NotFiniteError
from qcompiler.calibration.second_moment import Layout, SecondMoments, Window


def reference(image: np.ndarray, window: Window) -> np.ndarray:
    """Squares of what each tap reads, summed output by output."""
    _, channels, height, width = image.shape
    total = np.zeros((channels, *window.kernel))
    padded = np.zeros((len(image), channels, height + window.pads[0] + window.pads[2], width + sum(window.pads[1::2])))
    padded[:, :, window.pads[0] :, window.pads[1] :][:, :, :height, :width] = image
    reach = [d * (k - 1) + 1 for d, k in zip(window.dilations, window.kernel, strict=True)]
    rows = range(0, padded.shape[2] - reach[0] + 1, window.strides[0])
    columns = range(0, padded.shape[3] - reach[1] + 1, window.strides[1])
    for row, column in itertools.product(rows, columns):
        for i, j in itertools.product(*map(range, window.kernel)):
            read = padded[:, :, row + i * window.dilations[0], column + j * window.dilations[1]]
            total[:, i, j] += np.square(read).sum(axis=0)
    return total


@pytest.mark.parametrize(
    "window",
    [
        Window((3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
        Window((3, 2), (2, 3), (0, 1, 2, 0), (2, 1)),
        Window((1, 1), (2, 2), (0, 0, 0, 0), (1, 1)),
        Window((5, 5), (1, 1), (0, 0, 0, 0), (2, 2)),  # taller than the image: no output, nothing is read
    ],
)
def test_taps_of_a_convolution(window: Window) -> None:
    random = np.random.default_rng(0)
    images = [random.standard_normal((2, 3, 7, 8)).astype(np.float32) for _ in range(3)]
    layout = Layout(1, window)
    moments = SecondMoments([layout, Layout(1), layout])
    for image in images:
        moments.update(image)
    np.testing.assert_allclose(moments.sums(layout), sum(reference(image, window) for image in images), rtol=1e-5)
    everything = sum(np.square(image).sum(axis=(0, 2, 3), dtype=np.float64) for image in images)
    np.testing.assert_allclose(moments.sums(Layout(1)), everything, rtol=1e-6)


def test_rows_of_weight_0_are_as_if_they_were_not_there() -> None:
    random = np.random.default_rng(1)
    data = random.standard_normal((2, 5, 4)).astype(np.float32)
    weights = np.array([[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]], np.float32)
    spoilt = np.where(weights[..., None] > 0, data, np.nan)
    moments = SecondMoments([Layout(-1)])
    moments.update(spoilt, weights[..., None])
    np.testing.assert_allclose(moments.sums(Layout(-1)), np.square(data[weights > 0]).sum(axis=0), rtol=1e-6)


def test_state_comes_back_and_infinity_is_refused() -> None:
    layouts = [Layout(0), Layout(1)]
    moments, other = SecondMoments(layouts), SecondMoments(layouts)
    assert moments.sums(layouts[0]) is None
    moments.update(np.ones((3, 2), np.float32))
    other.restore(moments.state())
    assert moments.settings() == other.settings()
    for layout in layouts:
        np.testing.assert_array_equal(moments.sums(layout), other.sums(layout))
    with pytest.raises(NotFiniteError):
        moments.update(np.array([[np.inf, 1.0]], np.float32))
