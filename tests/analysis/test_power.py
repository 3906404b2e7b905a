"""The fast path of Power against the definition."""

from __future__ import annotations

import numpy as np
import pytest

from qcompiler.analysis.metrics import sqnr
from qcompiler.analysis.power import Power


@pytest.mark.parametrize("scale", [1e-25, 1e-3, 1.0, 1e15, 1e25])
def test_sums_over_blocks_equal_the_definition(scale: float) -> None:
    rng = np.random.default_rng(0)
    reference = (rng.normal(size=(3, 40_000)) * scale).astype(np.float32)
    candidate = (reference * (1 + 0.01 * rng.normal(size=reference.shape))).astype(np.float32)
    power = Power()
    for wanted, found in zip(reference, candidate, strict=True):
        power.update(wanted, found)
    assert power.sqnr() == pytest.approx(sqnr(reference, candidate), abs=1e-3)
    assert power.max_error == pytest.approx(float(np.abs(reference - candidate).max()), rel=1e-6)


def test_one_sample_that_is_not_finite_is_remembered() -> None:
    power = Power()
    power.update(np.ones(4, np.float32), np.array([1, 1, 1, np.nan], np.float32))
    power.update(np.ones(4, np.float32), np.ones(4, np.float32))
    assert power.broken
    assert power.sqnr() == -200


def test_an_undefined_reference_is_left_out() -> None:
    power = Power()
    power.update(np.array([3, np.nan], np.float32), np.array([3, 1], np.float32))
    assert power.sqnr() == 200
