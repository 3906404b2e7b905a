"""Losses of samples, and what they say of more of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qcompiler.analysis.plan_loss import LOSSES, loss_named, upper_bound
from qcompiler.errors import UsageError

STUDENT = {7: 3.499, 10: 3.169, 30: 2.750, 120: 2.617}
"""Quantiles at 99.5 % by degrees of freedom, from tables."""


@pytest.mark.parametrize(("freedom", "quantile"), STUDENT.items())
def test_the_bound_is_that_of_student(freedom: int, quantile: float) -> None:
    losses = np.random.default_rng(freedom).normal(1.0, 0.1, freedom + 1)
    error = losses.std(ddof=1) / math.sqrt(len(losses))
    assert (upper_bound(losses) - losses.mean()) / error == pytest.approx(quantile, rel=0.01)


def test_the_bound_seldom_fails_on_normal_losses() -> None:
    draws = np.random.default_rng(0).normal(1.0, 0.5, (2000, 20))
    assert np.mean([upper_bound(draw) < 1.0 for draw in draws]) < 0.015


def test_what_did_not_happen_may_still_happen() -> None:
    assert upper_bound(np.zeros(40)) == 0.0
    assert upper_bound(np.zeros(40), shares=True) == pytest.approx(2.576**2 / (40 + 2.576**2))
    assert upper_bound(np.eye(1, 40)[0], shares=True) > upper_bound(np.zeros(40), shares=True)


def test_a_loss_that_is_no_number_is_no_bound() -> None:
    assert upper_bound(np.array([0.1, math.inf])) == math.inf
    assert upper_bound(np.array([0.1])) == math.inf


def test_losses_are_zero_for_equal_outputs_and_grow() -> None:
    rows = np.random.default_rng(0).normal(size=(4, 10))
    for name in LOSSES:
        loss = loss_named(name, vector=False)
        assert loss(rows, rows) == pytest.approx(0.0, abs=1e-12)
        assert loss(rows, -rows) > 0.1
    assert loss_named(None, vector=True)(rows, rows * 3) == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(UsageError, match="top1"):
        loss_named("top1", vector=False)
