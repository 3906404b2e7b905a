"""Losses of samples, and what they say of more of them."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from qcompiler.analysis.plan_loss import LOSSES, enough_to_judge, loss_named, upper_bound
from qcompiler.calibration import data
from qcompiler.calibration.trust import Made
from qcompiler.errors import DataError, UsageError

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


def test_samples_that_bound_nothing_are_refused_with_what_became_of_them() -> None:
    given = data.load([{"x": np.zeros((1, 2), np.float32)}] * 24, {"x": (np.dtype(np.float32), ("N", 2))})
    assert enough_to_judge(given) is given
    few, more = r"24 calibration samples, and there are (\d+)( \(.*\))?: a third", "give more of --calibration"
    for dataset, held_out, count, aside, hint in (
        (None, 0, "0", None, f"{more}, or a budget of size"),
        (given.subset(range(21)), 3, "21", " (3 of 24 held out for evaluation)",
         f"{more}, or --evaluation DATA so that none are held out, or a budget of size"),
        (given.subset(range(7)), 1, "7", " (1 of 8 held out for evaluation)", f"{more}, or a budget of size"),
        (replace(given.subset(range(14)), made=Made(0.1)), 2, "14", " (2 of 16 held out for evaluation)",
         "have 32 made with --limit 32, or a budget of size"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=few) as caught:
            enough_to_judge(dataset, held_out)
        found = re.search(few, str(caught.value))
        assert found is not None
        assert found.groups() == (count, aside)
        assert caught.value.hint == hint
