"""Moments of fewer rows than inputs are damped more."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from qcompiler.passes.round._layers import own_layers
from qcompiler.passes.round._statistics import SINGULAR, Rows, Statistics, take
from qcompiler.passes.round._walk import Walk

LAYER = ("y = Gemm <transB=1> (x, w)", "float[N,16] x", "float[N,6] y", {"w": (6, 16)})


def statistics(calibrated: Callable, samples: int) -> Statistics:
    x = np.random.default_rng(samples).standard_normal((samples, 1, 16)).astype(np.float32)
    model, ctx = calibrated(*LAYER, [{"x": item} for item in x])
    walk = Walk(model, own_layers(model.graph, ctx), ctx.calibration, ctx)
    found = [take(visit, layer, samples, Rows(0, 1)) for visit in walk for layer in visit.layers]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    ("samples", "damping", "bits", "kept"),
    [(15, 0.01, 4, SINGULAR), (15, 2.0, 4, 2.0), (16, 0.01, 4, 0.01), (15, 0.01, 8, 0.01)],
)
def test_damping_grows_where_few_bits_answer_fewer_rows_than_inputs(
    calibrated: Callable, samples: int, damping: float, bits: int, kept: float
) -> None:
    found = statistics(calibrated, samples)
    assert found.rows == samples
    added = found.problem(damping, bits).hessian - found.hessian
    expected = kept * np.trace(found.hessian[0]) / 16 * np.eye(16)
    np.testing.assert_allclose(added[0], expected, atol=1e-9)
