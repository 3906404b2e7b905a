"""Metrics against definitions worked out by hand, and total on degenerate arrays."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qcompiler.analysis.metrics import (
    BUILTIN,
    KL_CEILING,
    SQNR_CEILING,
    agreement,
    class_rows,
    cosine,
    decided,
    kl,
    softened_kl,
    sqnr,
    top1,
)

ONE_HOT = np.array([[0.0, 3.0, 1.0], [2.0, 0.0, 1.0]])


def test_sqnr_is_ten_log_ten_of_the_power_ratio() -> None:
    reference = np.array([[3.0, 4.0]])
    assert sqnr(reference, reference + np.array([[0.5, 0.0]])) == pytest.approx(10 * math.log10(25 / 0.25))


def test_equal_tensors_reach_the_ceiling_and_zeros_zero_decibels() -> None:
    assert sqnr(ONE_HOT, ONE_HOT) == SQNR_CEILING
    assert sqnr(ONE_HOT, np.zeros_like(ONE_HOT)) == 0.0
    assert sqnr(np.zeros(3), np.zeros(3)) == SQNR_CEILING
    assert sqnr(np.zeros(3), np.ones(3)) == -SQNR_CEILING


def test_sqnr_survives_huge_numbers() -> None:
    huge = np.array([9.6e18, -1e200])
    assert sqnr(huge, huge * 1.01) == pytest.approx(40.0)


def test_cosine_is_the_mean_over_samples() -> None:
    reference = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert cosine(reference, np.array([[2.0, 0.0], [0.0, 5.0]])) == pytest.approx(0.5)
    assert cosine(ONE_HOT, np.zeros_like(ONE_HOT)) == 0.0
    assert cosine(np.zeros((2, 3)), np.zeros((2, 3))) == 1.0
    assert cosine(np.full((1, 4), 0.001), np.full((1, 4), 0.0011)) == pytest.approx(1.0)


def test_kl_of_probabilities_equals_kl_of_their_logits() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5, 7)), rng.normal(size=(5, 7))
    probabilities = [np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in logits]
    expected = float((probabilities[0] * np.log(probabilities[0] / probabilities[1])).sum(1).mean())
    assert kl(*logits) == pytest.approx(expected)
    assert kl(*probabilities) == pytest.approx(expected)


def test_kl_of_lost_probabilities_is_bad_although_zeros_normalise_to_uniform() -> None:
    uniform = np.full((2, 1000), 0.001)
    assert kl(uniform, uniform) == pytest.approx(0.0)
    assert kl(uniform, np.zeros_like(uniform)) > 9


def test_kl_of_enormous_logits_is_finite() -> None:
    assert kl(np.array([[9.6e18, 0.0]]), np.array([[0.0, 9.6e18]])) == KL_CEILING


def test_softened_kl_is_the_mean_with_the_divergence_at_temperature_two() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(5, 7)), rng.normal(size=(5, 7))
    p, q = (np.exp(z / 2) / np.exp(z / 2).sum(1, keepdims=True) for z in (first, second))
    soft = float((p * np.log(p / q)).sum(1).mean())
    assert softened_kl(first, second) == pytest.approx((kl(first, second) + 4 * soft) / 2)
    shares = [np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (first, second)]
    assert softened_kl(*shares) == pytest.approx(softened_kl(first, second))


def test_softened_kl_sees_changes_of_confident_decisions() -> None:
    sure, shaken = np.array([[20.0, 0.0, 0.0]]), np.array([[16.0, 0.0, 0.0]])
    assert softened_kl(sure, sure) == 0
    assert softened_kl(sure, shaken) > 100 * kl(sure, shaken) > 0
    assert softened_kl(sure, np.full((1, 3), np.nan)) > KL_CEILING


def test_agreement_accepts_any_class_of_a_tie() -> None:
    assert agreement(ONE_HOT, ONE_HOT[:, ::-1]) == 50.0
    assert agreement(ONE_HOT, ONE_HOT + 1) == 100.0
    assert agreement(np.array([[1.0, 1.0, 0.0]]), np.array([[0.0, 1.0, 0.5]])) == 100.0


def test_agreement_of_token_models_counts_tokens() -> None:
    reference = np.eye(4)[None]  # one sample, four tokens
    candidate = reference.copy()
    candidate[0, 0] = [0, 0, 0, 1]
    assert agreement(reference, candidate) == 75.0


def test_decided_rows() -> None:
    assert decided(ONE_HOT) == (2, 2)
    flat = np.full((3, 10), 0.001) + np.random.default_rng(0).normal(size=(3, 10)) * 1e-11
    assert decided(flat) == (0, 3)


def test_class_axis() -> None:
    assert class_rows(np.zeros((2, 5, 1, 1))).shape == (2, 5)
    assert class_rows(np.zeros((2, 5, 3, 4))).shape == (24, 5)
    assert class_rows(np.zeros((2, 3, 5))).shape == (6, 5)
    assert class_rows(np.zeros(5)).shape == (1, 5)
    assert class_rows(np.zeros((0, 5))).shape == (0, 5)


def test_top1_checks_the_number_of_labels() -> None:
    assert top1(ONE_HOT, [1, 2]) == 50.0
    with pytest.raises(ValueError, match="3 labels for 2 rows"):
        top1(ONE_HOT, [1, 2, 3])


@pytest.mark.parametrize("classes", [10, 1000])
@pytest.mark.parametrize("probabilities", [False, True])
def test_kl_is_the_one_that_the_model_zoo_judges_by(zoo: ModuleType, classes: int, probabilities: bool) -> None:
    rng = np.random.default_rng(classes)
    wanted = rng.normal(size=(20, classes)) * 3
    found = wanted + rng.normal(size=wanted.shape) * 0.1
    if probabilities:
        wanted, found = (np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (wanted, found))
        levels = 255 if classes == 10 else 65535  # few enough that rows still add up to 1, with exact zeros
        found = np.round(found * levels) / levels
    assert kl(wanted, found) == pytest.approx(zoo._kl(wanted, found), rel=1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_candidate_that_is_not_finite_gets_the_worst_value(bad: float) -> None:
    candidate = ONE_HOT.copy()
    candidate[0, 0] = bad
    for item in BUILTIN:
        assert item(ONE_HOT, candidate) == item.worst


def test_elements_without_a_finite_reference_are_left_out() -> None:
    reference = ONE_HOT.copy()
    reference[0, 0] = np.nan
    for item in BUILTIN:
        assert item(reference, ONE_HOT) == item(np.where(np.isnan(reference), 0, reference), ONE_HOT)


_ANY = hnp.arrays(
    np.float32,
    st.shared(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4), key="shape"),
    elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
)


@settings(max_examples=150, deadline=None)
@given(_ANY, _ANY)
def test_every_metric_is_a_finite_number_whatever_goes_in(reference: np.ndarray, candidate: np.ndarray) -> None:
    for item in BUILTIN:
        with np.errstate(all="raise", under="ignore"):
            assert math.isfinite(item(reference, candidate))


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.float32, (3, 5), elements=st.floats(-100, 100, width=32)))
def test_nothing_is_better_than_the_reference_itself(reference: np.ndarray) -> None:
    other = reference + 1
    for item in BUILTIN:
        slack = 1e-9 if item.higher_is_better else -1e-9
        assert not item.better(item(reference, other), item(reference, reference) + slack)
